"""Adapters that learn beside a frozen base: gradients as PEFT's, the same bits after a kill, small checkpoints."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp

from camelid.errors import OptionError, UnsupportedError
from camelid.model.llama_torch import LlamaTorch
from camelid.recipe import read_recipe
from camelid.run_layout import newest_checkpoint
from camelid.train.adapters.adapter import adapt, adapted_matrices, begin_adapters, write_adapters
from camelid.train.adapters.linear import Drops, LoraLinear
from camelid.train.events import Saved, Step
from camelid.train.init import take_weights
from camelid.train.mixed_precision import Learner
from camelid.train.options import RunOptions
from camelid.train.parallel import Parallel
from camelid.train.rollouts.live_weights import live_weights
from camelid.train.run import train
from camelid.train.run_stage import RunStage
from camelid.weights.adapted import is_trained_on
from camelid.weights.convert import save_weights
from camelid.weights.lora import is_adapter, open_adapter
from camelid.weights.open import open_weights
from tests.tiny import tiny_config, tiny_tensors
from tests.train.ranks import together
from tests.train.test_life import make_run
from tests.weights.models import saved

LORA = "pretrain-2.lora.rank=3"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def adapted_model(base, precision="fp32", recompute=False, seed=5, **lora):
    """A learner on a model with adapters, its B no longer zero."""
    options = RunOptions(
        lora=lora, precision=precision, recompute=recompute, context=32, batch_tokens=64, steps=9, warmup_steps=1
    )
    parallel = Parallel()
    with torch.device("meta"):
        model = LlamaTorch(open_weights(base).config, 32)
    adapt(model, options, parallel)
    parallel.shard(model, precision)
    take_weights(model, open_weights(base))
    begin_adapters(model, base, seed)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in adapted_matrices(model).values():
            module.lora_B.normal_(0, 0.2, generator=random)
    return model, Learner(model, options, parallel, fuse=False)


def some_rows(seed=0, rows=2, context=32):
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 320, (rows, context + 1), generator=random)
    positions = torch.arange(context).repeat(rows, 1)
    return ids[:, :-1], positions, ids[:, 1:].clone()


def gradients(model, learner, seed=0):
    ids, positions, targets = some_rows(seed)
    targets[:, :10] = -100
    loss = learner.token_loss(learner.hidden(ids, positions), targets, 44)
    loss.total.backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    return float(loss.total.detach()), found


def test_only_the_adapters_learn(tmp_path):
    model, learner = adapted_model(saved(tmp_path, "hf"), rank=2, targets=["q_proj", "down_proj"])
    _, found = gradients(model, learner)
    assert set(found) == {
        f"layers.{layer}.{name}.lora_{part}" for layer in (0, 1) for name in ("q_proj", "down_proj") for part in "AB"
    }
    assert all(gradient.abs().max() > 0 for gradient in found.values())


def test_first_numbers_are_pefts_and_of_the_seed(tmp_path):
    base = saved(tmp_path, "hf")
    first, again, other = (adapted_model(base, rank=4, seed=seed)[0] for seed in (1, 1, 2))
    for name, module in adapted_matrices(first).items():
        a = module.lora_A.detach()
        assert torch.equal(a, adapted_matrices(again)[name].lora_A)
        assert not torch.equal(a, adapted_matrices(other)[name].lora_A)
        bound = a.shape[1] ** -0.5
        assert 0.9 * bound < a.abs().max() <= bound
        assert a.std() == pytest.approx(bound / 3**0.5, rel=0.2)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_computing_again_changes_no_bit(tmp_path, precision, dropout):
    base = saved(tmp_path, "hf")
    results = []
    for recompute in (False, True):
        model, learner = adapted_model(base, precision, recompute, rank=2, dropout=dropout)
        torch.manual_seed(3)
        ids, positions, targets = some_rows()
        first = learner.token_loss(learner.hidden(ids, positions), targets, 64)
        second = learner.token_loss(learner.hidden(ids.flip(0), positions), targets.flip(0), 64)  # before a backward
        first.total.backward()
        second.total.backward()
        results.append(
            {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
        )
    for name, gradient in results[0].items():
        assert torch.equal(gradient, results[1][name]), name


def test_what_is_dropped_is_of_the_seed_and_not_when_only_looking(tmp_path):
    model, learner = adapted_model(saved(tmp_path, "hf"), rank=2, dropout=0.5)
    ids, positions, _ = some_rows()
    torch.manual_seed(1)
    one, other = learner.hidden(ids, positions), learner.hidden(ids, positions)
    torch.manual_seed(1)
    assert torch.equal(learner.hidden(ids, positions), one)
    assert not torch.equal(one, other)
    with learner.looking():
        plain = learner.hidden(ids, positions)
        assert torch.equal(plain, learner.hidden(ids, positions))
    assert model is learner.model


def test_a_share_is_dropped_and_the_rest_made_up_for():
    drops = Drops(0.25)
    drops.begin(True)
    frozen = torch.nn.Linear(64, 8, bias=False)
    module = LoraLinear(frozen, 4, 1.0, drops, 7)
    with torch.no_grad():
        module.lora_A, module.lora_B = (torch.nn.Parameter(torch.eye(*shape)) for shape in ((4, 64), (8, 4)))
        frozen.weight.zero_()
        seen = module(torch.ones(5000, 64))[:, :4]
    assert {round(float(value), 4) for value in seen.unique()} == {0.0, 1.3333}
    assert float((seen == 0).float().mean()) == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("quant", ["Q4_1", "Q8_0"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_base_in_blocks_is_the_base_that_its_file_says(tmp_path, quant, precision):
    config = tiny_config()
    gguf = save_weights(saved(tmp_path, "hf"), tmp_path / "m.gguf", format="gguf", quant=quant)
    wide = save_weights(gguf, tmp_path / "wide", format="hf", quant="F32")
    lora = {"rank": 2, "targets": ["q_proj", "up_proj"]}
    inside, learner = adapted_model(gguf, precision, quantised=True, **lora)
    outside, other = adapted_model(wide, precision, **lora)
    assert sum(parameter.numel() for parameter in inside.layers.parameters()) < 5000  # adapters and norms
    loss, found = gradients(inside, learner)
    expected, theirs = gradients(outside, other)
    assert loss == pytest.approx(expected, abs=1e-6)
    for name, gradient in theirs.items():
        assert torch.allclose(found[name], gradient, atol=1e-6), name
    assert config == inside.config


def test_a_frozen_base_is_there_once_and_in_bf16(tmp_path):
    model, learner = adapted_model(saved(tmp_path, "hf"), "bf16", rank=2)
    copies = dict(learner.model.named_parameters())
    for name, parameter in model.named_parameters():
        if "lora" in name:
            assert parameter.dtype == torch.float32
            assert copies[name].dtype == torch.bfloat16
        else:
            assert parameter.dtype == torch.bfloat16
            assert copies[name] is parameter


@pytest.mark.filterwarnings("ignore")  # of PEFT's own use of transformers
def test_gradients_are_pefts(tmp_path):
    peft = pytest.importorskip("peft")
    import torch.nn.functional as F

    from tests.model.hf import hf_model
    from tests.weights.adapters import Made, made_adapter

    base = saved(tmp_path, "hf")
    folder = made_adapter(tmp_path / "a", base, Made(4, 9.0))
    theirs = peft.PeftModel.from_pretrained(
        hf_model(tiny_config(), tiny_tensors(tiny_config())), folder, is_trainable=True
    )
    options = RunOptions(
        lora={"rank": 4, "alpha": 9.0}, precision="fp32", context=32, batch_tokens=64, steps=9, warmup_steps=1
    )
    parallel = Parallel()
    with torch.device("meta"):
        model = LlamaTorch(tiny_config(), 32)
    adapt(model, options, parallel)
    parallel.shard(model)
    take_weights(model, open_weights(base))
    begin_adapters(model, folder, 0)
    loss, found = gradients(model, Learner(model, options, parallel, fuse=False))
    ids, _, targets = some_rows()
    targets[:, :10] = -100
    logits = theirs(ids).logits
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), abs=1e-5)
    places = {"self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"), "mlp": ("gate_proj", "up_proj", "down_proj")}
    block = {name: place for place, names in places.items() for name in names}
    named = dict(theirs.named_parameters())
    for name, gradient in found.items():
        layer, matrix, part = name.removeprefix("layers.").split(".")
        theirs_of = named[f"base_model.model.model.layers.{layer}.{block[matrix]}.{matrix}.{part}.default.weight"].grad
        assert torch.allclose(gradient, theirs_of, atol=1e-5), name


def run_stages(run, *changes, stop_after=None):
    recipe = read_recipe(run.parent / "two.toml", [LORA, "pretrain-2.lora.dropout=0.2", *changes])
    events = []
    with Parallel() as parallel:
        for name in recipe.stages:
            after = stop_after if name == "pretrain-2" else None
            events += list(train(RunStage(recipe, name, run, parallel), stop_after=after))
    return events


def test_a_stage_of_adapters_from_its_start_to_a_model(tmp_path):
    run = make_run(tmp_path / "one")
    events = run_stages(run)
    assert sum(isinstance(event, Step) for event in events) == 7
    base, folder = newest_checkpoint(run / "pretrain"), newest_checkpoint(run / "pretrain-2")
    assert is_adapter(folder)
    assert not (folder / "model.safetensors").exists()
    weights, adapter = open_weights(folder), open_adapter(folder)
    assert is_trained_on(adapter, open_weights(base))
    assert weights.tokenizer.fingerprint() == open_weights(base).tokenizer.fingerprint()
    assert all(pair.up.any() for pair in adapter.pairs.values())
    assert np.array_equal(weights.tensors["norm"].array(), open_weights(base).tensors["norm"].array())
    kept = dcp.FileSystemReader(folder / "state").read_metadata().state_dict_metadata
    assert all("lora" in name for name in kept if not name.startswith("random."))


@pytest.mark.parametrize("more", [(), ("pretrain-2.recompute=true",), ("pretrain-2.precision=fp32",)])
def test_a_run_that_pauses_has_the_same_bits(tmp_path, more):
    whole, paused = make_run(tmp_path / "whole"), make_run(tmp_path / "paused")
    run_stages(whole, *more)
    for _ in range(3):
        run_stages(paused, *more, stop_after=1)
    one, other = (open_adapter(newest_checkpoint(run / "pretrain-2")) for run in (whole, paused))
    for name, pair in one.pairs.items():
        assert np.array_equal(pair.down, other.pairs[name].down)
        assert np.array_equal(pair.up, other.pairs[name].up)


def test_a_stage_goes_on_with_the_adapter_before_it(tmp_path):
    run = make_run(tmp_path / "one")
    three = ['stages=["pretrain","pretrain-2","pretrain-3"]', "pretrain-3.lora.rank=3", "pretrain-3.steps=2"]
    events = run_stages(run, *three)
    assert sum(isinstance(event, Saved) for event in events) == 3
    second, third = (open_adapter(newest_checkpoint(run / name)) for name in ("pretrain-2", "pretrain-3"))
    assert second.base.stored == third.base.stored
    with pytest.raises(OptionError, match="an adapter of other targets, rank or alpha"):
        run_stages(make_run(tmp_path / "two"), *three[::2], "pretrain-3.lora.rank=4")


def test_a_whole_stage_begins_from_base_and_adapter(tmp_path):
    run = make_run(tmp_path / "one")
    run_stages(run, 'stages=["pretrain","pretrain-2","pretrain-3"]', "pretrain-3.steps=2")
    folder = newest_checkpoint(run / "pretrain-3")
    assert not is_adapter(folder)
    assert open_weights(folder).tensors


def test_what_cannot_be_is_one_line(tmp_path):
    run = make_run(tmp_path / "one")
    recipe = read_recipe(run.parent / "two.toml", ["pretrain.lora.rank=3"])
    with Parallel() as parallel, pytest.raises(OptionError, match="an adapter needs a model to begin from"):
        list(train(RunStage(recipe, "pretrain", run, parallel)))
    with pytest.raises(OptionError, match=r"lora\.quantised: .* stores layers\.0\.q_proj as BF16; convert it first"):
        run_stages(run, "pretrain-2.lora.quantised=true")
    with torch.device("meta"):
        model = LlamaTorch(tiny_config())
    parallel = Parallel()
    parallel.tensor_ranks = 2
    with pytest.raises(UnsupportedError, match="tensor_parallel processes"):
        adapt(model, RunOptions(lora={}), parallel)


def test_rollouts_are_written_with_the_adapters_of_now(tmp_path):
    base = saved(tmp_path, "hf")
    gguf = save_weights(base, tmp_path / "m.gguf", format="gguf", quant="Q8_0")
    for place, quantised in ((base, False), (gguf, True)):
        model, _ = adapted_model(place, rank=3, quantised=quantised)
        live = live_weights(model, None, "fp32")
        plain = open_weights(place)
        modules = adapted_matrices(model)
        assert set(live.tensors) == set(plain.tensors)
        for name, tensor in live.tensors.items():
            expected = plain.tensors[name].array()
            if name in modules:
                b, a = (part.detach().numpy() for part in (modules[name].lora_B, modules[name].lora_A))
                expected = expected + np.float32(32 / 3) * (b @ a)
            assert np.allclose(tensor.array(), expected, atol=1e-5), name


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path):
    one = make_run(tmp_path / "one")
    recipe = one.parent / "two.toml"
    with Parallel() as parallel:
        list(train(RunStage(read_recipe(recipe), "pretrain", one, parallel)))
    base = newest_checkpoint(one / "pretrain")
    changes = [f'base="{base}"', 'stages=["pretrain"]', "pretrain.lora.rank=3", "pretrain.lora.dropout=0.0"]
    found = []
    for ranks in (1, 2):
        run = make_run(tmp_path / str(ranks))
        sessions = [{"recipe": run.parent / "two.toml", "changes": changes, "run": run, "stop_after": 2}]
        together(ranks, 1, [*sessions, {**sessions[0], "stop_after": None}])
        found.append(open_adapter(newest_checkpoint(run / "pretrain")))
    for name, pair in found[0].pairs.items():
        assert np.allclose(pair.down, found[1].pairs[name].down, atol=2e-3), name
        assert np.allclose(pair.up, found[1].pairs[name].up, atol=2e-3), name
    assert any(pair.up.any() for pair in found[1].pairs.values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("quantised", [False, True])
def test_compiled_layers_say_the_same(tmp_path, quantised):
    base = saved(tmp_path, "hf")
    if quantised:
        base = save_weights(base, tmp_path / "m.gguf", format="gguf", quant="Q8_0")
    options = RunOptions(precision="fp32", recompute=True, context=32, batch_tokens=64, steps=9, warmup_steps=1)
    found = []
    for fuse in (False, True):
        model, _ = adapted_model(base, recompute=True, rank=3, dropout=0.2, quantised=quantised)
        torch.manual_seed(1)
        found.append(gradients(model, Learner(model, options, Parallel(), fuse=fuse)))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
    for name, gradient in found[0][1].items():
        assert torch.allclose(gradient, found[1][1][name], rtol=1e-4, atol=1e-4), name


@pytest.mark.parametrize("rates", [True, False])
def test_a_reward_models_head_is_written_and_a_value_head_is_not(tmp_path, rates):
    base = saved(tmp_path, "hf")
    options = RunOptions(lora={"rank": 2}, context=32, batch_tokens=64, steps=9, warmup_steps=1)
    config = replace(tiny_config(), scalar_head=rates)
    with torch.device("meta"):
        model = LlamaTorch(config, 32, score=True)
    adapt(model, options, Parallel())
    Parallel().shard(model, "bf16")
    assert model.score.weight.requires_grad
    assert model.score.weight.dtype == torch.float32
    take_weights(model, open_weights(base))
    torch.nn.init.normal_(model.score.weight)
    begin_adapters(model, base, 0)
    (tmp_path / "a").mkdir()
    write_adapters(tmp_path / "a", model, {name: p for name, p in model.named_parameters() if p.requires_grad})
    weights = open_weights(tmp_path / "a")
    assert weights.config.scalar_head is rates
    if rates:
        assert np.array_equal(weights.tensors["score"].array(), model.score.weight.detach().numpy())
