"""PPO as a stage: rewards that rise, the first step worked out anew, going on, several processes, mistakes."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from camelid.chat.load import load
from camelid.engine.reward import RewardModel
from camelid.errors import NumericsError, OptionError
from camelid.tokens.templates.message import Message
from camelid.train.events import Step
from camelid.train.losses.ppo import advantages_of, token_rewards, whiten
from camelid.train.report.inspect import documents_of
from camelid.train.run import train
from camelid.train.runs import open_run
from camelid.train.stages.ppo import PpoOptions
from tests.train.chatty import make_reward_model
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
    written,
)

RECIPE = """
name = "reason"
seed = 5
base = {base}
stages = ["ppo"]

[ppo]
steps = 8
prompts_per_generation = 8
max_tokens = 8
context = 96
lr = 5e-3
eps = 1e-6
schedule = "constant"
precision = "fp32"
beta = 0.02
minibatches = 2
updates = 2
reward = "code:vowels"
save_every = 4
keep_last = 9
micro_rows = 2

[[ppo.data.sources]]
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
    return make_run(folder, RECIPE, 17, **model)


def test_the_presets_are_the_papers():
    options = PpoOptions(steps=200 * 8)
    assert (options.lr, options.schedule, options.beta, options.weight_decay, options.clip) == (
        *(1e-6, "constant", 0.01),
        *(0.1, 1.0),
    )
    assert (options.prompts_per_generation, options.prompts_per_generation // options.minibatches) == (512, 64)
    assert (options.epsilon, options.updates, options.span) == (0.2, 1, 8)
    assert (options.betas, options.eps, options.safety_threshold) == ((0.9, 0.95), 1e-5, 0.15)
    assert (options.gamma, options.lam, options.value_epsilon, options.value_weight) == (1.0, 0.95, 0.2, 0.1)
    assert PpoOptions(preset="llama2-70b", steps=8).beta == 0.005


def test_what_is_written_judged_and_learned(tmp_path):
    run = make(tmp_path / "a")
    told = steps(events(run))
    assert len(told) == 8
    first = told[0].metrics
    rows = written(run, 1)
    assert len(rows) == 8
    assert first["reward"] == pytest.approx(np.mean([row["reward"] for row in rows]))
    assert first["kl"] == 0  # to the last bit: the policy is the reference still
    assert first["clip_share"] == first["update_kl"] == 0
    assert first["explained_variance"] == pytest.approx(0, abs=1e-9)  # a head of zeros foresees nothing
    assert told[4].metrics["kl"] != 0
    assert first["answer_tokens"] == pytest.approx(np.mean([row["tokens"] for row in rows]))
    assert {path.name for path in (run / "ppo" / "rollouts").iterdir()} == {"step1.0.jsonl", "step5.0.jsonl"}
    assert load(str(run / "ppo")).chat("7 old hill?", max_tokens=8, seed=1).text is not None
    assert "score" not in numbers(run / "ppo" / "latest")
    documents = documents_of(open_run(run / "ppo"), 2)
    assert [row[0]["reward"] for _, row in documents.rows] == [row["reward"] for row in rows[4:]]


def test_a_first_step_worked_out_anew(tmp_path):
    """Values are 0 and the policy is the reference: advantages are those of the whitened score alone."""
    run = make(tmp_path / "a")
    first = steps(events(run, stop_after=1))[0].metrics
    rows = written(run, 1)
    lengths = torch.tensor([row["tokens"] for row in rows])
    nothing = torch.zeros(int(lengths.sum()), dtype=torch.float64)
    scores = whiten(torch.tensor([row["reward"] for row in rows], dtype=torch.float64))
    advantages, returns = advantages_of(token_rewards(nothing, nothing, scores, lengths, 0.02), nothing, lengths)
    half = int(lengths[:4].sum())
    assert first["policy_loss"] == pytest.approx(-whiten(advantages[:half]).mean().item(), abs=1e-6)
    # values may go no farther than ±.2 from 0, where they are: the loss is that of 0
    assert first["value_loss"] == pytest.approx(0.5 * returns[:half].square().mean().item(), rel=1e-5)


def test_safety_has_the_say_where_it_is_at_stake(tmp_path):
    run = make(tmp_path / "a")
    base = tmp_path / "a" / "base"
    helpful, safe = (make_reward_model(tmp_path / name, base, seed) for seed, name in enumerate(("helpful", "safe")))
    rows = [{"prompt": f"{number} hill?", "safety": number % 2 == 0} for number in range(17)]
    (tmp_path / "a" / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    judged = (f"ppo.reward={helpful}", f"ppo.safety_reward={safe}", "ppo.safety_threshold=0.4")
    events(run, *judged, stop_after=1)
    models = [RewardModel.open(path) for path in (helpful, safe)]
    seen = set()
    for row in written(run, 1):
        asked = [Message(**message) for message in row["messages"]]
        helpfulness, safety = (model.score_answers(asked, [row["answer"]])[0] for model in models)
        wins = bool(row["about"].get("safety")) or 1 / (1 + math.exp(-safety)) < 0.4
        assert row["reward"] == (safety if wins else helpfulness)
        seen.add(wins)
    assert seen == {True, False}


@pytest.mark.slow
def test_the_reward_rises(tmp_path):
    run = make(tmp_path / "a")
    told = steps(events(run, "ppo.steps=240", "ppo.prompts_per_generation=32", "ppo.updates=1", "ppo.lr=2e-3"))
    rewards = [step.metrics["reward"] for step in told]
    assert np.mean(rewards[-20:]) > 1.5 * np.mean(rewards[:20])


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("ppo.precision=bf16", "ppo.unfinished_score=-1.0")])
def test_killed_in_the_middle_it_goes_on_with_the_same_bits(tmp_path, more):
    whole, cut = make(tmp_path / "a"), make(tmp_path / "b")
    expected = steps(events(whole, *more))

    def work():
        for event in train(stage_of(cut, *more)):
            if isinstance(event, Step) and event.step == 6:
                kill_me()

    assert dies(work)
    rest = steps(events(cut, *more))
    assert [step.loss for step in rest] == [step.loss for step in expected[-len(rest) :]]
    assert rest[0].step == 5  # generations are whole
    assert same(numbers(whole / "ppo" / "latest"), numbers(cut / "ppo" / "latest"))


def test_unfinished_answers_have_their_own_score(tmp_path):
    run = make(tmp_path / "a")
    plain = steps(events(run, stop_after=1))[0].metrics
    other = steps(events(run, "ppo.unfinished_score=-9.0", stop_after=1, fresh=True))[0].metrics
    assert plain["reward"] == other["reward"]  # what the judge says stays on record
    assert plain["unfinished"] == 1.0
    assert other["value_loss"] == 0  # all are worth the same, so there is nothing to foresee
    assert plain["value_loss"] > 0


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ("ppo.reward=code:lost", NumericsError, "lost gives nan"),
        ("ppo.reward=code:nothing", OptionError, "no check by code 'nothing'"),
        ("ppo.minibatches=3", OptionError, "3 do not divide prompts_per_generation, 8"),
        ("ppo.max_tokens=96", OptionError, "leave no room for a prompt"),
        ("ppo.safety_reward=x", OptionError, "only a reward model is gated"),
    ],
)
def test_mistakes_are_one_line(tmp_path, change, error, words):
    with pytest.raises(error, match=words):
        events(make(tmp_path / "a"), change)


def test_a_policy_that_went_too_far_ends_and_the_last_checkpoint_stays(tmp_path):
    run = make(tmp_path / "a")
    changes = ("ppo.kl_limit=1e-9", "ppo.updates=1", "ppo.save_every=2")
    with pytest.raises(NumericsError, match=r"nats a token from its reference, beyond kl_limit"):
        events(run, *changes)
    assert open_run(run / "ppo").checkpoints()[-1].step == 2


def test_a_policy_that_says_one_thing_has_collapsed(tmp_path, monkeypatch):
    run = make(tmp_path / "a")
    with pytest.raises(NumericsError, match="the policy has collapsed"):
        events(run, "ppo.temperature=1e-6", "ppo.max_tokens=1")


@pytest.mark.slow
def test_two_processes_are_nearly_one(tmp_path):
    alone, apart = make(tmp_path / "a"), make(tmp_path / "b")
    expected = steps(events(alone, "ppo.steps=4", "ppo.lr=1e-4", "ppo.eps=1e-3"))
    given = [str(apart.parent / "reason.toml"), str(apart), "ppo.steps=4", "ppo.lr=1e-4", "ppo.eps=1e-3"]
    command = [sys.executable, "-c", TOGETHER, "ppo", "1", *given]
    for process in begin_together(2, command, cwd=ROOT, stdout=subprocess.DEVNULL):
        said = process.communicate(timeout=300)[1]
        assert process.returncode == 0, said
    rows = [json.loads(line) for line in (apart / "ppo" / "metrics.jsonl").read_text().splitlines()]
    theirs = [row for row in rows if "event" not in row]
    for name in ("reward", "loss", "value_loss", "kl", "entropy", "grad_norm", "explained_variance"):
        wanted = [step.numbers()[name] for step in expected]
        assert [row[name] for row in theirs] == pytest.approx(wanted, rel=1e-4, abs=1e-6), name
