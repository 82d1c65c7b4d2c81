"""Two processes are one: the same curve, the same weights, checkpoints that go from one number to another."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from camelid.errors import OptionError, UnsupportedError
from camelid.model.config import tensor_shapes
from camelid.model.llama_torch import LlamaTorch
from camelid.recipe import read_recipe
from camelid.train.cluster.launch_env import Place, first_host, place
from camelid.train.init import initial_values, initialise
from camelid.train.parallel import Parallel, check_sizes
from camelid.train.report.metrics import read_metrics
from camelid.weights.open import open_weights
from tests.data.made import make_data, some_documents
from tests.tiny import tiny_config
from tests.train.ranks import pretrain, together
from tests.train.test_run import RECIPE

# A gentle rate: where the loss jumps, the last bits of a sum decide where it lands.
CALM = ["pretrain.precision=fp32", "pretrain.lr=1e-3", "pretrain.steps=6"]


@pytest.fixture(scope="module")
def place_of_runs(tmp_path_factory):
    """A recipe, its data, and a run of one process."""
    folder = tmp_path_factory.mktemp("parallel")
    torch.set_num_threads(1)
    (folder / "small.toml").write_text(RECIPE, encoding="utf-8")
    make_data(folder / "alone", some_documents(80), validation=some_documents(9, seed=5))
    list(pretrain(read_recipe(folder / "small.toml", CALM), folder / "alone", Parallel()))
    return folder


def beside(folder: Path, name: str) -> Path:
    """A new run on the same data."""
    shutil.copytree(folder / "alone" / "data", folder / name / "data")
    return folder / name


def curve(run: Path) -> dict[str, np.ndarray]:
    columns = read_metrics(run / "pretrain").columns
    return {
        name: np.array(columns[name]) for name in ("step", "loss", "grad_norm", "validation_loss") if name in columns
    }


def same(one: Path, other: Path, tolerance: float) -> None:
    for name, wanted in curve(one).items():
        np.testing.assert_allclose(curve(other)[name], wanted, rtol=0, atol=tolerance, err_msg=name)
    weights = [open_weights(run / "pretrain" / "latest").tensors for run in (one, other)]
    for name, tensor in weights[0].items():
        np.testing.assert_allclose(weights[1][name].array(), tensor.array(), rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.slow
def test_sharded_over_two(place_of_runs):
    """FSDP2: from the beginning; and one process, then two, then one."""
    folder, recipe = place_of_runs, place_of_runs / "small.toml"
    two, mixed, half = (beside(folder, name) for name in ("two", "mixed", "half"))
    list(pretrain(read_recipe(recipe, CALM), mixed, Parallel(), stop_after=2))
    session = {"recipe": recipe, "changes": CALM}
    coarse = {"recipe": recipe, "changes": [*CALM, "pretrain.precision=bf16", "pretrain.recompute=true"]}
    together(2, 1, [{**session, "run": two}, {**session, "run": mixed, "stop_after": 2}, {**coarse, "run": half}])
    list(pretrain(read_recipe(recipe, CALM), mixed, Parallel()))
    same(folder / "alone", two, 1e-6)
    same(folder / "alone", mixed, 1e-6)
    assert np.abs(curve(half)["loss"] - curve(folder / "alone")["loss"]).max() < 0.02


@pytest.mark.slow
def test_layers_shared_by_two(place_of_runs):
    """Tensor parallel: heads and feed-forward columns; its checkpoint goes on in one process."""
    folder, recipe = place_of_runs, place_of_runs / "small.toml"
    run = beside(folder, "tensor")
    changes = [*CALM, "pretrain.tensor_parallel=2"]
    other = ["model.ties_embeddings=true", "model.attention_bias=true", "model.mlp_bias=true"]
    tied = {"recipe": recipe, "changes": [*changes, *other], "run": beside(folder, "tied")}
    together(2, 2, [{"recipe": recipe, "changes": changes, "run": run, "stop_after": 4}, {**tied, "stop_after": 2}])
    list(pretrain(read_recipe(recipe, CALM), run, Parallel()))
    same(folder / "alone", run, 1e-6)
    alone = beside(folder, "tied-alone")
    list(pretrain(read_recipe(recipe, [*CALM, *other]), alone, Parallel(), stop_after=2))
    same(alone, folder / "tied", 1e-6)


def test_a_rank_draws_its_own_rows_only():
    config = tiny_config(vocab_size=700)
    for name, shape in tensor_shapes(config).items():
        whole = initial_values(config, name, shape, 3, slice(0, shape[0]))
        for cut in ((0, 1), (5, 300), (255, 257), (256, 512), (511, 700)):
            rows = slice(min(cut[0], shape[0] - 1), min(cut[1], shape[0]))
            assert np.array_equal(initial_values(config, name, shape, 3, rows), whole[rows])
    assert not np.array_equal(
        initial_values(config, "embed_tokens", (700, 64), 3, slice(0, 9)),
        initial_values(config, "embed_tokens", (700, 64), 4, slice(0, 9)),
    )


def test_the_first_values_are_spread_as_they_should_be():
    with torch.device("meta"):
        model = LlamaTorch(tiny_config(dim=128, n_layers=8, vocab_size=500, attention_bias=True, mlp_bias=True))
    initialise(Parallel().shard(model), 0)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            first = torch.zeros if name.endswith(".bias") else torch.ones
            assert torch.equal(parameter, first(parameter.shape))
        else:
            wanted = 0.02 / 4 if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02
            assert parameter.std().item() == pytest.approx(wanted, rel=0.05)
            assert abs(parameter.mean().item()) < wanted / 20


def test_places():
    assert place({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}) == Place()  # a script outside srun
    torchrun = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "a1", "MASTER_PORT": "29500"}
    assert place(torchrun) == Place(3, 4, 1, "a1", 29500)
    srun = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "2", "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5"}
    srun |= {"SLURM_LOCALID": "1", "SLURM_STEP_NODELIST": "lrdn[0017-0018]"}
    assert place(srun) == Place(5, 8, 1, "lrdn0017", 20051)
    assert place({**srun, **torchrun}) == place(torchrun)
    with pytest.raises(OptionError, match="as torchrun or srun do"):
        place({"RANK": "0", "WORLD_SIZE": "2"})
    with pytest.raises(OptionError, match="rank 5 of 4"):
        place({**torchrun, "RANK": "5"})


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("a", "a"),
        ("lrdn0001,lrdn0007", "lrdn0001"),
        ("nid[001002-001003,001009]", "nid001002"),
        ("x[5,7]-eth,y", "x5-eth"),
        ("localhost", "localhost"),
    ],
)
def test_first_hosts(nodes, first):
    assert first_host(nodes) == first


def test_what_cannot_be_shared_is_said():
    with pytest.raises(OptionError, match="there is 1 process, which 2 does not divide"):
        Parallel(2)
    with pytest.raises(OptionError, match="3 does not divide the model's n_heads, 4"):
        check_sizes(tiny_config(), 3)
    with pytest.raises(UnsupportedError, match="normalises all heads together"):
        check_sizes(tiny_config(qk_norm=True), 2)
