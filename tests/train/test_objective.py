"""Another stage than those there are: pairs, of which a few parameters learn, in a run that knows nothing of them."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn.functional import logsigmoid

from camelid.data.batches import Batches, TrainingBatch
from camelid.errors import OptionError
from camelid.recipe import Recipe
from camelid.train.events import Saved, Step
from camelid.train.losses.token_loss import Loss
from camelid.train.objective import Objective, Size
from camelid.train.options import RunOptions
from camelid.train.parallel import Parallel
from camelid.train.run import train
from camelid.train.run_stage import RunStage
from camelid.weights.open import open_weights
from tests.data.made import make_data, some_documents
from tests.tiny import tiny_config

STEPS = 6


class PairOptions(RunOptions):
    margin: float = 0.0


class Pairs(Objective[TrainingBatch]):
    """The first of two rows should have the larger score: the mean of its hidden states' first number."""

    Options = PairOptions
    unit = "pairs"
    validated = ("accuracy",)

    def __init__(self, options, data, seed):
        self.options, self.seed = options, seed
        self.batches = Batches(data, options.context, options.rows, seed)
        self.config = tiny_config(n_layers=1, vocab_size=self.batches.tokenizer.vocab_size)
        self.tokenizer, self.fingerprint, self.inputs = self.batches.tokenizer, self.batches.fingerprint(), ()

    @classmethod
    def open(cls, stage, options):
        return cls(options, stage.run / "data", stage.recipe.seed)

    def batch(self, step, learner):
        assert next(learner.model.parameters()).dtype == torch.bfloat16
        return self.batches.step(0)  # the same pairs again, which can be learned

    def size(self, share):
        return Size(len(share.ids) // 2, share.ids.size, 1.0)

    def micro_batches(self, share):
        each = 2 * max(1, self.options.rows_at_once(1) // 2)
        for start in range(0, len(share.ids), each):
            yield share.ids[start : start + each], share.positions[start : start + each]

    def loss(self, learner, divisor, *piece):
        ids, positions = piece
        scores = learner.hidden(ids, positions).float().reshape(*ids.shape, -1)[:, :, 0].mean(1)
        gap = scores[0::2] - scores[1::2] - self.options.margin
        total = -logsigmoid(gap).sum() / divisor
        right = (gap > 0).sum() / divisor
        return Loss(total, torch.stack([total.detach(), right]).double())

    def metrics(self, means):
        return dict(zip(("loss", "accuracy"), means, strict=True))

    def validation(self):
        return [self.batches.step(99)]

    def whole(self, step):
        return step % 2 == 0

    def model(self):
        model = super().model()
        model.embed_tokens.requires_grad_(False)
        return model


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setattr("camelid.train.run.load_stage", lambda name: Pairs)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def session(run, stop_after=None, **changes):
    """Its events."""
    given = {"steps": STEPS, "batch_tokens": 256, "context": 32, "warmup_steps": 1, "lr": 1e-2, "compile": False}
    options = {**given, "validation_every": 3, "save_every": 3, "keep_last": 9, **changes}
    recipe = Recipe(run.parent / "pairs.toml", "pairs", 3, {"pairs": options})
    return list(train(RunStage(recipe, "pairs", run, Parallel()), stop_after=stop_after))


def steps(events):
    return [event for event in events if isinstance(event, Step)]


def weights(run):
    return {name: tensor.array() for name, tensor in open_weights(run / "pairs" / "latest").tensors.items()}


def test_a_run_trains_any_objective(tmp_path):
    whole, parted, cut = (make_data(tmp_path / name / "run", some_documents(60)).parent for name in "abc")
    events = session(whole)
    told = steps(events)
    assert [step.metrics["pairs"] for step in told] == [4] * STEPS
    assert told[0].loss == pytest.approx(0.69, abs=0.1)
    assert told[-1].loss < told[0].loss
    assert all(0 <= step.metrics["accuracy"] <= 1 for step in told)
    assert ["validation_accuracy" in step.metrics for step in told] == [False, False, True] * 2
    assert [event.step for event in events if isinstance(event, Saved)] == [
        6
    ]  # not after 3, which is half of something
    assert [event.step for event in session(parted, stop_after=3) if isinstance(event, Saved)] == [4]
    rest = steps(session(parted))
    assert [(step.step, step.loss, step.grad_norm) for step in rest] == [
        (step.step, step.loss, step.grad_norm) for step in told[4:]
    ]
    last = json.loads((whole / "pairs" / "metrics.jsonl").read_text().splitlines()[-3])
    assert (last["step"], last["pairs"], last["accuracy"]) == (6, 4, told[-1].metrics["accuracy"])
    small = steps(session(cut, micro_rows=2))
    assert [step.loss for step in small[:2]] == pytest.approx([step.loss for step in told[:2]], rel=1e-3)


def test_what_needs_no_gradient_stays(tmp_path):
    run = make_data(tmp_path / "run", some_documents(60)).parent
    session(run, stop_after=2)
    before = weights(run)
    session(run)
    after = weights(run)
    assert {name for name in before if (before[name] == after[name]).all()} == {"embed_tokens", "lm_head"}
    record = json.loads((run / "pairs" / "latest" / "checkpoint.json").read_text())
    assert record["options"]["margin"] == 0.0


def test_what_a_stage_adds_to_the_options_must_stay(tmp_path):
    run = make_data(tmp_path / "run", some_documents(60)).parent
    session(run, stop_after=2)
    with pytest.raises(OptionError, match=r"pairs\.margin was 0\.0, is 0\.5"):
        session(run, margin=0.5)
    assert steps(session(run, stop_after=2, save_every=1, recompute=True))
