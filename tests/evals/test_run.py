"""A run: what is asked, what is kept, and what a kill leaves."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from camelid.errors import NumericsError, OptionError, VerifyError
from camelid.evals import evaluate
from camelid.evals.plan import make_plan
from camelid.evals.sources import open_source
from camelid.evals.task import Answered, Generate, Item, Metric, Scorer, Splits, Task, Verdict
from camelid.evals.tasks import find_task
from camelid.tokens.templates.message import Message
from tests.evals.asking import FlatModel, RuleModel, write_mmlu


@pytest.fixture
def data(tmp_path):
    return write_mmlu(tmp_path / "mmlu.tar.gz")


def test_figures_follow_from_the_items(data):
    result = evaluate(RuleModel(), "mmlu", data=data)
    assert result.n == 12
    assert result.shots == 5
    right = [item["scores"]["acc"] for item in result.items]
    assert result.metrics["acc"].value == sum(right) / 12
    for subject in ("anatomy", "formal_logic", "virology"):
        own = [item["scores"]["acc"] for item in result.items if item["group"] == subject]
        assert result.groups[subject]["acc"].value == sum(own) / 4
    assert set(result.categories) == {"stem", "humanities", "other"}
    shown = result.as_json()
    assert {"task", "model", "n", "shots", "metrics", "conditions", "seconds"} <= set(shown)
    assert set(shown["metrics"]["acc"]) >= {"value", "stderr"}


def test_macro_is_the_mean_of_groups(tmp_path):
    data = write_mmlu(tmp_path / "m.tar.gz", n_items=3)
    result = evaluate(RuleModel(), "mmlu", data=data, limit=7)  # 3, 3 and 1 of the subjects
    means = [each["acc"].value for each in result.groups.values()]
    assert result.metrics["acc_macro"].value == pytest.approx(sum(means) / 3)
    assert result.metrics["acc"].value == sum(item["scores"]["acc"] for item in result.items) / 7


def test_shots_come_from_their_split_and_subject_only(data):
    plan = make_plan(find_task("mmlu"), open_source(data, "test"))
    for item, shots in zip(plan.items, plan.shots, strict=True):
        assert [shot.id for shot in shots] == [f"{item.group}/{n}" for n in range(5)]
        assert all(" dev, " in shot.fields["question"] for shot in shots)


@pytest.mark.parametrize("how", ["equal", "nearly"])
def test_an_item_in_its_own_prompt_is_an_error(tmp_path, how):
    question = "Numbers from one on: " + " ".join(f"the {n}th is {n}" for n in range(30)) + " and so on, "
    other = question + ("as a rule" if how == "equal" else "as a rules")
    for split, text in (("dev", question + "as a rule"), ("test", other.upper())):
        folder = tmp_path / split
        folder.mkdir()
        (folder / f"anatomy_{split}.csv").write_text(f'"{text}?",liver,lungs,brain and also spine,skin,A\n')
    with pytest.raises(VerifyError, match="1 items stand in their own prompts: anatomy/0"):
        evaluate(RuleModel(), "mmlu", data=tmp_path, shots=1)
    assert evaluate(RuleModel(), "mmlu", data=tmp_path, shots=0).n == 1


def test_too_many_shots_and_a_split_that_lacks(data, tmp_path):
    with pytest.raises(OptionError, match="has 5 shots, not 6"):
        evaluate(RuleModel(), "mmlu", data=data, shots=6)
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "anatomy_test.csv").write_text("why?,a,b,c,d,A\n")
    with pytest.raises(OptionError, match="no split 'dev'"):
        evaluate(RuleModel(), "mmlu", data=tmp_path)


def test_equal_scores_are_an_error(data):
    with pytest.raises(NumericsError, match="exactly chance"):
        evaluate(FlatModel(), "mmlu", data=data)


def test_a_prompt_that_is_too_long_is_told_and_cut_only_when_asked(data):
    whole = RuleModel()
    evaluate(whole, "mmlu", data=data, limit=1)
    (request,) = whole.asked
    short = len(request.context) - 1
    with pytest.raises(OptionError, match=r"1 of 1 prompts are longer .* by up to 1 tokens"):
        evaluate(RuleModel(short), "mmlu", data=data, limit=1)
    cut = RuleModel(short)
    result = evaluate(cut, "mmlu", data=data, limit=1, truncate=True)
    assert result.notes == {"1 shots dropped": 1}
    assert result.items[0]["shots"] == ["anatomy/1", "anatomy/2", "anatomy/3", "anatomy/4"]
    assert cut.asked[0].context.endswith(request.context[-150:])
    result = evaluate(RuleModel(10), "mmlu", data=data, limit=1, truncate=True)
    assert result.notes == {"prompt too long": 1}
    assert result.metrics["acc"].n_unparsable == 1


def files_of(folder):
    (own,) = folder.iterdir()
    return {path.name: path.read_bytes() for path in own.iterdir() if path.name in ("items.jsonl", "result.json")}


@pytest.mark.parametrize("stop_after", [0, 1, 5, 11])
def test_a_run_that_was_ended_goes_on_and_asks_nothing_twice(data, tmp_path, stop_after):
    evaluate(RuleModel(), "mmlu", data=data, out=tmp_path / "whole")
    first, second = RuleModel(stop_after=stop_after), RuleModel()
    with pytest.raises(KeyboardInterrupt):
        evaluate(first, "mmlu", data=data, out=tmp_path / "parts")
    evaluate(second, "mmlu", data=data, out=tmp_path / "parts")
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "whole")
    assert len(first.asked) + len(second.asked) == 12
    third = RuleModel()
    again = evaluate(third, "mmlu", data=data, out=tmp_path / "parts")
    assert third.asked == []
    assert again.as_record() == evaluate(RuleModel(), "mmlu", data=data).as_record()


def test_a_torn_line_is_asked_again(data, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        evaluate(RuleModel(stop_after=6), "mmlu", data=data, out=tmp_path / "a")
    (log,) = (tmp_path / "a").glob("*/.log.jsonl")
    log.write_bytes(log.read_bytes()[:-9])
    model = RuleModel()
    evaluate(model, "mmlu", data=data, out=tmp_path / "a")
    assert len(model.asked) == 6
    evaluate(RuleModel(), "mmlu", data=data, out=tmp_path / "b")
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_other_conditions_do_not_go_on(data, tmp_path):
    evaluate(RuleModel(), "mmlu", data=data, out=tmp_path)

    class Other(RuleModel):
        def describe(self):
            return {"rule": 2}

    with pytest.raises(OptionError, match=r"other conditions \(model\)"):
        evaluate(Other(), "mmlu", data=data, out=tmp_path)
    model = Other()
    evaluate(model, "mmlu", data=data, out=tmp_path, again=True)
    assert len(model.asked) == 12


class Talk(Task):
    """Two turns, of which the second holds the first answer, and a judge."""

    name = "talk"
    splits = Splits("test", None)
    metrics = (Metric("rating", "rating", unparsable="out", percent=False),)
    needs_judge = True
    scoring_threads = 3

    def read(self, source, split):
        return [Item(str(n), None, {"question": f"question {n}"}) for n in range(6)]

    def request(self, item, shots):
        return Generate((Message("user", item.fields["question"]),), max_tokens=5, temperature=1.0, n=2)

    def follow(self, item, answers):
        if len(answers) == 2:
            return None
        turns = (
            Message("user", item.fields["question"]),
            Message("assistant", answers[0].text),
            Message("user", "And?"),
        )
        return Generate(turns)

    def judge(self, item, answers):
        return [Generate(f"{way}: {answers[1].text}") for way in ("forth", "back")]

    def score(self, item, answered: Answered, scorer: Scorer):
        assert len(answered.turns) == 2
        numbers = [float(each.text) for each in answered.judged]
        return Verdict(
            {"rating": None if item.id == "3" else sum(numbers)}, notes=("strange",) if item.id == "3" else ()
        )


@pytest.mark.parametrize("stop_after", [0, 3, 8, 11])
def test_turns_and_a_judge_go_on_too(data, tmp_path, stop_after):
    whole = evaluate(RuleModel(), Talk(), data=data, judge=RuleModel(), out=tmp_path / "whole")
    assert whole.metrics["rating"].n == 5
    assert whole.notes == {"strange": 1}
    with pytest.raises(KeyboardInterrupt):
        evaluate(RuleModel(stop_after=stop_after), Talk(), data=data, judge=RuleModel(), out=tmp_path / "parts")
    judge = RuleModel()
    evaluate(RuleModel(), Talk(), data=data, judge=judge, out=tmp_path / "parts")
    assert len(judge.asked) == 12
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "whole")
    with pytest.raises(OptionError, match="--judge"):
        evaluate(RuleModel(), Talk(), data=data)


def test_empty_answers_are_an_error(data):
    with pytest.raises(VerifyError, match="all 12 answers are empty"):
        evaluate(RuleModel(answer=" "), "mmlu:chat", data=data)


def test_a_letter_that_is_written(data):
    result = evaluate(RuleModel(answer=" C"), "mmlu:chat", data=data)
    assert result.metrics["acc"].value == pytest.approx(0.25)
    assert {item["filtered"]["letter"] for item in result.items} == {"C"}
    nonsense = evaluate(RuleModel(answer="A cat? BCD"), "mmlu:chat", data=data, limit=4)
    assert nonsense.items[0]["filtered"] == {"letter": "A"}
    unread = evaluate(RuleModel(answer="perhaps"), "mmlu:chat", data=data, limit=4)
    assert unread.metrics["acc"].n_unparsable == 4


def test_progress_is_told(data):
    told = []
    evaluate(RuleModel(), "mmlu", data=data, progress=told.append)
    assert told[-1].done == told[-1].total == 12
    assert told[-1].seconds_left == 0
    assert set(told[-1].figures) == {"acc", "acc_macro"}


SCRIPT = """
import sys, time
from camelid.evals import evaluate
from tests.evals.asking import RuleModel

class Slow(RuleModel):
    def reply(self, request, word):
        time.sleep(0.01)
        return super().reply(request, word)

evaluate(Slow(), "mmlu", data=sys.argv[1], out=sys.argv[2])
"""


def test_kill_at_any_moment(data, tmp_path, request):
    evaluate(RuleModel(), "mmlu", data=data, out=tmp_path / "whole")
    for wait in (0.02, 0.07):
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(data), str(tmp_path / "parts")], cwd=request.config.rootpath
        )
        while not list((tmp_path / "parts").glob("*/.log.jsonl")) and process.poll() is None:
            time.sleep(0.005)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
    evaluate(RuleModel(), "mmlu", data=data, out=tmp_path / "parts")
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "whole")


def test_records_say_how_a_number_came_to_be(data, tmp_path):
    evaluate(RuleModel(), "mmlu", data=data, out=tmp_path)
    (folder,) = tmp_path.glob("mmlu--rule")
    record = json.loads((folder / "result.json").read_bytes())
    conditions = record["conditions"]
    assert conditions["shots"] == 5
    assert conditions["shots_from"] == "dev"
    assert conditions["chat"] is False
    assert len(conditions["data_sha256"]) == 64
    assert conditions["code"]["camelid"]
    assert sorted(path.name for path in folder.iterdir() if path.name != ".lock") == [
        "items.jsonl",
        "result.json",
        "run.json",
        "timing.json",
    ]


def test_items_do_not_depend_on_the_packing(data, tmp_path):
    import tarfile

    with tarfile.open(data) as archive:
        archive.extractall(tmp_path / "folder", filter="data")
    task = find_task("mmlu")
    packed = make_plan(task, open_source(data, "test"))
    assert make_plan(task, open_source(tmp_path / "folder", "test")).data_sha256 == packed.data_sha256
    assert replace(packed, task=task).items == packed.items
