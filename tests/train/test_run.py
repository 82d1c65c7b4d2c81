"""A whole run: data and recipe to checkpoints that others open, going on, and what is said of mistakes."""

from __future__ import annotations

import json
import tomllib

import numpy as np
import pytest
import torch
import transformers

from camelid.chat.load import load
from camelid.data import verifying
from camelid.data.options import DataOptions
from camelid.engine.batch import Batch, Span
from camelid.engine.load import choose_backend
from camelid.engine.options import EngineOptions
from camelid.errors import NumericsError, OptionError, ResourceError, VerifyError
from camelid.model.options import ModelOptions
from camelid.recipe import read_recipe
from camelid.train import loop
from camelid.train.events import Saved, Started, Step, Stopped
from camelid.train.parallel import Parallel
from camelid.train.report.metrics import read_metrics
from camelid.train.run import to_toml
from camelid.train.stages.pretrain import Pretrain, PretrainOptions
from camelid.weights.convert import save_weights
from camelid.weights.open import open_weights
from tests.data.made import make_data, some_documents
from tests.train.ranks import pretrain, steps_of

RECIPE = """
name = "small"
seed = 7

[model]
dim = 64
n_layers = 2
n_heads = 4
n_kv_heads = 2
ffn_dim = 96

[pretrain]
steps = 12
batch_tokens = 256
context = 32
warmup_steps = 2
lr = 1e-2
save_every = 4
keep_last = 3
validation_every = 6
compile = false
"""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run(tmp_path):
    (tmp_path / "small.toml").write_text(RECIPE, encoding="utf-8")
    make_data(tmp_path / "small", some_documents(80), validation=some_documents(9, seed=5))
    return tmp_path / "small"


def trained(run, *changes, **more):
    """The steps of a session."""
    return list(steps_of(read_recipe(run.parent / "small.toml", changes), run, Parallel(), **more))


def weights_of(checkpoint):
    tensors = open_weights(checkpoint).tensors
    return {name: tensor.array() for name, tensor in tensors.items()}


def test_a_run_leaves_everything(run):
    events = list(pretrain(read_recipe(run.parent / "small.toml"), run, Parallel()))
    steps = [event for event in events if isinstance(event, Step)]
    assert [step.step for step in steps] == list(range(1, 13))
    assert steps[-1].loss < steps[0].loss - 1
    others = [event for event in events if not isinstance(event, Step)]
    assert [type(event) for event in others] == [Started, Saved, Saved, Saved, Stopped]
    assert (others[0].step, others[0].steps, others[-1]) == (0, 12, Stopped(12, True))
    folder = run / "pretrain"
    assert sorted(path.name for path in folder.glob("step*")) == ["step12-tokens3K", "step4-tokens1K", "step8-tokens2K"]
    assert (folder / "latest").resolve().name == "step12-tokens3K"
    metrics = read_metrics(folder)
    assert metrics.columns["loss"].tolist() == [step.loss for step in steps]
    assert [event["event"] for event in metrics.events] == ["start", "save", "save", "save", "done"]
    recipe = tomllib.loads((run / "recipe.toml").read_text())
    assert (recipe["pretrain"]["eps"], recipe["pretrain"]["steps"], recipe["model"]["dim"]) == (1e-5, 12, 64)
    assert trained(run) == []


@pytest.mark.slow
def test_stopping_and_going_on_changes_no_bit(run, tmp_path_factory):
    whole = trained(run)
    other = tmp_path_factory.mktemp("other") / "small"
    (other.parent / "small.toml").write_text(RECIPE, encoding="utf-8")
    make_data(other, some_documents(80), validation=some_documents(9, seed=5))
    parts = trained(other, stop_after=5) + trained(other, stop_after=1) + trained(other)
    assert [(s.step, s.loss, s.grad_norm, s.tokens) for s in parts] == [
        (s.step, s.loss, s.grad_norm, s.tokens) for s in whole
    ]
    one, two = (weights_of(place / "pretrain" / "latest") for place in (run, other))
    assert all(np.array_equal(one[name], two[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_others_open_a_checkpoint_and_say_the_same(run, tmp_path, precision):
    """transformers, our numpy and C++ engines, and the GGUF made from it: the same scores."""
    trained(run, f"pretrain.precision={precision}", stop_after=6)
    folder = (run / "pretrain" / "latest").resolve()
    ids = [256, 84, 104, 101, 32, 108, 108, 97, 109, 97]
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert type(theirs).__name__ == "LlamaForCausalLM"
    with torch.no_grad():
        wanted = theirs(torch.tensor([ids])).logits[0, -1].numpy()
    save_weights(folder, tmp_path / "small.gguf", format="gguf")
    for path, backend in ((folder, "numpy"), (folder, "cpu"), (tmp_path / "small.gguf", "cpu")):
        found = scores(path, backend, ids)
        np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=2e-3, err_msg=f"{path.name} {backend}")
        assert found.argmax() == wanted.argmax()
    assert load(str(folder)).generate("The llama", max_tokens=5, temperature=0).text


def scores(path, name, ids):
    """(V,) after the last of `ids`."""
    backend = choose_backend(open_weights(path), name, EngineOptions(threads=1))
    backend.allocate(4)
    (rows,) = backend.forward(Batch((Span(tuple(ids), 0, (0,), range(len(ids) - 1, len(ids))),)))
    return rows[-1]


def test_another_recipe_is_refused(run):
    trained(run, stop_after=4)
    with pytest.raises(OptionError, match=r"pretrain\.batch_tokens was 256, is 512"):
        trained(run, "pretrain.batch_tokens=512")
    with pytest.raises(OptionError, match=r"model\.ffn_dim was 96, is 128"):
        trained(run, "model.ffn_dim=128")


@pytest.mark.parametrize(
    "change",
    [
        *(
            f"pretrain.{name}={value}"
            for name in ("lr", "eps", "weight_decay", "clip", "z_loss")
            for value in ("inf", 1e300)
        ),
        *(f"pretrain.betas={value}" for value in ("[1, 1]", "[0.9, 1]", "[-0.1, 0.9]", "[nan, 0.9]")),
        "pretrain.lr=nan",
        "pretrain.min_lr_ratio=inf",
        "pretrain.eps=1e-310",
        "model.norm_eps=inf",
        "model.rope_theta=inf",
        "model.rope_theta=1e300",
        "data.sources.0.weight=inf",
        "data.sources.0.weight=1e300",
    ],
)
def test_numbers_that_would_ruin_weights_are_refused(tmp_path, change):
    source = 'sources = [{name = "a", kind = "text", path = "a.txt"}]'
    (tmp_path / "small.toml").write_text(f"{RECIPE}\n[data]\n{source}\n", encoding="utf-8")
    recipe = read_recipe(tmp_path / "small.toml", [change])
    table = change.partition(".")[0]
    kind = {"pretrain": PretrainOptions, "model": ModelOptions, "data": DataOptions}[table]
    with pytest.raises(OptionError, match="must be"):
        recipe.table(table, kind)


def test_ruined_weights_are_not_saved(run, monkeypatch):
    trained(run, stop_after=4)
    change = loop._change

    def ruin(optimizer, rate):
        change(optimizer, rate)
        with torch.no_grad():
            optimizer.param_groups[0]["params"][0][0, 0] = torch.inf

    monkeypatch.setattr(loop, "_change", ruin)
    with pytest.raises(NumericsError, match=r"step 5: .* is not finite any more; nothing is saved"):
        trained(run, stop_after=1)
    assert (run / "pretrain" / "latest").resolve().name == "step4-tokens1K"


def test_metrics_that_cannot_be_written_end_the_run_after_a_save(run, monkeypatch):
    def full(self, step):
        if step.step == 3:
            raise ResourceError("metrics.jsonl: the disk or quota is full")

    monkeypatch.setattr("camelid.train.report.metrics.MetricsWriter.write", full)
    with pytest.raises(ResourceError, match="full"):
        trained(run)
    assert (run / "pretrain" / "latest").resolve().name.startswith("step3-")


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("suffix", [".npy", ".docs.npy"])
def test_a_flipped_bit_in_the_tokens_is_not_learned(run, monkeypatch, at_once, suffix):
    """Few bytes are hashed before the first step; many beside the training, and then nothing more is saved."""
    trained(run, stop_after=4)
    if not at_once:
        monkeypatch.setattr(verifying, "AT_ONCE", 0)
    path = run / "data" / "tokens" / f"made-00000{suffix}"
    whole = path.read_bytes()
    path.write_bytes(whole[:-32] + bytes([whole[-32] ^ 1]) + whole[-31:])  # beginnings stay in order
    steps = []
    recipe = read_recipe(run.parent / "small.toml", ["pretrain.save_every=0"])
    with pytest.raises(VerifyError, match=rf"made-00000{suffix}: SHA-256 .*, on record"):
        steps.extend(steps_of(recipe, run, Parallel()))
    assert (run / "pretrain" / "latest").resolve().name == "step4-tokens1K"
    assert not (steps and at_once)
    path.write_bytes(whole)
    assert trained(run)[-1].step == 12


def test_lost_numbers_save_nothing(run, monkeypatch):
    trained(run, stop_after=4)
    compute = Pretrain.loss

    def lost(*given):
        loss = compute(*given)
        return loss._replace(parts=loss.parts * torch.nan)

    monkeypatch.setattr(Pretrain, "loss", lost)
    with pytest.raises(NumericsError, match="step 5: the loss is nan"):
        trained(run)
    assert (run / "pretrain" / "latest").resolve().name == "step4-tokens1K"


def test_too_little_memory_is_said_before_anything_is_made(run, monkeypatch):
    monkeypatch.setattr("camelid.train.run.available_bytes", lambda: 1000)
    with pytest.raises(ResourceError, match=r"needs about .* MB of memory, 1 kB free; try --set"):
        trained(run)
    assert not (run / "pretrain").exists() or not list((run / "pretrain").glob("step*"))


def test_toml_comes_back():
    values = {
        "name": 'a "b"\\\n',
        "seed": 2**40,
        "none": None,
        "data": {"x": 1e-05, "on": True, "sources": [{"name": "a", "n": [1, 2]}, {"name": "é", "deep": {"k y": 0.5}}]},
        "pretrain": {"betas": (0.9, 0.95), "empty": []},
    }
    said = json.loads(json.dumps({key: value for key, value in values.items() if value is not None}))
    assert tomllib.loads(to_toml(values)) == said
