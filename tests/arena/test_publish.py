"""A published board is made again from its log; what was changed is named."""

from __future__ import annotations

import json

import numpy as np
import pytest

from camelid.arena.cleaning.candidates import Candidate, candidates
from camelid.arena.cleaning.clean import clean
from camelid.arena.logs.read import read_battles
from camelid.arena.logs.vote import Vote
from camelid.arena.publish import BOARD, LOG, publish, verify
from camelid.arena.ratings.options import RateOptions
from camelid.arena.ratings.rate import rate
from camelid.cli.flags import run_verb
from camelid.errors import FormatError, OptionError


def votes(n: int = 400, seed: int = 0) -> list[Candidate]:
    rng = np.random.default_rng(seed)
    made = []
    for k in range(n):
        a, b = rng.choice(5, 2, replace=False)
        winner = ("model_a", "model_b", "tie", "tie (bothbad)")[rng.integers(0, 4)]
        vote = Vote(f"m{a}", f"m{b}", winner, f"b{k}", 1.7e9 + k, f"10.0.0.{k % 7}", f"q{k}", "English", 1, k % 50 != 3)
        talks = tuple(
            (
                {"role": "user", "content": f"q{k}"},
                {"role": "assistant", "content": "**word** " * int(rng.integers(1, 9))},
            )
            for _ in range(2)
        )
        made.append(Candidate(vote, f"x:{k}", None, talks))
    return made


@pytest.mark.parametrize("options", [RateOptions(), RateOptions(style=True), RateOptions(method="elo")])
def test_a_published_board_is_made_again(tmp_path, options):
    board = publish(clean(votes()), tmp_path / "board", options)
    found = verify(tmp_path / "board")
    assert found.faults == ()
    assert found.n_votes == 400
    assert found.board == board
    assert board == rate(read_battles([tmp_path / "board"]), options)
    published = (tmp_path / "board" / LOG).read_text(encoding="utf-8")
    assert "10.0.0." not in published  # voters are numbers
    assert "word" not in published
    assert published.count('"state":"left out"') == 8
    with pytest.raises(OptionError, match="has a published board already"):
        publish(clean(votes()), tmp_path / "board", options)


def test_texts_travel_where_they_may(tmp_path):
    publish(clean(votes(60)), tmp_path / "board", RateOptions(), texts=True)
    again = clean(candidates([tmp_path / "board"]))
    assert [each.candidate.conversations for each in again.judged] == [each.conversations for each in votes(60)]


def changed(lines: list[dict]) -> list[dict]:
    lines[16]["winner"] = "model_b" if lines[16]["winner"] != "model_b" else "model_a"
    return lines


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed, r"votes\.jsonl:17: vote b16 is not what was published"),
        (lambda lines: [*lines[:9], *lines[10:]], r"votes\.jsonl:10: vote b10 is not what was published"),
        (lambda lines: lines[:-2], r"votes\.jsonl: has 398 votes, and 400 were published"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], r"votes\.jsonl:1: vote b1 is not what was published"),
        (lambda lines: [{**lines[0], "state": "left out", "reason": "x"}, *lines[1:]], r"votes\.jsonl:1: vote b0"),
    ],
)
def test_a_change_is_named(tmp_path, capsys, change, said):
    publish(clean(votes()), tmp_path / "board", RateOptions())
    path = tmp_path / "board" / LOG
    lines = change([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(FormatError, match=said):
        run_verb("arena verify", [str(tmp_path / "board"), "--json"])
    assert json.loads(capsys.readouterr().out)["equal"] is False


def test_a_changed_board_is_named(tmp_path):
    publish(clean(votes()), tmp_path / "board", RateOptions())
    path = tmp_path / "board" / BOARD
    made = json.loads(path.read_text(encoding="utf-8"))
    made["board"]["models"][2]["rating"] += 0.5
    path.write_text(json.dumps(made), encoding="utf-8")
    (fault,) = verify(tmp_path / "board").faults
    assert made["board"]["models"][2]["name"] in fault
    path.write_text("{", encoding="utf-8")
    with pytest.raises(FormatError, match="is no published board"):
        verify(tmp_path / "board")


def test_the_verbs(tmp_path, capsys):
    log = tmp_path / "battles.jsonl"
    rows = []
    for each in votes(80):
        vote = each.vote
        row = {"question_id": vote.id, "model_a": vote.model_a, "model_b": vote.model_b, "winner": vote.winner}
        row |= {"conversation_a": list(each.conversations[0]), "conversation_b": list(each.conversations[1])}
        rows.append(row)
    log.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    run_verb("arena clean", [str(log), "--out", str(tmp_path / "clean.jsonl"), "--json"])
    assert json.loads(capsys.readouterr().out)["counts"] == 80
    where = [
        "--to",
        str(tmp_path / "b"),
        "--preferences",
        str(tmp_path / "p.jsonl"),
        "--columns",
        str(tmp_path / "c.battles"),
    ]
    run_verb("arena export", [str(tmp_path / "clean.jsonl"), *where, "--licence", "CC-BY-4.0", "--json"])
    told = json.loads(capsys.readouterr().out)
    won = sum(row["winner"] in ("model_a", "model_b") for row in rows)
    assert told["preferences"] == {"preferences": won, "left out: a tie": 80 - won}
    first = json.loads((tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert set(first) == {"id", "chosen_model", "rejected_model", "prompt", "chosen", "rejected", "licence"}
    run_verb("arena verify", [str(tmp_path / "b")])
    assert "equal, 80 votes" in capsys.readouterr().out
    run_verb("arena rate", [str(tmp_path / "c.battles"), "--json"])
    assert json.loads(capsys.readouterr().out)["models"] == told["board"]["models"]
    with pytest.raises(OptionError, match="is there already"):
        run_verb("arena export", [str(log), "--to", str(tmp_path / "b")])
