"""Reward models: what they learn, that others open them, and that a reward is the same however it is computed."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch

from camelid.engine.options import EngineOptions
from camelid.engine.reward import RewardModel, up_to_answer
from camelid.errors import OptionError, UnsupportedError
from camelid.recipe import read_recipe
from camelid.tokens.templates.message import Message
from camelid.train.events import Step
from camelid.train.life import live
from camelid.train.packing import pack
from camelid.train.parallel import Parallel
from camelid.train.run import train
from camelid.train.run_stage import RunStage
from camelid.train.schedule import learning_rate
from camelid.train.stages.reward import RewardOptions
from camelid.weights.open import open_weights
from tests.train.chatty import make_chat_model
from tests.train.killed import dies, kill_me

RECIPE = """
name = "judged"
seed = 5
stages = ["reward"]

[reward]
epochs = 3
pairs = 8
context = 96
lr = 3e-3
warmup_steps = 1
margins = "large"
precision = "fp32"
compile = false
save_every = 3
keep_last = 9
validation_every = 4

[reward.data]
validation = 0.2

[[reward.data.sources]]
name = "judgements"
kind = "jsonl"
path = "judgements.jsonl"
"""
GRADES = ("significantly better", "better", "slightly better", "negligibly better")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(folder, n=60):
    """A run whose people prefer answers that say please."""
    folder.mkdir(exist_ok=True)
    make_chat_model(folder / "base")
    draw = random.Random(1)
    with (folder / "judgements.jsonl").open("w") as file:
        for number in range(n):
            words = [draw.choice(["grass", "hill", "stone", "river"]) for _ in range(draw.randint(1, 4))]
            row = {"prompt": f"Say {words[0]}.", "chosen": " ".join([*words, "please"]), "rejected": " ".join(words)}
            row |= {"grade": GRADES[number % 4]} if number % 5 else {}
            row |= {"chosen_safe": True, "rejected_safe": number % 3 > 0} if number % 2 else {}
            file.write(json.dumps(row) + "\n")
    (folder / "judged.toml").write_text(f"base = {json.dumps(str(folder / 'base'))}\n{RECIPE}")
    return folder / "judged"


def stage_of(run, *changes, name="reward"):
    return RunStage(read_recipe(run.parent / "judged.toml", changes), name, run, Parallel())


def trained(run, *changes, **more):
    stage = stage_of(run, *changes)
    return [event for _, event in live([stage], **more) if isinstance(event, Step)]


def numbers(folder):
    return {name: tensor.array() for name, tensor in open_weights(folder).tensors.items()}


def test_the_presets_are_the_papers():
    options = RewardOptions().resolved(steps_per_epoch=200)
    assert (options.steps, options.pairs, options.context, options.warmup_steps) == (200, 512, 4096, 6)
    assert (options.weight_decay, options.betas, options.eps, options.clip) == (0.1, (0.9, 0.95), 1e-5, 1.0)
    rates = [learning_rate(options, step) for step in (3, 6, 103, 200)]
    assert rates == pytest.approx([0.5e-5, 1e-5, 0.55e-5, 0.1e-5])
    assert RewardOptions().resolved(steps_per_epoch=20).warmup_steps == 5
    assert RewardOptions(preset="llama2-70b").lr == 5e-6


def test_it_learns_what_people_prefer(tmp_path):
    run = make(tmp_path / "a")
    told = trained(run)
    first, last = told[0].metrics, told[-1].metrics
    assert first["pairs"] == 8
    assert last["loss"] < first["loss"]
    assert last["accuracy"] > 0.9
    assert last["validation_accuracy"] > 0.9
    assert {name for name in last if name.startswith("accuracy_")} <= {
        f"accuracy_{g.replace(' ', '_')}" for g in GRADES
    }
    model = RewardModel.open(run / "reward" / "latest")
    better, worse = model.score_answers([Message("user", "Say hill.")], ["hill please", "hill"])
    assert better > worse


def test_transformers_opens_it_and_gives_the_same_reward(tmp_path):
    transformers = pytest.importorskip("transformers")
    run = make(tmp_path / "a")
    trained(run, stop_after=2)
    folder = run / "reward" / "latest"
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    assert type(theirs).__name__ == "LlamaForSequenceClassification"
    ours = RewardModel.open(folder, "numpy")
    texts = [ours.ids([Message("user", "Say stone."), Message("assistant", "stone " * n)]) for n in (1, 3, 7)]
    with torch.no_grad():
        expected = [float(theirs(torch.tensor([ids])).logits) for ids in texts]
    assert ours.scores(texts) == pytest.approx(expected, abs=1e-5)
    again = tmp_path / "again"
    theirs.save_pretrained(again)
    assert set(numbers(again)) == set(numbers(folder))
    assert all(np.array_equal(numbers(again)[name], value) for name, value in numbers(folder).items())


def test_alone_and_in_a_crowd_the_same_bits(tmp_path):
    run = make(tmp_path / "a")
    trained(run, stop_after=1)
    model = RewardModel.open(run / "reward" / "latest", "cpu", EngineOptions(max_batch_tokens=64))
    draw = np.random.default_rng(0)
    texts = [draw.integers(5, 200, draw.integers(1, 60)).tolist() for _ in range(12)]
    texts += [[*texts[0], 7], [*texts[0], 9]]  # which begin alike
    assert model.scores(texts) == [model.scores([ids])[0] for ids in texts]
    assert model.scores([]) == []


def test_margins_of_ones_own(tmp_path):
    small, own, other = (make(tmp_path / name) for name in "abc")
    told = [
        trained(run, f"reward.margins={margins}", stop_after=2)
        for run, margins in (
            (small, '"small"'),
            (own, "[1, 0.6666666666666666, 0.3333333333333333, 0]"),
            (other, "[4, 3, 2, 1]"),
        )
    ]
    assert [step.loss for step in told[0]] == [step.loss for step in told[1]]
    assert told[2][0].loss > told[0][0].loss
    again = trained(own, "reward.margins=[1, 0.6666666666666666, 0.3333333333333333, 0]", stop_after=1)
    assert again[0].step == 3
    for wrong in ("[1, 2]", "[1, 1, 1, -1]", '"wide"'):
        with pytest.raises(OptionError, match="margins"):
            trained(own, f"reward.margins={wrong}")


def losses_of(objective, learner, pieces):
    parts = sum(objective.loss(learner, 1, *(torch.from_numpy(part) for part in piece)).parts for piece in pieces)
    return parts.numpy()


def test_packed_or_alone_the_loss_is_the_same(tmp_path):
    from camelid.train.mixed_precision import Learner
    from camelid.train.stages.reward import Reward

    run = make(tmp_path / "a")
    stage = stage_of(run, "reward.safety_weight=0.5")
    options = stage.options(RewardOptions)
    Reward.prepare(stage, options)
    objective = Reward.open(stage, options)
    model = stage.parallel.shard(objective.model(), "fp32")
    objective.initialise(model)
    learner = Learner(model, objective.options, stage.parallel, False)
    pairs = objective.pairs.step(0)
    with learner.looking():
        together = losses_of(objective, learner, objective._pieces(pairs))
        alone = sum(losses_of(objective, learner, objective._pieces([pair])) for pair in pairs)
        filled = losses_of(objective, learner, [*objective._pieces(pairs), objective._piece([], pack([], 64))])
    assert together == pytest.approx(alone, rel=1e-6, abs=1e-6)
    assert filled == pytest.approx(together, rel=1e-12)


def test_it_goes_on_with_the_same_bits_after_a_kill(tmp_path):
    whole, cut = make(tmp_path / "a"), make(tmp_path / "b")
    steps = trained(whole)

    def work():
        for _, event in live([stage_of(cut)]):
            if isinstance(event, Step) and event.step == 5:
                kill_me()

    assert dies(work)
    rest = trained(cut)
    assert rest[0].step == 4
    assert [step.loss for step in rest] == [step.loss for step in steps[3:]]
    one, two = numbers(whole / "reward" / "latest"), numbers(cut / "reward" / "latest")
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_what_cannot_be(tmp_path):
    run = make(tmp_path / "a")
    trained(run, stop_after=1)
    from camelid.chat.load import load

    with pytest.raises(UnsupportedError, match="rates answers and writes none; use it with: camelid reward"):
        load(run / "reward" / "latest")
    with pytest.raises(OptionError, match="has no scalar head"):
        RewardModel.open(tmp_path / "a" / "base")
    with pytest.raises(OptionError, match="there is no answer"):
        up_to_answer([1, 2], [False, False])
    with pytest.raises(OptionError, match=r"reward\.margins"):
        list(train(stage_of(run, "reward.margins=small")))
