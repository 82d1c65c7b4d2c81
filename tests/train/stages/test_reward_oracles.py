"""A reward model beside TRL and transformers on the same pairs: loss, gradients, padding; and two processes as one."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from camelid.data.chats.examples import GRADES
from camelid.engine.reward import RewardModel
from camelid.train.losses.reward import MARGINS
from camelid.train.mixed_precision import Learner
from camelid.train.parallel import Parallel
from camelid.train.stages.reward import Reward, RewardOptions, _rated
from camelid.weights.open import open_weights
from tests.train.ranks import ROOT, begin_together
from tests.train.stages.test_reward import make, numbers, one_thread, stage_of, trained  # noqa: F401

PADDING = 258  # which no text here has; the end of turn is 256

TOGETHER = """
import sys
from pathlib import Path
from camelid.recipe import read_recipe
from camelid.train.parallel import Parallel
from camelid.train.run import train
from camelid.train.run_stage import RunStage
with Parallel(1) as parallel:
    list(train(RunStage(read_recipe(sys.argv[1], sys.argv[3:]), "reward", Path(sys.argv[2]), parallel)))
"""


@pytest.fixture
def judged(tmp_path):
    """A run whose stage has made a step, and its checkpoint."""
    run = make(tmp_path / "a")
    trained(run, "reward.save_every=1", stop_after=1)
    return run, run / "reward" / "latest"


def ours(run, folder, *changes):
    """The objective, and a learner with a checkpoint's weights."""
    stage = stage_of(run, *changes)
    objective = Reward.open(stage, stage.options(RewardOptions))
    model = stage.parallel.shard(objective.model(), "fp32")
    model.load(open_weights(folder).tensors, torch.float32)
    return objective, Learner(model, objective.options, Parallel(), False)


def theirs(folder, **more):
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, **more)


def trainer_of(model, rows, folder):
    """TRL's RewardTrainer on ids that are there already."""
    trl = pytest.importorskip("trl", minversion="1.16")
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl.trainer.reward_trainer import DataCollatorForPreference

    class Given(trl.RewardTrainer):
        def _prepare_dataset(self, dataset, *given, **more):
            return dataset

    config = trl.RewardConfig(
        output_dir=str(folder / "trl"), use_cpu=True, bf16=False, report_to=[], gradient_checkpointing=False
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(PADDING)
    return Given(
        model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        data_collator=DataCollatorForPreference(pad_token_id=tokenizer.pad_token_id),
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("margins", MARGINS)
def test_loss_and_gradients_are_trls(judged, tmp_path, margins):
    """RewardTrainer.compute_loss itself, on the padded batch of its own collator."""
    run, folder = judged
    objective, learner = ours(run, folder, f"reward.margins={margins}")
    pairs = objective.pairs.step(0)
    table = dict(zip(GRADES, MARGINS[margins], strict=True))
    rows = []
    for pair in pairs:
        row = {"chosen_ids": _rated(pair.chosen).ids.tolist(), "rejected_ids": _rated(pair.rejected).ids.tolist()}
        rows.append(row | {"margin": table.get(pair.grade, 0.0)})
    trainer = trainer_of(theirs(folder, pad_token_id=PADDING), rows, folder)
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
    loss.backward()

    total = 0.0
    for piece in objective._pieces(pairs):
        part = objective.loss(learner, len(pairs), *(torch.from_numpy(each) for each in piece)).total
        part.backward()
        total += float(part)
    assert total == pytest.approx(float(loss), rel=1e-5)
    expected = gradients_of(trainer.model, tmp_path / "gradients")
    found = {name.removesuffix(".weight"): each.grad.numpy() for name, each in learner.model.named_parameters()}
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        assert np.abs(gradient - expected[name]).max() < 1e-5 * max(1.0, np.abs(expected[name]).max()), name
    assert np.abs(found["score"]).max() > 1e-3  # there is something to compare


def gradients_of(model, folder):
    """The gradients of a transformers model, written as a model's weights are, so that they have camelid's names."""
    for parameter in model.parameters():
        parameter.data = parameter.grad
    model.save_pretrained(folder)
    return numbers(folder)


@pytest.mark.parametrize("side", ["right", "left"])
def test_padded_there_and_alone_here_the_reward_is_the_same(judged, side):
    """With padding that no text has, transformers reads the same token as camelid, which needs none."""
    _, folder = judged
    model, draw = RewardModel.open(folder, "numpy"), np.random.default_rng(3)
    texts = [draw.integers(5, 200, length).tolist() for length in (3, 17, 40, 9)]
    assert model.scores(texts) == pytest.approx(padded(folder, texts, PADDING, side), abs=1e-5)


def test_padded_with_the_end_of_turn_transformers_reads_the_token_before_it(judged):
    """Why a reward's place follows from the text here, and why a checkpoint names no padding."""
    _, folder = judged
    model = RewardModel.open(folder, "numpy")
    texts = [[5, 6, 7, 256], [9, 8, 256], [11, 256]]
    found = padded(folder, texts, 256, "right")
    assert found == pytest.approx(model.scores([text[:-1] for text in texts]), abs=1e-5)
    assert found != pytest.approx(model.scores(texts), abs=1e-2)


def padded(folder, texts, padding, side):
    """What transformers says of a padded batch."""
    longest = max(map(len, texts))
    ids, mask = torch.full((len(texts), longest), padding), torch.zeros(len(texts), longest, dtype=torch.long)
    for row, text in enumerate(texts):
        where = slice(longest - len(text), None) if side == "left" else slice(len(text))
        ids[row, where], mask[row, where] = torch.tensor(text), 1
    with torch.no_grad():
        return theirs(folder, pad_token_id=padding)(ids, attention_mask=mask).logits[:, 0].tolist()


def test_a_padded_batch_is_refused_there_where_nobody_says_what_pads(judged):
    """A checkpoint names no padding: with pad = end of turn transformers could read another token, so it refuses."""
    _, folder = judged
    model = theirs(folder)
    with pytest.raises(ValueError, match="no padding token"), torch.no_grad():
        model(torch.tensor([[5, 6, 7], [5, 6, 258]]))


@pytest.mark.slow
def test_two_processes_learn_the_same(tmp_path):
    alone, two = make(tmp_path / "a"), make(tmp_path / "b")
    calm = ["reward.lr=1e-3", "reward.eps=1e-4", "reward.safety_weight=0.5"]  # AdamW makes much of little gradients
    told = trained(alone, *calm)
    command = [sys.executable, "-c", TOGETHER, str(two.parent / "judged.toml"), str(two), *calm]
    for process in begin_together(2, command, cwd=ROOT, stdout=subprocess.DEVNULL):
        said = process.communicate(timeout=300)[1]
        assert process.returncode == 0, said
    lines = [json.loads(line) for line in (two / "reward" / "metrics.jsonl").read_text().splitlines()]
    found = [line for line in lines if "event" not in line]
    for name in ("loss", "accuracy", "margin", "reward", "safety_loss", "grad_norm"):
        wanted = [step.numbers()[name] for step in told]
        assert [line[name] for line in found] == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    one, other = numbers(alone / "reward" / "latest"), numbers(two / "reward" / "latest")
    assert max(np.abs(one[name] - other[name]).max() for name in one) < 1e-6
