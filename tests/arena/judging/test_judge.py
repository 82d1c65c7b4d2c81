"""A judge that is known votes on battles: prompts, swapped sides, what cannot be read, and going on after a kill."""

from __future__ import annotations

import json

import pytest

from camelid.arena.judging.judge import LINES, judge, verdict
from camelid.arena.judging.prompts import load_prompts, pair_request
from camelid.arena.logs import BattleText, read_battles
from camelid.arena.logs.read import read_logged
from camelid.errors import OptionError, ResourceError
from camelid.evals.ask import Reply
from camelid.evals.task import Written
from camelid.files import lock


def battle(name, a, b, question="Why?", turns=1):
    def side(text):
        return [{"role": r, "content": c} for _ in range(turns) for r, c in (("user", question), ("assistant", text))]

    return BattleText(name, "one", "two", side(a), side(b))


class Longer:
    """Prefers the longer answer; the first where both are alike."""

    name, has_chat = "longer", True

    def __init__(self, dies_after=None):
        self.asked, self.dies_after = [], dies_after

    def describe(self):
        return {"name": self.name}

    def excess(self, request):
        return 0

    def ask(self, requests):
        for place, (request, _) in enumerate(requests):
            if self.dies_after is not None and place >= self.dies_after:
                raise KeyboardInterrupt
            self.asked.append(request)
            text = request.prompt[1].content
            a, b = (text.split(f"Assistant {s}'s Answer]\n")[1].split("\n[The End")[0] for s in "AB")
            mark = "" if "?" in (a, b) else "[[A]]" if len(a) >= len(b) else "[[B]]"
            yield place, Reply(Written((f"I think {mark}",), ("stop",)), 1, None)


BATTLES = [
    battle("1", "long {answer}", "no"),
    battle("2", "no", "longer"),
    battle("3", "same", "emas"),
    battle("4", "?", "x"),
]


def test_votes_need_both_orders(tmp_path):
    found = judge(BATTLES, Longer(), tmp_path / "out")
    assert found.winners == {"model_a": 1, "model_b": 1, "tie": 1}
    assert (found.unparsable, found.inconsistent, found.first, found.decided) == (1, 1, 4, 6)
    votes = read_battles([tmp_path / "out" / "votes.jsonl"])
    assert votes.voters == ("longer",)
    assert votes.ids.tolist() == ["1", "2", "3"]
    assert votes.winner.tolist() == [0, 1, 2]


def test_votes_of_a_model_are_not_read_together_with_peoples(tmp_path):
    judge(BATTLES, Longer(), tmp_path / "out")
    votes, people = tmp_path / "out" / "votes.jsonl", tmp_path / "people.jsonl"
    people.write_text('{"model_a": "one", "model_b": "two", "winner": "tie", "judge": "Ada"}\n')
    for paths in ([people, votes], [votes, people]):
        for read in (read_battles, lambda paths: list(read_logged(paths))):
            with pytest.raises(OptionError, match=r":1: votes of a model that judges, and votes of people"):
                read(paths)
    assert len(read_battles([people])) == 1


def test_it_goes_on_after_a_kill(tmp_path):
    whole = tmp_path / "whole"
    judge(BATTLES, Longer(), whole)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        judge(BATTLES, Longer(dies_after=3), out)
    with (out / LINES).open("a") as file:
        file.write('{"id": "2", "win')
    asker = Longer()
    judge(BATTLES, asker, out)
    assert len(asker.asked) == 6
    assert (out / LINES).read_bytes() == (whole / LINES).read_bytes()
    assert (out / "votes.jsonl").read_bytes() == (whole / "votes.jsonl").read_bytes()


def test_the_same_answers_are_judged_once_whichever_side_they_are_on(tmp_path):
    again = BattleText("8", "two", "one", BATTLES[0].conversation_b, BATTLES[0].conversation_a)
    others = BattleText("9", "three", "two", BATTLES[0].conversation_a, BATTLES[0].conversation_b)
    asker = Longer()
    found = judge([BATTLES[0], battle("7", "long {answer}", "no"), again, others], asker, tmp_path)
    assert found.left_out == {"the same answers were judged in an earlier one": 2}
    assert len(asker.asked) == 4
    assert read_battles([tmp_path / "votes.jsonl"]).ids.tolist() == ["1", "9"]


def test_two_processes_do_not_judge_into_one_folder(tmp_path):
    with lock(tmp_path / ".lock", lambda: None), pytest.raises(ResourceError, match="another process"):
        judge(BATTLES, Longer(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_another_way_of_judging_is_refused(tmp_path):
    judge(BATTLES[:1], Longer(), tmp_path)
    with pytest.raises(OptionError, match="another prompts_sha256"):
        judge(BATTLES[:1], Longer(), tmp_path, prompts={**load_prompts(), "more": {}})


def test_what_cannot_be_judged_is_counted(tmp_path):
    other = BattleText("5", "one", "two", BATTLES[0].conversation_a, battle("", "a", "b", "Else?").conversation_b)
    found = judge([battle("6", "a", "b", turns=3), other], Longer(), tmp_path)
    assert found.left_out == {"more than 2 turns": 1, "questions and answers do not match": 1}
    assert (tmp_path / "votes.jsonl").read_text() == ""


def test_prompts_with_two_turns_and_references():
    asked = pair_request(load_prompts(), battle("1", "a {b}", "c", turns=2), True, {("Why?", "Why?"): ["r1", "r2"]})
    text = asked.prompt[1].content
    assert asked.temperature == 0
    assert "### Reference answer:\nr1" in text
    assert text.index("### Assistant A:\nc") < text.index("### Assistant B:\na {b}")


def test_single_ratings():
    assert verdict("single", "Rating: [[7]]", "[[5.5]]")["winner"] == "model_a"
    assert verdict("single", "[[5]]", "[[5]]")["winner"] == "tie"
    assert verdict("single", "[[11]]", "[[5]]")["winner"] is None
    assert json.dumps(verdict("pair", "[[C]]", "none"))
