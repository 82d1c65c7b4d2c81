"""An adapter by its name or beside its base, and merged."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from camelid.chat.adapters.merge import merge
from camelid.chat.load import beside, load
from camelid.engine.backend_cpu import CpuBackend
from camelid.engine.options import EngineOptions
from camelid.errors import FormatError, NumericsError, OptionError
from camelid.pedigree import read_pedigree
from camelid.weights import open_weights, save_weights
from camelid.weights.adapted import adapted
from camelid.weights.lora import TENSORS, open_adapter
from tests.engine.backends import forward, span
from tests.weights.adapters import Made, made_adapter
from tests.weights.models import saved


def test_the_merged_model_is_base_and_adapter(tmp_path):
    base = saved(tmp_path, "hf")
    folder = made_adapter(tmp_path / "a", base)
    merged = merge(folder, tmp_path / "out")
    assert merged.largest_difference < 1e-5 * merged.largest_logit
    assert merged.same_next == merged.places
    whole, written = open_weights(folder), open_weights(tmp_path / "out")
    for name, tensor in whole.tensors.items():
        assert np.array_equal(written.tensors[name].array(), tensor.array())
    record = read_pedigree(tmp_path / "out")
    assert record["command"] == "merge"
    assert {file["name"] for file in record["inputs"]} >= {"model.safetensors", TENSORS, "adapter_config.json"}
    assert record["counts"]["largest_difference"] == merged.largest_difference


@pytest.mark.parametrize("format", ["gguf", "meta"])
def test_it_is_written_in_every_format(tmp_path, format):
    base = saved(tmp_path, "hf", context=64)
    target = tmp_path / ("out.gguf" if format == "gguf" else "out")
    merged = merge(made_adapter(tmp_path / "a", base), target, format=format)
    assert merged.largest_difference < 1e-5 * merged.largest_logit
    assert open_weights(target).format == format


def test_the_merged_file_is_the_merged_folder_in_the_engine(tmp_path):
    """Its logits have the same bits there, so that it answers the same."""
    base = saved(tmp_path, "hf", context=64)
    folder = made_adapter(tmp_path / "a", base)
    merge(folder, tmp_path / "out")
    merge(folder, tmp_path / "out.gguf", format="gguf")
    rows = []
    for place in (tmp_path / "out", tmp_path / "out.gguf", folder):
        backend = CpuBackend(open_weights(place), EngineOptions(threads=1, dtype="float32"))
        backend.allocate(4)
        rows.append(forward(backend, span((1, 5, 9, 300, 17), 0, (0,), "all")))
    np.testing.assert_array_equal(rows[1], rows[0])
    np.testing.assert_allclose(rows[2], rows[0], rtol=1e-4, atol=1e-4 * abs(rows[0]).max())


def test_what_rounding_costs_is_told(tmp_path):
    base = saved(tmp_path, "hf")
    folder = made_adapter(tmp_path / "a", base)
    rounded = merge(folder, tmp_path / "out", quant="BF16")
    assert 1e-4 < rounded.largest_difference < 0.5


def test_an_adapter_of_blocks_is_merged_onto_these_blocks_alone(tmp_path, caplog):
    base = saved(tmp_path, "hf")
    gguf = save_weights(base, tmp_path / "m.gguf", format="gguf", quant="Q4_1")
    folder = made_adapter(tmp_path / "a", gguf, quantised=True)
    merged = merge(folder, tmp_path / "out")
    assert merged.largest_difference < 1e-5 * merged.largest_logit
    with pytest.raises(OptionError, match="has other numbers; merge it into that file"):
        merge(folder, tmp_path / "other", base=base)
    assert not (tmp_path / "other").exists()
    plain = made_adapter(tmp_path / "b", base)
    with caplog.at_level(logging.WARNING):
        merge(plain, tmp_path / "other", base=gguf)
    assert "is the same model stored otherwise" in caplog.text


@pytest.mark.parametrize("format", ["hf", "gguf"])
def test_a_trained_output_unties_and_says_so(tmp_path, caplog, format):
    base = saved(tmp_path, "hf", ties_embeddings=True)
    folder = made_adapter(tmp_path / "a", base)
    own = np.random.default_rng(3).standard_normal((320, 64), dtype=np.float32)
    save_file({**load_file(folder / TENSORS), "base_model.model.lm_head.weight": own}, folder / TENSORS)
    target = tmp_path / ("out.gguf" if format == "gguf" else "out")
    with caplog.at_level(logging.WARNING):
        merged = merge(folder, target, format=format)
    assert merged.unties
    assert "two matrices now" in caplog.text
    assert merged.largest_difference < 1e-5 * merged.largest_logit
    assert np.array_equal(open_weights(target).tensors["lm_head"].array(), own)


def test_a_ruined_adapter_is_one_line(tmp_path):
    base = saved(tmp_path, "hf")
    folder = made_adapter(tmp_path / "a", base)
    tensors = load_file(folder / TENSORS)
    one = next(name for name in tensors if "lora_B" in name)
    save_file({**tensors, one: np.full_like(tensors[one], 1e38)}, folder / TENSORS)
    with np.errstate(all="ignore"), pytest.raises(NumericsError, match="logits are not finite"):
        merge(folder, tmp_path / "out")
    (folder / TENSORS).write_bytes((folder / TENSORS).read_bytes()[:100])
    with pytest.raises(FormatError):
        merge(folder, tmp_path / "out")


def test_the_adapter_of_a_reward_model_becomes_one(tmp_path):
    folder = made_adapter(tmp_path / "a", saved(tmp_path, "hf", ties_embeddings=True))
    head = np.random.default_rng(1).standard_normal((1, 64), dtype=np.float32)
    save_file({**load_file(folder / TENSORS), "base_model.model.score.weight": head}, folder / TENSORS)
    assert open_weights(folder).config.scalar_head
    merged = merge(folder, tmp_path / "out")
    assert merged.rates
    assert merged.largest_difference < 1e-5 * merged.largest_logit
    written = open_weights(tmp_path / "out")
    assert np.array_equal(written.tensors["score"].array(), head)
    assert "LlamaForSequenceClassification" in (tmp_path / "out" / "config.json").read_text()


@pytest.fixture(scope="module")
def real(smollm2_path, tmp_path_factory):
    """The default model, and an adapter of it."""
    return smollm2_path, made_adapter(tmp_path_factory.mktemp("real") / "a", smollm2_path, Made(8, 1.0))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_a_real_model_with_an_adapter(real, backend):
    path, folder = real
    ways = (  # one after the other: each holds a model
        lambda: load(path, adapter=folder, backend=backend),
        lambda: load(adapter=folder, backend=backend),
        lambda: beside(load(path, backend=backend), open_adapter(folder)),
    )
    llama = load(folder, backend=backend)
    ids = llama.prompt_ids("The capital of France is")
    first = llama.logits(ids)
    whole = adapted(open_weights(path), open_adapter(folder))
    assert llama.tokenizer.fingerprint() == whole.tokenizer.fingerprint()
    assert llama.chat("Hello", max_tokens=3, temperature=0).text
    del llama, whole
    for way in ways:
        assert np.array_equal(way().logits(ids), first)
    assert not np.allclose(load(path, backend=backend).logits(ids), first, atol=1e-3)


def said(capsys, *words):
    """What a verb prints as JSON."""
    from camelid.cli import main

    with pytest.raises(SystemExit) as done:
        main([str(word) for word in words])
    assert done.value.code == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_verbs_take_an_adapter(real, tmp_path, capsys):
    path, folder = real
    asked = ["One two three", "--max-tokens", 6, "--temperature", 0, "--json"]
    texts = [said(capsys, "generate", *asked, "--adapter", folder)["text"]]
    texts.append(said(capsys, "generate", folder, *asked)["text"])
    merged = said(capsys, "merge", folder, "--base", path, "--out", tmp_path / "m.gguf", "--to", "gguf", "--json")
    assert merged["largest_difference"] < 1e-3
    said(capsys, "convert", path, tmp_path / "c", "--to", "hf", "--quant", "F32", "--adapter", folder, "--json")
    texts.append(said(capsys, "generate", tmp_path / "c", *asked)["text"])
    assert len(set(texts)) == 1
