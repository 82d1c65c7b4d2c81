"""Any format to any format: bit for bit where numbers are plain, as documented where they are rounded."""

from __future__ import annotations

import itertools
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from camelid.errors import NumericsError, OptionError
from camelid.model.config import RopeScaling
from camelid.weights import QUANTS, Tensor, open_weights, save_weights
from camelid.weights.quants import UNQUANTISED, dequantise_rows, quantise_rows
from tests.tiny import tiny_config
from tests.weights.models import assert_same, tiny_weights

STEPS = [("hf", 1), ("hf", 3), ("meta", 1), ("meta", 2), ("meta", 4), ("gguf", 1)]
CARRIED = ("chat_template", "stop_ids", "load_tokenizer")  # what is not numbers
CONFIGS = {
    "grouped": tiny_config(),
    "tied": tiny_config(ties_embeddings=True, n_heads=8, n_kv_heads=1, head_dim=8),
    "scaled": tiny_config(rope_theta=5e5, rope_scaling=RopeScaling(rule="llama3", factor=32.0), context=131072),
}


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("quant", UNQUANTISED)
def test_every_path_gives_the_same_tensors(tmp_path: Path, quant: str, config) -> None:
    weights = tiny_weights(quant, config=config)
    for number, (first, second) in enumerate(itertools.product(STEPS, STEPS)):
        middle = save_weights(weights, tmp_path / f"{number}a", format=first[0], shards=first[1])
        found = open_weights(save_weights(middle, tmp_path / f"{number}b", format=second[0], shards=second[1]))
        # A GGUF keeps norms as F32.
        assert_same(found, weights, quants=second[0] != "gguf")


@pytest.mark.parametrize(
    "config",
    [
        tiny_config(architecture="olmo", norm="layer", clip_qkv=8.0),
        tiny_config(architecture="olmo2", norms_after=True, qk_norm=True, rope_theta=5e5),
    ],
    ids=lambda config: config.architecture,
)
def test_olmo(tmp_path: Path, config) -> None:
    weights = tiny_weights("BF16", config=config)
    middle = save_weights(weights, tmp_path / "m.gguf", format="gguf")
    assert_same(open_weights(save_weights(middle, tmp_path / "m", format="hf")), weights)


@pytest.mark.parametrize("format", ["hf", "meta", "gguf"])
@pytest.mark.parametrize("dtype", UNQUANTISED)
def test_a_dtype_that_was_asked_for(tmp_path: Path, format: str, dtype: str) -> None:
    weights = tiny_weights("F32")
    found = open_weights(save_weights(weights, tmp_path / "m", format=format, quant=dtype))
    for name, tensor in weights.tensors.items():
        expected = tensor.array()
        if format != "gguf" or expected.ndim > 1:
            flat = quantise_rows(QUANTS[dtype], expected.reshape(1, -1))
            expected = dequantise_rows(QUANTS[dtype], flat).reshape(expected.shape)
            assert found.tensors[name].quant == dtype
        assert np.array_equal(found.tensors[name].array(), expected)


def test_norms_that_16_bits_cannot_hold_stay_as_they_are(tmp_path: Path) -> None:
    weights = tiny_weights("BF16", norms="F32")
    found = open_weights(save_weights(weights, tmp_path / "m", format="hf"))
    assert found.tensors["norm"].quant == "F32"
    assert_same(found, weights)


@pytest.mark.parametrize("format", ["hf", "meta"])
def test_quantised_sources_become_f16_and_that_is_said(
    tmp_path: Path, format: str, caplog: pytest.LogCaptureFixture
) -> None:
    weights = tiny_weights("Q8_0", norms="F32")
    with caplog.at_level(logging.WARNING):
        found = open_weights(save_weights(weights, tmp_path / "m", format=format))
    assert "quantised weights are written as F16" in caplog.text
    for name, tensor in weights.tensors.items():
        expected = tensor.array()
        assert found.tensors[name].quant == ("F16" if expected.ndim > 1 else "F32")
        if expected.ndim > 1:
            expected = expected.astype(np.float16).astype(np.float32)
        assert np.array_equal(found.tensors[name].array(), expected)


def test_embedding_and_output_are_kept_better(tmp_path: Path) -> None:
    weights = tiny_weights(config=tiny_config(dim=256, head_dim=64, ffn_dim=512))
    for quant, best in (("Q4_0", "Q6_K"), ("Q4_K", "Q6_K"), ("Q8_0", "Q8_0"), ("BF16", "BF16")):
        found = open_weights(save_weights(weights, tmp_path / quant, format="gguf", quant=quant))
        kinds = {name.rpartition(".")[2]: tensor.quant for name, tensor in found.tensors.items()}
        assert (kinds["embed_tokens"], kinds["lm_head"], kinds["q_proj"], kinds["norm"]) == (best, best, quant, "F32")


def test_rows_that_blocks_do_not_divide(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = tiny_weights(config=tiny_config(ffn_dim=100))
    with caplog.at_level(logging.WARNING):
        found = open_weights(save_weights(weights, tmp_path / "m", format="gguf", quant="Q4_K"))
    # 64 is a multiple of 32 only, 100 of neither.
    assert found.tensors["layers.0.up_proj"].quant == "Q8_0"
    assert found.tensors["layers.0.down_proj"].quant == "F16"
    assert "rows are no multiple of a block: stored embed_tokens as Q8_0" in caplog.text


def test_same_kind_is_not_rounded_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = tiny_weights("Q8_0", norms="F32")
    with caplog.at_level(logging.WARNING):
        found = open_weights(save_weights(weights, tmp_path / "m", format="gguf", quant="Q8_0"))
        assert "rounded" not in caplog.text
        assert "no tokenizer" in caplog.text
        save_weights(weights, tmp_path / "n", format="gguf", quant="Q4_0")
    assert "rounded twice" in caplog.text
    for name, tensor in weights.tensors.items():
        assert np.array_equal(found.tensors[name].blocks(), tensor.blocks())


@pytest.mark.parametrize(("quant", "value"), [("F16", 65600.0), ("Q8_0", 1e6), ("F16", np.inf), ("Q4_0", np.nan)])
def test_numbers_that_do_not_fit(tmp_path: Path, quant: str, value: float) -> None:
    weights = tiny_weights()
    array = weights.tensors["layers.1.up_proj"].array()
    array[3, 4] = value
    tensors = {**weights.tensors, "layers.1.up_proj": Tensor.from_array("layers.1.up_proj", array)}
    weights.tensors = tensors
    with pytest.raises(NumericsError, match=r"layers\.1\.up_proj: holds"):
        save_weights(weights, tmp_path / "m", format="gguf", quant=quant)
    assert not list(tmp_path.iterdir())
    if np.isfinite(value):
        assert save_weights(weights, tmp_path / "m", format="gguf", quant="BF16").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"format": "safetensors"}, "no such format 'safetensors'"),
        ({"format": "gguf", "quant": "Q4_M"}, "'Q4_M' cannot be written"),
        ({"format": "gguf", "quant": "Q2_K"}, "'Q2_K' cannot be written"),
        ({"format": "hf", "quant": "Q8_0"}, "'Q8_0' cannot be written to format hf; .*BF16"),
        ({"format": "meta", "shards": 0}, "shards: must be 1 or more"),
        ({"format": "gguf", "shards": 2}, "one file"),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: dict, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        save_weights(tiny_weights(), tmp_path / "m", **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_tokenizer_travels(tmp_path: Path, smollm2_path: Path) -> None:
    """GGUF → Hugging Face → GGUF: same ids, template and stop ids; transformers opens the folder in between."""
    source = open_weights(smollm2_path)
    # The vocabulary is the real one; the matrices are kept tiny.
    config = tiny_config(vocab_size=source.config.vocab_size, dim=8, head_dim=2, ties_embeddings=True)
    small = replace(tiny_weights("F16", config=config), **{name: getattr(source, name) for name in CARRIED})
    folder = save_weights(small, tmp_path / "m", format="hf")
    back = open_weights(save_weights(folder, tmp_path / "m.gguf", format="gguf"))
    for weights in (open_weights(folder), back):
        assert weights.tokenizer.fingerprint() == source.tokenizer.fingerprint()
        assert (weights.chat_template, weights.stop_ids) == (source.chat_template, source.stop_ids)
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    text = "Ein Kamel 1234 trinkt\n\n  120 Liter — ✓"
    assert theirs.encode(text, add_special_tokens=False) == source.tokenizer.encode(text)
    assert (theirs.bos_token, theirs.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert theirs.chat_template == source.chat_template
    talk = [{"role": "user", "content": "Hi"}]
    assert "<|im_start|>user\nHi<|im_end|>" in theirs.apply_chat_template(talk, tokenize=False)
