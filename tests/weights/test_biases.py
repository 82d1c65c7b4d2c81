"""Models with biases in every format that can hold them, against transformers and llama.cpp's order of rows."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from camelid.engine.backend_numpy import NumpyBackend
from camelid.engine.engine import Engine
from camelid.engine.options import EngineOptions
from camelid.errors import CamelidError
from camelid.weights import open_weights, save_weights
from tests.engine.backends import logits
from tests.tiny import tiny_config
from tests.weights.models import assert_same, saved, tiny_weights

BOTH = {"attention_bias": True, "mlp_bias": True}
IDS = list(range(3, 60, 2))


@pytest.mark.parametrize("seed", range(3))
def test_a_model_of_transformers_with_biases_gives_its_logits(tmp_path, seed):
    rng = np.random.default_rng(seed)
    kv_heads = int(rng.integers(1, 4))
    config = transformers.LlamaConfig(
        vocab_size=int(rng.integers(60, 200)),
        hidden_size=12 * int(rng.integers(1, 5)) * kv_heads,
        intermediate_size=int(rng.integers(20, 80)),
        num_hidden_layers=2,
        num_attention_heads=3 * kv_heads,
        num_key_value_heads=kv_heads,
        attention_bias=bool(seed != 1),
        mlp_bias=bool(seed != 2),
        initializer_range=0.2,
    )
    torch.manual_seed(seed)
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.normal_(std=0.5)
    model.save_pretrained(tmp_path / "hf")
    with torch.no_grad():
        expected = model(torch.tensor([IDS])).logits[0].numpy()
    save_weights(tmp_path / "hf", tmp_path / "m.gguf", format="gguf")
    for path in (tmp_path / "hf", tmp_path / "m.gguf"):
        engine = Engine(NumpyBackend.load(open_weights(path), EngineOptions()), EngineOptions(context=64))
        np.testing.assert_allclose(logits(engine, IDS), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("bias", [{"attention_bias": True}, {"mlp_bias": True}, BOTH])
def test_formats_give_each_other_the_same_model(tmp_path, bias):
    hf = saved(tmp_path, "hf", "BF16", **bias)
    save_weights(hf, tmp_path / "m.gguf", format="gguf")
    save_weights(tmp_path / "m.gguf", tmp_path / "back", format="hf")
    assert_same(open_weights(hf), open_weights(tmp_path / "back"))


def test_biases_of_q_and_k_lie_as_llama_cpp_wants_them(tmp_path):
    """convert_hf_to_gguf permutes them like the rows of their matrices."""
    save_weights(tiny_weights(config=tiny_config(**BOTH)), tmp_path / "m.gguf", format="gguf")
    ours = tiny_weights(config=tiny_config(**BOTH)).tensors
    theirs = {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    for name, heads in (("q", 4), ("k", 2)):
        bias = ours[f"layers.1.{name}_proj.bias"].array()
        expected = bias.reshape(heads, 2, len(bias) // heads // 2).swapaxes(1, 2).reshape(bias.shape)
        np.testing.assert_array_equal(theirs[f"blk.1.attn_{name}.bias"], expected)
    for name, place in (("v_proj", "attn_v"), ("o_proj", "attn_output"), ("down_proj", "ffn_down")):
        np.testing.assert_array_equal(theirs[f"blk.1.{place}.bias"], ours[f"layers.1.{name}.bias"].array())


def test_a_gguf_with_some_of_the_biases_has_zeros_for_the_others(tmp_path):
    full = saved(tmp_path, "gguf", **BOTH)
    reader, kept = gguf.GGUFReader(full), gguf.GGUFWriter(str(tmp_path / "some.gguf"), "llama")
    for key, field in reader.fields.items():
        if key.startswith("llama."):
            kept.add_key_value(key, field.contents(), field.types[0])
    for tensor in reader.tensors:
        if not tensor.name.endswith(("attn_output.bias", "ffn_up.bias")):
            kept.add_tensor(tensor.name, np.array(tensor.data))
    kept.write_header_to_file()
    kept.write_kv_data_to_file()
    kept.write_tensors_to_file()
    kept.close()
    some, whole = open_weights(tmp_path / "some.gguf").tensors, open_weights(full).tensors
    assert list(some) == list(whole)
    for name in whole:
        absent = name.endswith(("o_proj.bias", "up_proj.bias"))
        np.testing.assert_array_equal(some[name].array(), whole[name].array() * (not absent))


def test_biases_that_config_json_does_not_name_are_refused(tmp_path):
    folder = saved(tmp_path, "hf", mlp_bias=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "mlp_bias": False}))
    with pytest.raises(CamelidError, match=r"has model\.layers\.0\.mlp\.gate_proj\.bias, .*set mlp_bias to true"):
        open_weights(folder)
    (folder / "config.json").write_text(json.dumps({**config, "attention_bias": True}))
    with pytest.raises(CamelidError, match=r"lacks layers\.0\.q_proj\.bias"):
        open_weights(folder)
    numbers = load_file(folder / "model.safetensors")
    numbers["model.layers.0.self_attn.q_proj.bias"] = np.zeros(64, np.float32)
    save_file(numbers, folder / "model.safetensors")
    with pytest.raises(CamelidError, match=r"lacks layers\.0\.k_proj\.bias"):
        open_weights(folder)


def test_meta_has_no_biases(tmp_path: Path):
    with pytest.raises(CamelidError, match="Meta's format has no biases; write hf or gguf"):
        save_weights(tiny_weights(config=tiny_config(**BOTH)), tmp_path / "meta", format="meta")
