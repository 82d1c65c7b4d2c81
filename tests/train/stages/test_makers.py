"""Stages that write what they learn from: rejection sampling, Ghost Attention, safety context distillation."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from camelid.data.chats.rows import ConversationRows
from camelid.engine.reward import RewardModel
from camelid.errors import CamelidError, NumericsError, OptionError
from camelid.recipe import read_recipe
from camelid.run_layout import newest_checkpoint
from camelid.tokens.templates.message import Message
from camelid.train.events import Step
from camelid.train.makers import making
from camelid.train.makers.best_of import expected_max
from camelid.train.parallel import Parallel
from camelid.train.report.metrics import read_metrics
from camelid.train.run import train
from camelid.train.run_stage import RunStage, Show
from camelid.train.stages.gatt import recalled
from tests.train.chatty import WORDS, make_chat_model
from tests.train.killed import dies, kill_me
from tests.train.ranks import ROOT, begin_together

RECIPE = """
name = "life"
seed = 5
stages = [{stages}]

[{kind}]
steps = 2
batch_tokens = 1024
context = 256
lr = 1e-3
warmup_steps = 0
precision = "fp32"
compile = false
max_tokens = 48
{more}

[[{kind}.prompts.sources]]
name = "asked"
kind = "jsonl"
path = "asked.jsonl"
"""


@pytest.fixture(autouse=True)
def one_thread(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def length(answer: str, about: dict) -> float:
    """A reward by code: short answers are good, and the data may say how much."""
    return about.get("factor", 1.0) * -abs(len(answer) - 10)


class Life:
    """A run in a folder, and what is said while it is made."""

    def __init__(self, folder: Path, kind: str, records: list[dict], more: str = "", stages: str = "") -> None:
        self.folder, self.notes = folder, list[str]()
        folder.mkdir(exist_ok=True)
        make_chat_model(folder / "base")
        (folder / "asked.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        self.recipe = folder / "life.toml"
        text = RECIPE.format(kind=kind, more=more, stages=stages or f'"{kind}"')
        self.recipe.write_text(f"base = {json.dumps(str(folder / 'base'))}\n{text}")

    def stage(self, name: str, *changes: str, parallel: Parallel | None = None) -> RunStage:
        show = Show(note=self.notes.append)
        recipe = read_recipe(self.recipe, changes)
        return RunStage(recipe, name, self.folder / "run", parallel or Parallel(), {"length": length}, show)

    def train(self, name: str, *changes: str) -> list:
        return list(train(self.stage(name, *changes)))

    def rows(self, name: str) -> list[dict]:
        return [json.loads(line) for line in (self.folder / "run" / name / "answers.jsonl").read_text().splitlines()]

    def record(self, name: str) -> dict:
        return read_metrics(self.folder / "run" / name).about("answers")


def prompts(count: int, **more: object) -> list[dict]:
    return [{"prompt": f"{number} {WORDS[number % len(WORDS)]}?", **more} for number in range(count)]


REWARD = 'reward = "code:length"\nanswers = 4\ntemperatures = [0.7, 1.0]\nsearch_prompts = 5\n'


def rejecting(folder: Path, **more: str) -> Life:
    return Life(folder, "rejection", [*prompts(12), {"prompt": "0 llama?"}], REWARD, **more)


def test_the_best_of_several_answers_is_learned(tmp_path):
    life = rejecting(tmp_path / "one")
    told = life.train("rejection")
    assert [event.step for event in told if isinstance(event, Step)] == [1, 2]
    rows, record = life.rows("rejection"), life.record("rejection")
    assert record["prompts"] == 12  # one stood there twice
    assert record["answers"] == 48
    assert len(rows) == 12 - record["without_answer"]
    assert record["temperature"] in (0.7, 1.0)
    assert {each["temperature"]: each["max"] for each in record["searched"]}[record["temperature"]] == max(
        each["max"] for each in record["searched"]
    )
    lines = written(life, "rejection")
    at_best = {key: line for key, line in lines.items() if key.endswith(f"-{record['temperature']:g}")}
    assert len(at_best) == 12
    assert len(lines) == 12 + 5
    rewards = [[answer["reward"] for answer in line["answers"]] for line in at_best.values()]
    means = [sum(expected_max(own, k) for own in rewards) / 12 for k in range(1, 5)]
    assert [point["max"] for point in record["curve"]] == pytest.approx(means)
    for row in rows:
        assert row["reward"] == length(row["messages"][-1]["content"], {})
    learned = ConversationRows(life.folder / "run" / "rejection" / "data", 256, 4, 5)
    assert sum(source.documents for source in learned.manifest.sources) == len(
        {json.dumps(r["messages"]) for r in rows}
    )


def written(life: Life, stage: str) -> dict[str, dict]:
    files = (life.folder / "run" / stage / "answers").glob("*/*.jsonl")
    lines = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    assert len({line["key"] for line in lines}) == len(lines)  # nothing was written twice
    return {line["key"]: line for line in lines}


@pytest.mark.slow
def test_a_kill_at_any_line_changes_no_bit(tmp_path, monkeypatch):
    whole = rejecting(tmp_path / "whole")
    whole.train("rejection")
    killed = rejecting(tmp_path / "killed")
    monkeypatch.setattr(making, "JUDGED", 8)  # two prompts
    kept = making.Lines.add
    deaths = 0
    for after in (1, 3, 7, 2, 4):

        def work(after=after):
            left = iter(range(after))
            monkeypatch.setattr(
                making.Lines, "add", lambda *line: kept(*line) if next(left, None) is not None else kill_me()
            )
            killed.train("rejection")

        deaths += dies(work)
    assert deaths >= 4
    killed.train("rejection")
    assert written(killed, "rejection") == written(whole, "rejection")
    one, other = (life.folder / "run" / "rejection" for life in (whole, killed))
    assert (one / "answers.jsonl").read_bytes() == (other / "answers.jsonl").read_bytes()
    assert read_metrics(one).columns["loss"] == read_metrics(other).columns["loss"]


@pytest.mark.slow
def test_a_second_iteration_keeps_the_best_of_both(tmp_path):
    life = rejecting(tmp_path / "two", stages='"rejection", "rejection-2"')
    life.train("rejection")
    first = {row["messages"][0]["content"]: row for row in life.rows("rejection")}
    life.train("rejection-2", "rejection-2.lr=5e-4")
    both = {row["messages"][0]["content"]: row for row in life.rows("rejection-2")}
    assert both.keys() >= first.keys()
    assert all(both[prompt]["reward"] >= row["reward"] for prompt, row in first.items())
    earlier = [row for row in both.values() if row["stage"] == "rejection"]
    assert len(earlier) == life.record("rejection-2")["earlier"] > 0
    assert len(earlier) < len(both)


@pytest.mark.slow
def test_only_the_last_iteration_if_asked(tmp_path):
    life = rejecting(tmp_path / "last", stages='"rejection", "rejection-2"')
    life.train("rejection")
    life.train("rejection-2", "rejection-2.keep=last", "rejection-2.temperatures=[1.0]")
    assert {row["stage"] for row in life.rows("rejection-2")} == {"rejection-2"}
    assert life.record("rejection-2")["searched"] == []


@pytest.mark.slow
def test_answers_are_made_anew_only_where_nothing_was_trained_on_them(tmp_path):
    life = rejecting(tmp_path / "anew")
    stage = life.stage("rejection", "rejection.answers=2")
    kind = load(stage)
    kind.prepare(stage, stage.options(kind.Options))
    before = life.rows("rejection")
    life.train("rejection")
    assert life.rows("rejection") != before
    assert any("made from other options; it is written anew" in note for note in life.notes)
    with pytest.raises(OptionError, match=r"made from other options, and rejection was trained on it; begin anew with"):
        life.train("rejection", "rejection.answers=3")


def load(stage: RunStage):
    from camelid.train.stages import load_stage

    return load_stage(stage.name)


def test_mistakes_are_one_line(tmp_path):
    life = rejecting(tmp_path / "wrong")
    for change, said in (
        ("rejection.reward=code:lenght", r"no check by code 'lenght'; did you mean 'length'\?"),
        ("rejection.reward=none/such", "none/such"),
        ("rejection.safety_reward=base", "only a reward model is gated by another"),
        ("rejection.temperatures=[0.0]", "at 0 all answers"),
        ("rejection.url=here", "is no URL of a server"),
        ("rejection.sampler=none/such", "none/such"),
    ):
        with pytest.raises(CamelidError, match=said):
            life.train("rejection", change)
    stage = life.stage("rejection")
    stage.rewards["length"] = lambda answer, about: float("nan")  # type: ignore[index]
    with pytest.raises(NumericsError, match="length gives nan to an answer"):
        list(train(stage))
    assert not (life.folder / "run" / "rejection" / "answers.jsonl").exists()


def dialogues(count: int) -> list[dict]:
    def turn(role: str, number: int) -> dict:
        return {"role": role, "content": f"{role} {number} {WORDS[number % 9]}"}

    talks = []
    for number in range(count):
        turns = [turn(role, number + at) for at in range(1 + number % 3) for role in ("user", "assistant")]
        talks.append({"messages": turns})
    return talks


@pytest.mark.parametrize("history", ["data", "own"])
def test_an_instruction_of_the_first_turn_is_learned_by_the_last_answer(tmp_path, history):
    life = Life(tmp_path / "ghost", "gatt", dialogues(24), f'history = "{history}"\ntemperature = 1.0\n')
    life.train("gatt")
    rows, record = life.rows("gatt"), life.record("gatt")
    assert record["dialogues"] == 16  # the others have one question
    assert 0 < len(rows) == record["kept"] < 16
    for row in rows:
        first, *later = row["messages"]
        assert first["role"] == "user"
        marks = ("enjoy", "Hobby:", "speak in", "Language:", "act as", "Figure:")
        assert any(mark in first["content"] for mark in marks)
        assert not any(mark in turn["content"] for turn in later if turn["role"] == "user" for mark in marks)
        answers = [turn for turn in row["messages"] if turn["role"] == "assistant"]
        assert [turn.get("weight") for turn in answers] == [0] * (len(answers) - 1) + [None]
        given = [turn["content"].startswith("assistant ") for turn in answers[:-1]]
        assert all(given) if history == "data" else not any(given)
    data = ConversationRows(life.folder / "run" / "gatt" / "data", 256, 4, 5)
    for number, row in enumerate(rows[:3]):
        ids, mask = data.sources[0].document(number)
        learned = data.tokenizer.decode([int(id) for id, one in zip(ids, mask, strict=True) if one & 1])
        assert learned == row["messages"][-1]["content"].encode("utf-8", "replace").decode()


def test_recall_is_what_is_named():
    attributes = {"figure": "Albert Einstein", "hobby": "chess", "language": "French"}
    assert recalled(attributes, "I am Einstein.") == 0.5
    assert recalled(attributes, "Einstein plays CHESS.") == 1.0
    assert recalled({"language": "French"}, "Oui.") is None


def test_safe_answers_are_kept_where_they_are_preferred(tmp_path):
    marked = [{**record, "safety": True, "risk": "illicit"} for record in prompts(10)]
    others = [{"prompt": f"harmless {number}?", "safety": False} for number in range(4)]
    life = Life(tmp_path / "safe", "distill", [*marked, *others], 'reward = "code:length"\ntemperature = 1.0\n')
    life.train("distill", "distill.context=512", "distill.batch_tokens=1024")
    rows, record = life.rows("distill"), life.record("distill")
    assert (record["prompts"], record["adversarial"]) == (14, 10)
    assert record["kept"] + record["not_preferred"] + record["unfinished"] == 10
    assert 0 < len(rows) == record["kept"]
    for row in rows:
        assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"]  # no pre-prompt is left
        assert row["reward"] > row["reward_without"]
    assert len(written(life, "distill")) == 20


def test_no_adversarial_prompt_is_a_mistake(tmp_path):
    life = Life(tmp_path / "none", "distill", prompts(4), 'reward = "code:length"\n')
    with pytest.raises(OptionError, match="none of 4 is marked as adversarial"):
        life.train("distill")
    with pytest.raises(OptionError, match="a brace that is no"):
        life.train("distill", "distill.templates=['Be {good}.']")


PREFERENCES = """
[reward]
steps = 2
pairs = 4
context = 128
lr = 1e-3
warmup_steps = 0
precision = "fp32"
compile = false

[[reward.data.sources]]
name = "judged"
kind = "jsonl"
path = "judged.jsonl"

[reward-helpfulness]

[reward-safety]
lr = 2e-3
"""


@pytest.mark.slow
def test_two_reward_models_of_the_same_life_choose(tmp_path):
    more = 'reward = "reward-helpfulness"\nsafety_reward = "reward-safety"\nanswers = 3\ntemperatures = [1.0]\n'
    stages = '"reward-helpfulness", "reward-safety", "rejection"'
    life = Life(tmp_path / "two", "rejection", [*prompts(5), *prompts(8, safety=True)[5:]], more, stages)
    pairs = [{"prompt": "Say hill.", "chosen": f"{number} hill please", "rejected": "hill"} for number in range(12)]
    (life.folder / "judged.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    life.recipe.write_text(life.recipe.read_text() + PREFERENCES)
    for stage in ("reward-helpfulness", "reward-safety", "rejection"):
        life.train(stage)
    answers = [answer for line in written(life, "rejection").values() for answer in line["answers"]]
    assert len(answers) == 24
    assert all({"helpfulness", "safety"} <= answer.keys() for answer in answers)
    marked = {row["messages"][0]["content"] for row in life.rows("rejection") if row["about"].get("safety")}
    assert marked <= {f"{number} {WORDS[number]}?" for number in range(5, 8)}
    one = (answers[0]["text"], answers[0]["helpfulness"])
    model = RewardModel.open(newest_checkpoint(life.folder / "run" / "reward-helpfulness"))
    questions = [Message("user", record["prompt"]) for record in prompts(8)]
    assert one[1] in [model.score_answers([question], [one[0]])[0] for question in questions]  # to the bit


@pytest.mark.slow
def test_two_processes_write_the_answers_of_one(tmp_path):
    alone, both = rejecting(tmp_path / "alone"), rejecting(tmp_path / "both")
    alone.train("rejection")
    code = (
        "import sys; from pathlib import Path; from camelid.recipe import read_recipe\n"
        "from camelid.train.run import train\n"
        "from camelid.train.run_stage import RunStage; from camelid.train.parallel import Parallel\n"
        "from tests.train.stages.test_makers import length\n"
        "with Parallel() as parallel:\n"
        "    recipe = read_recipe(sys.argv[1])\n"
        "    stage = RunStage(recipe, 'rejection', Path(sys.argv[2]), parallel, {'length': length})\n"
        "    list(train(stage))\n"
    )
    command = [sys.executable, "-c", code, str(both.recipe), str(both.folder / "run")]
    for process in begin_together(2, command, cwd=ROOT):
        said = process.communicate(timeout=300)[1]
        assert process.returncode == 0, said
    assert len(list((both.folder / "run" / "rejection" / "answers").glob("*/*.jsonl"))) == 2
    assert written(both, "rejection") == written(alone, "rejection")
    assert both.rows("rejection") == alone.rows("rejection")
