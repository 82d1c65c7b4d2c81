"""GRPO as a stage: rewards that are checked, what is written on record, going on, several processes, mistakes."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from camelid.chat.load import load
from camelid.errors import FormatError, MissingError, NumericsError, OptionError
from camelid.recipe import read_recipe
from camelid.run_layout import newest_checkpoint
from camelid.train.events import Saved, Step
from camelid.train.parallel import Parallel
from camelid.train.report.inspect import documents_of
from camelid.train.run import train
from camelid.train.run_stage import RunStage
from camelid.train.runs import open_run
from camelid.train.stages.grpo import GrpoOptions
from tests.train.killed import dies, kill_me
from tests.train.ranks import ROOT, begin_together
from tests.train.stages.asking import (
    TOGETHER,
    events,
    make_run,
    numbers,
    same,
    stage_of,
    steps,
    vowels,
    written,
)

RECIPE = """
name = "reason"
seed = 5
base = {base}
stages = ["grpo"]

[grpo]
steps = 8
prompts_per_generation = 4
answers = 4
max_tokens = 8
context = 96
lr = 1e-2
eps = 1e-6
schedule = "constant"
precision = "fp32"
beta = 0.02
minibatches = 2
updates = 2
reward = "code:vowels"
save_every = 3
keep_last = 9
micro_rows = 2

[[grpo.data.sources]]
name = "asked"
kind = "jsonl"
path = "asked.jsonl"
"""


@pytest.fixture(autouse=True)
def one_thread(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(folder, **model):
    return make_run(folder, RECIPE, 9, **model)


def test_what_is_written_judged_and_learned(tmp_path):
    run = make(tmp_path / "a")
    told = steps(events(run))
    assert len(told) == 8
    first = told[0].metrics
    assert first["loss"] == pytest.approx(0, abs=1e-6)  # advantages of a group sum to nothing, and no step was made
    assert first["kl"] == 0  # to the last bit
    assert first["clip_share"] == 0
    assert told[7].metrics["kl"] > 0
    rows = written(run, 1)
    assert len(rows) == 16
    assert first["reward"] == pytest.approx(np.mean([row["reward"] for row in rows]))
    assert first["answer_tokens"] == pytest.approx(np.mean([row["tokens"] for row in rows]))
    for row in rows:
        assert row["reward"] == row["scores"]["code:vowels"] == vowels(row["answer"], {})
        assert row["about"]["answer"].isdigit()
    groups = [rows[start : start + 4] for start in range(0, 16, 4)]
    assert len({json.dumps(row["messages"]) for row in rows}) == 4
    for group in groups:
        rewards = np.array([row["reward"] for row in group])
        wanted = (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-4)
        assert [row["advantage"] for row in group] == pytest.approx(wanted.tolist(), abs=1e-12)
    flat = sum(len({row["reward"] for row in group}) == 1 for group in groups)
    assert first["flat_groups"] == flat / 4
    assert first["answers"] + told[1].metrics["answers"] == 16 - 4 * flat
    assert {path.name for path in (run / "grpo" / "rollouts").iterdir()} == {"step1.0.jsonl", "step5.0.jsonl"}
    assert load(str(run / "grpo")).chat("7 old hill?", max_tokens=8, seed=1).text is not None


@pytest.mark.slow
def test_the_reward_rises(tmp_path):
    run = make(tmp_path / "a")
    told = steps(
        events(run, "grpo.steps=240", "grpo.minibatches=1", "grpo.updates=1", "grpo.answers=16", "grpo.lr=2e-3")
    )
    rewards = [step.metrics["reward"] for step in told]
    assert np.mean(rewards[-20:]) > 2 * np.mean(rewards[:20])


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [(), ("grpo.loss=dapo", "grpo.scale=batch", "grpo.epsilon_high=0.3", "grpo.precision=bf16")]
)
def test_killed_in_the_middle_it_goes_on_with_the_same_bits(tmp_path, more):
    whole, cut = make(tmp_path / "a"), make(tmp_path / "b")
    more = ("grpo.steps=12", "grpo.save_every=2", *more)
    all_of_it = events(whole, *more)
    told = steps(all_of_it)
    assert [event.step for event in all_of_it if isinstance(event, Saved)] == [4, 8, 12]  # where generations end

    def until():
        for event in train(stage_of(cut, *more)):
            if isinstance(event, Step) and event.step == 7:
                kill_me()

    assert dies(until)
    again = steps(events(cut, *more))
    assert again[0].step == 5
    assert [(step.loss, step.grad_norm) for step in again] == [(step.loss, step.grad_norm) for step in told[4:]]
    assert same(numbers(whole / "grpo" / "latest"), numbers(cut / "grpo" / "latest"))
    assert written(whole, 5) == written(cut, 5)


@pytest.mark.slow
@pytest.mark.parametrize("tensor_parallel", [1, 2])
def test_two_processes_learn_the_same(tmp_path, tensor_parallel):
    alone, two = make(tmp_path / "a"), make(tmp_path / "b")
    calm = ["grpo.steps=6", "grpo.lr=1e-4", "grpo.eps=1e-3", "grpo.loss=dapo", "grpo.scale=batch", "grpo.updates=1"]
    told = steps(events(alone, *calm))
    command = [
        sys.executable,
        "-c",
        TOGETHER,
        "grpo",
        str(tensor_parallel),
        str(two.parent / "reason.toml"),
        str(two),
        *calm,
    ]
    for process in begin_together(
        2, [*command, f"grpo.tensor_parallel={tensor_parallel}"], cwd=ROOT, stdout=subprocess.DEVNULL
    ):
        said = process.communicate(timeout=300)[1]
        assert process.returncode == 0, said
    rows = [json.loads(line) for line in (two / "grpo" / "metrics.jsonl").read_text().splitlines()]
    theirs = [row for row in rows if "event" not in row]
    for name in ("reward", "reward_deviation", "flat_groups", "answers", "loss", "kl", "entropy", "grad_norm"):
        wanted = [step.numbers()[name] for step in told]
        assert [row[name] for row in theirs] == pytest.approx(wanted, rel=1e-5, abs=1e-6), name
    ours, others = (numbers(newest_checkpoint(run / "grpo")) for run in (alone, two))
    assert max(np.abs(ours[name] - others[name]).max() for name in ours) < 1e-6


def test_a_step_can_be_inspected(tmp_path):
    run = make(tmp_path / "a")
    events(run, stop_after=4)
    opened = open_run(str(run / "grpo"))
    rows = [[row for row in written(run, 1) if row["group"] == number] for number in range(4)]
    for step, wanted in ((1, rows[:2]), (2, rows[2:]), (4, rows[2:])):
        shown = documents_of(opened, step).rows
        assert [number for number, _ in shown] == [0, 1]
        for (_, documents), group in zip(shown, wanted, strict=True):
            assert [document["reward"] for document in documents] == [row["reward"] for row in group]
            assert group[0]["answer"] in documents[0]["text"]
    with pytest.raises(MissingError, match="nothing was written for step 5 yet"):
        documents_of(opened, 5)


def test_an_adapter_learns_and_writes(tmp_path, monkeypatch):
    """What is learned from was written with the adapter: the engine's log-probabilities are the trainer's."""
    from camelid.train.answers import frozen
    from camelid.train.rollouts.rollouts import Rollouts

    seen, old, plain, measure = [], [], Rollouts.answers, frozen.logprobs_of

    def answers(self, *given, **more):
        seen.append(plain(self, *given, **more, logprobs=True))
        return seen[-1]

    def measured(objective, learner, examples):
        found = measure(objective, learner, examples)
        old.append(found)
        return found

    monkeypatch.setattr(Rollouts, "answers", answers)
    monkeypatch.setattr(frozen, "logprobs_of", measured)
    run = make(tmp_path / "a")
    steps(events(run, "grpo.lora.rank=4", "grpo.beta=0", "grpo.lr=3e-2"))
    assert (run / "grpo" / "latest" / "adapter_config.json").is_file()
    for written_then, said in zip(seen, old, strict=True):
        for group, own in zip(written_then, said, strict=True):
            for answer, values in zip(group, own, strict=True):
                assert list(answer.logprobs) == pytest.approx(values.tolist(), abs=2e-2)


def test_several_rewards_each_with_its_weight(tmp_path):
    run = make(tmp_path / "a")
    text = (run.parent / "reason.toml").read_text()
    own = '{ "code:vowels" = 2.0, "code:most-words:1" = -0.5 }'
    (run.parent / "reason.toml").write_text(text.replace('"code:vowels"', own))
    first = steps(events(run, stop_after=1))[0].metrics
    for row in written(run, 1):
        scores = row["scores"]
        assert row["reward"] == 2 * scores["code:vowels"] - 0.5 * scores["code:most-words:1"]
    assert first["reward"] == pytest.approx(2 * first["reward vowels"] - 0.5 * first["reward most-words:1"])


def test_mistakes_are_one_line(tmp_path):
    run = make(tmp_path / "a")
    for change, words in {
        "grpo.reward=code:vowel": r"grpo\.reward: no check by code 'vowel'; did you mean 'vowels'",
        "grpo.reward=code:regex:(": r"reward: code:regex needs the pattern behind it, got '\('",
        "grpo.reward=code:json:x": r"code:json needs nothing behind it",
        "grpo.reward=code:most-words": r"code:most-words needs a number behind it, got ''",
        "grpo.max_tokens=96": r"max_tokens: 96 leave no room for a prompt in a context of 96",
        "grpo.minibatches=3": r"minibatches: 3 do not divide prompts_per_generation, 4",
        "grpo.temperature=0": r"temperature",
        "grpo.answers=1": r"answers",
    }.items():
        with pytest.raises(OptionError, match=words):
            events(run, change, stop_after=1)
    text = (run.parent / "reason.toml").read_text()
    (run.parent / "reason.toml").write_text(text.replace('reward = "code:vowels"\n', ""))
    with pytest.raises(OptionError, match=r"grpo\.reward: must be said"):
        events(run, stop_after=1)


def test_a_lost_reward_and_a_collapsed_policy_end_it_and_the_last_checkpoint_stays(tmp_path):
    run = make(tmp_path / "a")
    events(run, stop_after=1)
    before = numbers(run / "grpo" / "latest")
    for change, error, words in (
        ("grpo.temperature=0.000001", NumericsError, r"step 5: the policy has collapsed: all 4 answers to each of 4"),
        ("grpo.reward=code:lost", NumericsError, r"lost gives nan"),
        ("grpo.kl_limit=1e-9", NumericsError, r"nats a token from its reference, beyond kl_limit, 1e-09"),
    ):
        with pytest.raises(OptionError, match=change.split("=")[0].split(".")[1]):
            events(run, change)
        with pytest.raises(error, match=words.replace("step 5", "step 1")):
            events(make(tmp_path / change.split("=")[0]), change)
    assert same(before, numbers(run / "grpo" / "latest"))


def test_the_presets_are_the_papers():
    first = GrpoOptions(steps=1)
    assert (first.lr, first.beta, first.answers, first.max_tokens, first.epsilon) == (1e-6, 0.04, 64, 1024, 0.2)
    assert first.prompts_per_generation * first.answers == 1024
    assert (first.loss, first.scale, first.span, first.schedule) == ("grpo", "group", 1, "constant")
    dapo = GrpoOptions(steps=1000, preset="dapo")
    assert (dapo.lr, dapo.epsilon, dapo.epsilon_high, dapo.beta, dapo.loss) == (1e-6, 0.2, 0.28, 0.0, "dapo")
    assert (dapo.prompts_per_generation, dapo.answers, dapo.span) == (512, 16, 16)
    assert dapo.warmup_steps == 20 * dapo.span
    dr_grpo = GrpoOptions(steps=1, preset="dr_grpo")
    assert (dr_grpo.loss, dr_grpo.scale, dr_grpo.beta, dr_grpo.answers) == ("dr_grpo", "none", 0.0, 8)


def test_prompts_without_a_right_answer(tmp_path):
    from camelid.cli.rewards import code_rewards

    run = make(tmp_path / "a")
    path = run.parent / "asked.jsonl"
    path.write_text("".join(line.replace('"answer"', '"reply"') + "\n" for line in path.read_text().splitlines()))
    stage = RunStage(
        read_recipe(run.parent / "reason.toml", ["grpo.reward=code:gsm8k"]), "grpo", run, Parallel(), code_rewards()
    )
    with pytest.raises(
        FormatError, match=r"prompt asked\.jsonl#\d+: no right answer; it needs a field answer, and has reply"
    ):
        list(train(stage))
