"""Dry runs: published figures, memory against what torch keeps, and refusals that say what would fit."""

from __future__ import annotations

import itertools
import json
import math
import re
from types import SimpleNamespace

import pytest

from camelid.cli.plan import shape_of, show_plan
from camelid.data.batches import Batches
from camelid.errors import OptionError, ResourceError
from camelid.model.config import ModelConfig
from camelid.model.family import FAMILY
from camelid.recipe import read_recipe
from camelid.train.options import LOGIT_TOKENS, LoraOptions
from camelid.train.planning.devices import DEVICES
from camelid.train.planning.models import beside, learned_parameters
from camelid.train.planning.plan import _kept_per_token, check_fits, kept_checkpoints, memory_of, plan
from camelid.train.stages.pretrain import Pretrain, PretrainOptions
from camelid.train.stages.sft import SftOptions

A100 = DEVICES["A100 80GB"]


def read(name: str, *changes: str) -> tuple[ModelConfig, PretrainOptions]:
    recipe = read_recipe(name, changes)
    options = recipe.table("pretrain", PretrainOptions)
    return shape_of(recipe, options), options


def test_llama_2_7b_costs_what_its_paper_says():
    """Touvron et al. 2023, table 2: 184,320 A100 hours; two trillion tokens."""
    config, options = read("llama2-7b")
    found = plan(config, options, A100, 1024)
    assert found.parameters == 6_738_415_616
    assert found.tokens == pytest.approx(2e12, rel=1e-5)
    assert found.gpu_hours == pytest.approx(184_320, rel=0.02)
    assert found.days == pytest.approx(184_320 / 1024 / 24, rel=0.02)
    half = plan(config, options, A100, 1024, mfu=0.5)
    assert half.gpu_hours == pytest.approx(found.gpu_hours * 0.9)


def test_llama_3_8b():
    config, options = read("llama3-8b")
    assert plan(config, options, A100, 64).parameters == 8_030_261_248
    assert options.schedule == "wsd"
    assert options.z_loss > 0


def test_weights_gradients_and_optimiser_are_sixteen_bytes_a_parameter():
    config, options = read("llama2-7b")
    for ranks in (1, 8, 512):
        told = memory_of(config, options, ranks)
        assert (told.weights + told.gradients + told.optimizer) * ranks == pytest.approx(16 * config.n_parameters)
    more, one = (memory_of(config, options.with_(micro_rows=rows), 8) for rows in (4, 1))
    assert more.activations == 4 * one.activations


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # torch's own, while it loads its compiler
def test_a_layer_keeps_what_torch_keeps():
    """Compiled as far as the cut between forward and backward, every tensor that is saved between them is counted."""
    torch = pytest.importorskip("torch")
    np = pytest.importorskip("numpy")
    from camelid.model.llama_torch import Layer, mix_causal
    from camelid.model.rope import rope_table

    n = 64
    config = ModelConfig(dim=128, n_layers=1, n_heads=8, n_kv_heads=2, head_dim=16, ffn_dim=352, vocab_size=64)
    layer = Layer(config).to(torch.bfloat16)
    cos, sin = (torch.from_numpy(table).unsqueeze(-2) for table in rope_table(config, np.arange(n)))
    x = torch.randn(1, n, config.dim, dtype=torch.bfloat16, requires_grad=True)
    known = {tensor.untyped_storage().data_ptr() for tensor in (*layer.parameters(), cos, sin)}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    compiled = torch.compile(layer, backend="aot_eager_decomp_partition")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        compiled(x, cos, sin, mix_causal)
    n_bytes = sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in known)
    assert 2 * n * _kept_per_token(config, 1) == pytest.approx(n_bytes, rel=0.03)


def test_the_fewest_gpus_hold_it_and_half_as_many_do_not():
    config, options = read("llama2-7b")
    for device in DEVICES.values():
        found = plan(config, options, device)
        assert found.fits
        assert found.ranks == 1 or not plan(config, options, device, found.ranks // 2).fits


@pytest.mark.parametrize("ranks", [1, 2, 8])
@pytest.mark.parametrize(
    "changes", [("pretrain.recompute=false", "pretrain.micro_rows=2"), ("pretrain.micro_rows=16",)]
)
def test_what_is_advised_would_fit(ranks, changes):
    config, options = read("llama3-8b", *changes)
    found = plan(config, options, A100, ranks)
    with pytest.raises(ResourceError, match=r"needs [\d.]+ GB on each of .* would fit") as caught:
        check_fits(config, options, found)
    sets = re.findall(r"--set (pretrain\.\w+=\w+)", str(caught.value))
    more = re.search(r"(\d+) of them", str(caught.value))
    config, options = read("llama3-8b", *changes, *sets)
    if more:
        options = options.with_(micro_rows=1)
    check_fits(config, options, plan(config, options, A100, int(more[1]) if more else ranks))


def test_what_is_planned_is_what_is_trained(tmp_path):
    """Rows of a micro-batch and pieces of scores are those of the training loop on a GPU."""
    pytest.importorskip("torch")
    import numpy as np

    from camelid.train.losses import token_loss as loss
    from tests.data.made import make_data, some_documents

    assert loss.LOGIT_TOKENS == LOGIT_TOKENS
    data = make_data(tmp_path, some_documents(20))
    for name, ranks in itertools.product(("tiny", "llama2-7b", "llama3-8b"), (1, 8, 32)):
        for change in ((), ("pretrain.micro_rows=3",)):
            config, options = read(name, *change)
            if options.rows % ranks:
                continue
            parallel = SimpleNamespace(data_rank=0, data_ranks=ranks, device=SimpleNamespace(type="cuda"))
            stage = Pretrain(options, config, Batches(data, options.context, options.rows, 0), parallel)
            rows = np.zeros((options.rows // ranks, 1))
            pieces = [
                len(ids) for ids, *_ in stage.micro_batches(SimpleNamespace(ids=rows, positions=rows, targets=rows))
            ]
            assert max(pieces) == plan(config, options, DEVICES["A100 80GB"], ranks).micro_rows
            assert sum(pieces) == len(rows)


@pytest.mark.parametrize(("steps", "last", "every"), [(50, 2, 20), (45, 1, 0), (45, 3, 15), (7, 5, 10)])
def test_checkpoints_on_the_disk(steps, last, every):
    """Counted as a run would keep them: after each save, the newest and the milestones."""
    _, options = read("tiny", "pretrain.save_every=5", "pretrain.warmup_steps=1", f"pretrain.steps={steps}")
    options = options.with_(keep_last=last, keep_every=every)
    there: list[int] = []
    for now in range(1, steps + 1):
        if now % 5 == 0 or now == steps:
            there.append(now)
            there = [step for step in there if step in there[-last:] or (every and step % every == 0)]
    assert kept_checkpoints(options) == len(there)


def test_rows_must_be_shared_evenly():
    config, options = read("tiny")
    with pytest.raises(OptionError, match="cannot share the 8 rows of a step evenly"):
        plan(config, options, A100, 3)


def test_what_fits_nowhere():
    config, options = read("llama2-7b", "model.like=Llama 3.1 405B", "pretrain.batch_tokens=8192")
    with pytest.raises(ResourceError, match="take a smaller model"):
        plan(config, options, A100)


@pytest.mark.parametrize("name", ["tiny", "stories", "llama2-7b", "llama3-8b"])
def test_dry_runs_print(name, capsys):
    recipe = read_recipe(name)
    show_plan(recipe, recipe.stages, None, None, None, json=False)
    table = capsys.readouterr().out
    assert all(title in table for title in DEVICES)
    show_plan(recipe, recipe.stages, "H100 80GB", 8, 0.4, json=False)
    assert "8 × H100 80GB" in (one := capsys.readouterr().out)
    assert "40% of 989 TFLOPS" in one
    show_plan(recipe, recipe.stages, None, None, None, json=True)
    told = json.loads(capsys.readouterr().out)
    assert len(told["plans"]) == len(DEVICES)
    assert f"{told['plans'][0]['parameters']:,}" in table


def test_a_dry_run_that_does_not_fit_is_refused():
    with pytest.raises(ResourceError, match=r"llama2-7b.toml: needs .* 2 of them would fit"):
        show_plan(read_recipe("llama2-7b"), ("pretrain",), "A100 80GB", 1, None, json=False)


def test_the_vocabulary_of_a_tokenizer_that_is_not_opened():
    assert read("llama2-7b", "tokenizer.open=somewhere")[0].vocab_size == 32000
    assert read("tiny", "tokenizer.open=somewhere", "model.vocab_size=999")[0].vocab_size == 999
    with pytest.raises(OptionError, match=r"model.vocab_size: give it"):
        read("tiny", "tokenizer.open=somewhere")


def test_adapters_learn_few_numbers():
    """peft counts 41,943,040 for rank 16 on all matrices of Llama 3 8B; q and v of rank 8 are 3,407,872."""
    config = FAMILY["Llama 3 8B"].config
    options = SftOptions(steps=10, lora=LoraOptions(rank=16))
    assert learned_parameters(config, options) == 41_943_040
    assert (
        learned_parameters(config, options.with_(lora=LoraOptions(rank=8, targets=("q_proj", "v_proj")))) == 3_407_872
    )
    whole, few = (memory_of(config, chosen, 1, "sft") for chosen in (options.with_(lora=None), options))
    assert few.weights == 2 * config.n_parameters + 4 * 41_943_040
    assert (few.gradients, few.optimizer) == (4 * 41_943_040, 8 * 41_943_040)
    assert few.activations == whole.activations
    plans = [plan(config, chosen, A100, 1, stage="sft") for chosen in (options.with_(lora=None), options)]
    assert plans[1].flops_per_token == pytest.approx(plans[0].flops_per_token * 2 / 3)
    assert plans[1].checkpoint_bytes == 16 * 41_943_040


def test_frozen_models_are_counted_by_stage():
    config = FAMILY["Llama 2 7B"].config
    options = SftOptions(steps=10)
    names = {
        stage: [model.name for model in beside(stage, options)] for stage in ("sft", "pretrain", "reward", "dpo", "ppo")
    }
    assert names["sft"] == names["pretrain"] == names["reward"] == []
    assert (names["dpo"], names["ppo"]) == (["reference"], ["reference", "rollouts"])
    alone, reference, ppo = (memory_of(config, options, 8, stage) for stage in ("sft", "dpo", "ppo-2"))
    assert reference == alone  # what it says is stored before anything is learned
    frozen = 2 * math.ceil(config.n_parameters / 8)
    assert (ppo.reference, ppo.rollouts, ppo.reward) == (frozen, frozen, 0)
    assert ppo.total == alone.total + 2 * frozen


TWO = """
name = "two"
base = "llama2:7b"
stages = ["sft", "sft-2"]
[sft]
recompute = true
[sft-2]
preset = "modern"
steps = 50
"""


def test_a_dry_run_of_several_stages(tmp_path, capsys):
    path = tmp_path / "two.toml"
    path.write_text(TWO, encoding="utf-8")
    recipe = read_recipe(path)
    show_plan(recipe, recipe.stages, "A100 80GB", 8, None, json=True)
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert [stage["stage"] for stage in stages] == ["sft", "sft-2"]
    assert [stage["plans"][0]["tokens"] for stage in stages] == [100 * 64 * 4096, 50 * 128 * 4096]
    assert {stage["plans"][0]["parameters"] for stage in stages} == {6_738_415_616}
    show_plan(recipe, ("sft",), "A100 80GB", 8, None, json=False)
    assert "it will be 2 epochs of the data" in " ".join(capsys.readouterr().out.split())
    show_plan(recipe, recipe.stages, "A100 80GB", 8, None, json=False)
    assert "all stages:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "gpu", "gpus", "stages"),
    [
        ("llama2-7b-chat", "A100 80GB", 64, 9),
        ("llama2-70b-chat", "A100 80GB", 256, 9),
        ("llama3-8b-instruct", "H100 80GB", 64, 7),
        ("llama3-8b-lora", "RTX 4090 24GB", 1, 2),
        ("chat-tiny", "RTX 4090 24GB", 1, 5),
    ],
)
def test_recipes_of_post_training_fit(name, gpu, gpus, stages, capsys):
    recipe = read_recipe(name)
    show_plan(recipe, recipe.stages, gpu, gpus, None, json=True)
    told = json.loads(capsys.readouterr().out)["stages"]
    assert len(told) >= stages
    assert all(stage["plans"][0]["fits"] for stage in told)
