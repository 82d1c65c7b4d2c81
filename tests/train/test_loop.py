"""The loop is right: losses and gradients against transformers, micro-batches, documents, seeds, mistakes."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
import torch
import transformers
from torch._dynamo.utils import counters

from camelid.data.batches import IGNORED, Batches, TrainingBatch
from camelid.errors import NumericsError
from camelid.model.config import ModelConfig
from camelid.model.llama_torch import LlamaTorch
from camelid.train.init import initialise
from camelid.train.loop import State, optimise
from camelid.train.mixed_precision import Learner
from camelid.train.optim import make_optimizer
from camelid.train.parallel import Parallel
from camelid.train.schedule import learning_rate
from camelid.train.stages.pretrain import Pretrain, PretrainOptions
from tests.data.made import make_data, some_documents

CONFIG = ModelConfig(
    dim=32,
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    head_dim=8,
    ffn_dim=48,
    vocab_size=320,
    context=64,
    ties_embeddings=True,
)
OPTIONS = PretrainOptions(
    steps=6, batch_tokens=256, context=32, warmup_steps=2, lr=1e-2, precision="fp32", micro_rows=8, compile=False
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("loop"), some_documents(60), validation=some_documents(9, seed=5))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def begun(data, options=OPTIONS, config=CONFIG, seed=3, fuse=False):
    """A new model's state, its learner, and what is learned."""
    parallel = Parallel()
    with torch.device("meta"):
        model = LlamaTorch(config, options.context)
    model = parallel.shard(model, options.precision)
    initialise(model, seed)
    objective = Pretrain(options, config, Batches(data, options.context, options.rows, seed), parallel)
    return State(model, make_optimizer(model, options)), Learner(model, options, parallel, fuse), objective


def trained(data, options=OPTIONS, config=CONFIG, seed=3):
    """Steps of a whole run, and the model afterwards."""
    state, learner, objective = begun(data, options, config, seed)
    return list(optimise(state, learner, objective, Parallel())), state.model


def gradients(data, options=OPTIONS, config=CONFIG, pieces=None, seed=3, order=0):
    """Loss and gradients by name of the first batch of an order, rows taken `pieces` at a time."""
    state, learner, objective = begun(data, options.with_(micro_rows=pieces or options.rows), config, seed)
    batch, sums = Batches(data, 32, 8, order).step(0), 0.0
    for piece in objective.micro_batches(batch):
        loss = objective.loss(learner, batch.n_trained, *map(torch.from_numpy, piece))
        loss.total.backward()
        sums += float(loss.parts[0])
    return sums, {name: parameter.grad for name, parameter in state.model.named_parameters()}


def close(one, other, tolerance):
    for name in one:
        assert (one[name] - other[name]).norm() <= tolerance * other[name].norm(), name


def test_micro_batches_are_the_batch(data):
    whole, grads = gradients(data)
    for pieces in (1, 3):
        loss, parts = gradients(data, pieces=pieces)
        assert loss == pytest.approx(whole, rel=1e-6)
        close(parts, grads, 1e-5)


@pytest.mark.parametrize("ties", [True, False])
def test_transformers_says_the_same_of_each_document(data, ties):
    """Loss and gradients of packed rows: those of LlamaForCausalLM on every document alone, divided by all tokens."""
    config = ModelConfig(**{**vars(CONFIG), "ties_embeddings": ties})
    batch = Batches(data, 32, 8, 0).step(0)
    loss, grads = gradients(data, config=config)
    state, _, _ = begun(data, config=config)
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=320,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=ties,
            rms_norm_eps=1e-5,
            attn_implementation="eager",
        )
    )
    names = {
        theirs_name: theirs_name.removeprefix("model.").replace("self_attn.", "").replace("mlp.", "")
        for theirs_name, _ in theirs.named_parameters()
    }
    ours = dict(state.model.named_parameters())
    theirs.load_state_dict({name: ours[names[name]].detach() for name in names}, strict=False)
    total, count = 0.0, 0
    for row in range(len(batch.ids)):
        for document in np.unique(batch.documents[row]):
            own = batch.documents[row] == document
            ids, targets = (torch.from_numpy(part[row][own]) for part in (batch.ids, batch.targets))
            scores = theirs(input_ids=ids[None]).logits[0]
            lost = torch.nn.functional.cross_entropy(scores, targets, ignore_index=IGNORED, reduction="sum")
            (lost / batch.n_trained).backward()
            total, count = total + lost.item(), count + int((targets != IGNORED).sum())
    assert count == batch.n_trained
    assert loss == pytest.approx(total / count, rel=1e-6)
    close(grads, {names[name]: parameter.grad for name, parameter in theirs.named_parameters()}, 1e-5)


def test_recomputing_changes_nothing(data):
    loss, grads = gradients(data)
    again, others = gradients(data, OPTIONS.with_(recompute=True))
    assert again == loss
    assert all(torch.equal(grads[name], others[name]) for name in grads)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("recompute", [False, True])
def test_compiled_code_computes_the_same(data, recompute):
    """One compilation serves all layers, all batches, and validation."""
    options = OPTIONS.with_(validation_every=3, recompute=recompute)
    torch.compiler.reset()
    state, learner, objective = begun(data, options, fuse=True)
    counters.clear()
    steps = list(optimise(state, learner, objective, Parallel()))
    plain, _ = trained(data, options)
    for fused, step in zip(steps, plain, strict=True):
        assert fused.loss == pytest.approx(step.loss, rel=1e-5)
        assert fused.grad_norm == pytest.approx(step.grad_norm, rel=1e-4)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


@pytest.mark.slow
@pytest.mark.parametrize("ties", [True, False])
def test_bf16_learns_as_float32_does(data, ties):
    config = ModelConfig(**{**vars(CONFIG), "ties_embeddings": ties})
    loss, grads = gradients(data, config=config)
    rounded, others = gradients(data, OPTIONS.with_(precision="bf16"), config, pieces=2)
    assert rounded == pytest.approx(loss, rel=2e-3)
    assert all(grad.dtype == torch.float32 for grad in others.values())
    close(others, grads, 0.03)
    (fine, _), (coarse, _) = trained(data), trained(data, OPTIONS.with_(precision="bf16"))
    assert coarse[-1].loss == pytest.approx(fine[-1].loss, rel=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_seed_one_run(data, precision):
    options = OPTIONS.with_(precision=precision, micro_rows=3)
    (one, first), (two, second) = trained(data, options), trained(data, options)
    assert [(step.loss, step.grad_norm) for step in one] == [(step.loss, step.grad_norm) for step in two]
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    (other, _) = trained(data, options, seed=4)
    assert other[0].loss != one[0].loss


@pytest.mark.slow
def test_steps_tell_what_happened(data):
    options = OPTIONS.with_(steps=60, warmup_steps=5, validation_every=30, z_loss=1e-4)
    steps, _ = trained(data, options)
    assert [step.step for step in steps] == list(range(1, 61))
    assert [step.tokens for step in steps] == [256 * number for number in range(1, 61)]
    assert [step.lr for step in steps] == [learning_rate(options, number) for number in range(1, 61)]
    batches = Batches(data, 32, 8, 3)
    assert [step.metrics["trained_tokens"] for step in steps[:5]] == [
        batches.step(number).n_trained for number in range(5)
    ]
    assert steps[0].loss == pytest.approx(math.log(320), abs=0.2)
    assert steps[-1].loss < steps[0].loss - 2
    assert steps[0].metrics["z_loss"] == pytest.approx(1e-4 * math.log(320) ** 2, rel=0.1)
    assert [step.step for step in steps if "validation_loss" in step.metrics] == [30, 60]
    assert steps[59].metrics["validation_loss"] < steps[29].metrics["validation_loss"]


def test_adamw_is_the_paper(data):
    """The first change is lr · sign of the clipped gradient, nearly, and matrices decay."""
    options = OPTIONS.with_(steps=1, warmup_steps=0, schedule="constant", eps=1e-12, clip=1e-3)
    state, learner, objective = begun(data, options)
    before = {name: parameter.detach().clone() for name, parameter in state.model.named_parameters()}
    _, grads = gradients(data, order=3)
    step = next(optimise(state, learner, objective, Parallel()))
    assert step.grad_norm == pytest.approx(math.sqrt(sum(float(grad.norm()) ** 2 for grad in grads.values())), rel=1e-5)
    for name, parameter in state.model.named_parameters():
        decayed = before[name] * (1 - options.lr * (0.1 if parameter.dim() > 1 else 0.0))
        large = grads[name].abs() > 1e-4
        torch.testing.assert_close(
            parameter[large], (decayed - options.lr * grads[name].sign())[large], rtol=1e-4, atol=1e-5
        )


def test_numbers_that_are_lost_stop_the_run_before_the_weights_change(data):
    state, learner, objective = begun(data)
    with torch.no_grad():
        state.model.norm.weight[0] = math.inf
    before = [parameter.clone() for parameter in state.model.parameters()]
    with pytest.raises(NumericsError, match="step 1: the loss is nan"):
        next(optimise(state, learner, objective, Parallel()))
    assert state.step == 0
    assert all(torch.equal(a, b) for a, b in zip(before, state.model.parameters(), strict=True))


def test_nothing_to_learn_is_an_error(data, monkeypatch):
    state, learner, objective = begun(data)
    batch = objective.batches.step(0)
    nothing = TrainingBatch(
        batch.ids, np.full_like(batch.ids, IGNORED), batch.positions, batch.documents, batch.samples
    )
    monkeypatch.setattr(objective.batches, "step", lambda *_: nothing)
    with pytest.raises(NumericsError, match="step 1: no token of its rows is learned"):
        next(optimise(state, learner, objective, Parallel()))
