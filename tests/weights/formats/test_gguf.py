"""GGUF models: the real one's facts, and refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from camelid.errors import CamelidError, FormatError, UnsupportedError
from camelid.model.config import RopeScaling
from camelid.model.reference import forward, logits
from camelid.model.rope import rope_table
from camelid.weights import open_weights, save_weights
from camelid.weights.formats.gguf_config import add_divisors, read_config, write_config
from camelid.weights.formats.gguf_file import GGUFFile
from tests.tiny import tiny_config
from tests.weights.models import saved, tiny_weights

gguf = pytest.importorskip("gguf")
HERE = Path("m.gguf")


def test_smollm2_header(smollm2_path: Path) -> None:
    weights = open_weights(smollm2_path)
    config = weights.config
    assert config == tiny_config(
        dim=576, n_layers=30, n_heads=9, n_kv_heads=3, head_dim=64, ffn_dim=1536, vocab_size=49152, context=8192,
        norm_eps=1e-5, rope_theta=100000.0, ties_embeddings=True,
    )  # fmt: skip
    kinds = [tensor.quant for tensor in weights.tensors.values()]
    assert {kind: kinds.count(kind) for kind in kinds} == {"Q8_0": 1, "Q4_1": 210, "F32": 61}
    assert weights.tensors["embed_tokens"].quant == "Q8_0"
    assert config.n_parameters == 134_515_008
    assert weights.stop_ids == (2,)
    assert weights.chat_template is not None
    assert weights.chat_template.startswith("{% for message in messages %}")
    assert weights.metadata["general.license"] == "apache-2.0"
    assert "tokenizer.ggml.tokens" not in weights.metadata
    assert smollm2_path.stat().st_size == 98_362_432
    assert weights.files == (smollm2_path,)


@pytest.mark.slow
def test_smollm2_tensors_are_the_packages(smollm2_path: Path) -> None:
    weights = open_weights(smollm2_path)
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(smollm2_path).tensors}
    for ours, name in (("layers.7.v_proj", "blk.7.attn_v.weight"), ("norm", "output_norm.weight")):
        expected = gguf.quants.dequantize(theirs[name].data, theirs[name].tensor_type)
        assert np.array_equal(weights.tensors[ours].array(), expected)
    expected = gguf.quants.dequantize(theirs["blk.7.attn_q.weight"].data, theirs["blk.7.attn_q.weight"].tensor_type)
    in_our_order = expected.reshape(9, 32, 2, 576).swapaxes(1, 2).reshape(576, 576)
    assert np.array_equal(weights.tensors["layers.7.q_proj"].array(), in_our_order)


@pytest.mark.model
def test_smollm2_knows_the_capital_of_france(smollm2_path: Path) -> None:
    """With q and k in the wrong order this would be noise."""
    weights = open_weights(smollm2_path)
    pieces = weights.gguf_fields["tokenizer.ggml.tokens"]
    ids = np.array([pieces.index(piece) for piece in ("The", "Ġcapital", "Ġof", "ĠFrance", "Ġis")])
    arrays = {name: tensor.array() for name, tensor in weights.tensors.items()}
    hidden = forward(weights.config, arrays, ids, *rope_table(weights.config, np.arange(5)))
    assert pieces[int(logits(weights.config, arrays, hidden)[-1].argmax())] == "ĠParis"


@pytest.mark.filterwarnings("ignore")
def test_transformers_reads_the_same_model(tmp_path: Path) -> None:
    """Another implementation of reading GGUF, its row order included."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    path = saved(tmp_path, "gguf", n_heads=4, n_kv_heads=2)
    path = path.rename(tmp_path / "m.gguf")
    model = transformers.AutoModelForCausalLM.from_pretrained(str(tmp_path), gguf_file="m.gguf")
    theirs = {name: value.float().numpy() for name, value in model.state_dict().items()}
    weights = open_weights(path)
    for ours, name in (
        ("embed_tokens", "model.embed_tokens.weight"),
        ("layers.1.q_proj", "model.layers.1.self_attn.q_proj.weight"),
        ("layers.1.k_proj", "model.layers.1.self_attn.k_proj.weight"),
        ("layers.0.down_proj", "model.layers.0.mlp.down_proj.weight"),
        ("norm", "model.norm.weight"),
        ("lm_head", "lm_head.weight"),
    ):
        assert np.array_equal(weights.tensors[ours].array(), theirs[name]), ours


def fields(**changes: Any) -> dict[str, Any]:
    values = {"general.architecture": "llama", **write_config(tiny_config())}
    values |= {f"llama.{key.replace('__', '.')}": value for key, value in changes.items()}
    return {key: value for key, value in values.items() if value is not None}


SHAPES = {"token_embd.weight": (320, 64), "output.weight": (320, 64)}


@pytest.mark.parametrize(
    "config",
    [
        tiny_config(),
        tiny_config(head_dim=32),
        tiny_config(rope_scaling=RopeScaling(rule="linear", factor=4.0)),
        tiny_config(rope_scaling=RopeScaling(rule="yarn", factor=4.0, original_context=128)),
        tiny_config(rope_scaling=RopeScaling(rule="yarn", factor=4.0, original_context=128, beta_fast=16.0)),
        tiny_config(architecture="olmo", norm="layer", clip_qkv=8.0),
        tiny_config(architecture="olmo2", norms_after=True, qk_norm=True),
    ],
)
def test_config_round_trip(config) -> None:
    assert read_config(HERE, {"general.architecture": config.architecture, **write_config(config)}, SHAPES) == config


def test_unknown_fields_that_touch_no_arithmetic_are_ignored_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    odd = {"my_note": 5, "pooling_type": 1, "attention__layer_norm_epsilon": 1e-5, "embedding_length_out": 64, "off": 0}
    assert read_config(HERE, fields(**odd), SHAPES) == tiny_config()
    assert [record.message for record in caplog.records] == ["m.gguf: unknown keys, ignored: llama.my_note"]


def test_notes_of_any_kind_in_general_fields_are_kept(tmp_path: Path) -> None:
    """Arrays of arrays, which the specification allows, among them."""
    notes = {
        "general.x": [[1, 2], [3]],
        "general.tags": ["a", "b"],
        "general.y": [["é"], []],
        "general.deep": [[[1.5]]],
    }
    weights = replace(open_weights(saved(tmp_path, "gguf")), gguf_fields={"general.architecture": "llama", **notes})
    save_weights(weights, tmp_path / "m.gguf", format="gguf")
    found = open_weights(tmp_path / "m.gguf").metadata
    assert {key: found[key] for key in notes} == notes


def test_longrope_has_its_divisors_in_tensors(tmp_path: Path) -> None:
    """As llama.cpp loads them; without them, or with one of them, the file is damaged."""
    lists = {"divisors": tuple(1.0 + n for n in range(8)), "long_divisors": tuple(2.0 + n for n in range(8))}
    scaling = RopeScaling(rule="longrope", original_context=128, attention_factor=1.25, **lists)
    weights = tiny_weights(config=tiny_config(rope_scaling=scaling))
    path = save_weights(weights, tmp_path / "m.gguf", format="gguf")
    reader = gguf.GGUFReader(path)
    found = {tensor.name: tensor.data.tolist() for tensor in reader.tensors if tensor.name.startswith("rope_")}
    assert found == {
        "rope_factors_short.weight": list(scaling.divisors),
        "rope_factors_long.weight": list(scaling.long_divisors),
    }
    assert reader.fields["llama.rope.scaling.type"].contents() == gguf.RopeScalingType.LONGROPE.value
    assert open_weights(path).config.rope_scaling == scaling
    save_weights(path, tmp_path / "hf", format="hf")
    assert open_weights(tmp_path / "hf").config.rope_scaling == scaling
    with pytest.raises(UnsupportedError, match="Meta's format has no words for 'longrope'"):
        save_weights(path, tmp_path / "meta", format="meta")


def test_dynamic_scaling_has_no_word_in_gguf(tmp_path: Path) -> None:
    scaling = RopeScaling(rule="dynamic", factor=2.0, original_context=128)
    weights = tiny_weights(config=tiny_config(context=256, rope_scaling=scaling))
    with pytest.raises(UnsupportedError, match="GGUF has no word for dynamic rope scaling; write hf"):
        save_weights(weights, tmp_path / "m.gguf", format="gguf")
    assert not list(tmp_path.iterdir())


def test_rope_freqs_divide_what_linear_scaling_divides(tmp_path: Path) -> None:
    """As llama.cpp does: both apply."""
    scaling = RopeScaling(rule="divisors", divisors=(2.0,) * 8)
    assert add_divisors(HERE, tiny_config(), np.full(8, 2.0, np.float32)) == scaling
    linear = tiny_config(rope_scaling=RopeScaling(rule="linear", factor=4.0))
    assert add_divisors(HERE, linear, np.full(8, 2.0, np.float32)) == replace(scaling, divisors=(8.0,) * 8)
    assert add_divisors(HERE, linear, np.ones(8, np.float32)) == linear.rope_scaling
    yarn = tiny_config(rope_scaling=RopeScaling(rule="yarn", factor=4.0))
    with pytest.raises(UnsupportedError, match="both yarn rope scaling and a rope_freqs tensor"):
        add_divisors(HERE, yarn, np.full(8, 2.0, np.float32))


def test_yarn_attention_factor_round_trip() -> None:
    scaling = RopeScaling(rule="yarn", factor=4.0, original_context=128, attention_factor=1.5)
    found = read_config(
        HERE, {"general.architecture": "llama", **write_config(tiny_config(rope_scaling=scaling))}, SHAPES
    )
    assert found.rope_scaling is not None
    assert found.rope_scaling.attention_factor == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"block_count": None}, FormatError, "llama.block_count is missing"),
        ({"block_count": "2"}, FormatError, "whole number"),
        ({"rope__freq_base": True}, FormatError, "must be a number"),
        ({"attention__head_count": 0}, FormatError, "0 heads"),
        ({"attention__head_count": 5, "attention__head_count_kv": 5}, FormatError, "5 heads do not divide"),
        ({"attention__head_count_kv": [2, 1]}, UnsupportedError, "differs from layer to layer"),
        ({"rope__dimension_count": 8}, UnsupportedError, "rope.dimension_count"),
        ({"attention__value_length": 8}, UnsupportedError, "value_length"),
        ({"vocab_size": 7}, FormatError, "vocab_size is 7"),
        ({"expert_count": 8}, UnsupportedError, "expert_count = 8"),
        ({"rope__scaling__type": "su"}, UnsupportedError, "'su'; supported: none, linear, yarn, longrope"),
        ({"rope__scaling__type": "longrope", "rope__scaling__factor": 2.0}, UnsupportedError, "beside longrope"),
        ({"attention__sliding_window": 4096}, UnsupportedError, "sliding_window"),
        ({"attention__something_new": 1}, UnsupportedError, "attention.something_new = 1"),
        ({"attention__causal": False}, UnsupportedError, "causal = False"),
        ({"embedding_length_out": 32}, UnsupportedError, "embedding_length_out"),
    ],
)
def test_config_refusals(changes: dict[str, Any], error: type[CamelidError], says: str) -> None:
    with pytest.raises(error, match=says):
        read_config(HERE, fields(**changes), SHAPES)


def test_config_of_layers_that_agree() -> None:
    assert read_config(HERE, fields(attention__head_count_kv=[2, 2], expert_count=0), SHAPES) == tiny_config()


def test_unknown_architecture() -> None:
    with pytest.raises(UnsupportedError, match="did you mean 'llama'"):
        read_config(HERE, {**fields(), "general.architecture": "lama"}, SHAPES)
    with pytest.raises(FormatError, match="architecture is missing"):
        read_config(HERE, {}, SHAPES)


def written(tmp_path: Path, drop: str = "", add: dict[str, np.ndarray] | None = None) -> Path:
    """A tiny model by the gguf package, with a tensor less or more."""
    path = tmp_path / "w.gguf"
    source = GGUFFile(saved(tmp_path, "gguf"))
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in write_config(tiny_config()).items():
        (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(key, value)
    for name, entry in source.entries.items():
        if name != drop:
            writer.add_tensor(name, source.blocks(entry).view("<f4").reshape(entry.shape))
    for name, value in (add or {}).items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_tensors_that_do_not_fit(tmp_path: Path) -> None:
    one = np.ones(4, np.float32)
    for drop, add, error, says in (
        ("blk.1.ffn_up.weight", {}, FormatError, "lacks layers.1.up_proj"),
        ("", {"surprise": one}, FormatError, "does not know: surprise"),
        ("output_norm.weight", {"output_norm.weight": one}, FormatError, r"norm \(4,\), not \(64,\)"),
        ("", {"blk.0.attn_q.bias": one}, FormatError, "other shapes than its config says: layers.0.q_proj.bias"),
        ("", {"blk.0.attn_norm.bias": one}, FormatError, "does not know: blk.0.attn_norm.bias"),
        ("", {"blk.0.ffn_up_exps.weight": one}, UnsupportedError, "ffn_up_exps"),
        ("", {"rope_factors_long.weight": one}, FormatError, "rope_factors_long need each other"),
        ("", {"rope_something.weight": one}, UnsupportedError, "rope_something"),
        ("", {"rope_freqs.weight": one}, FormatError, "rope_freqs is not 8 positive"),
    ):
        with pytest.raises(error, match=says):
            open_weights(written(tmp_path, drop, add))
    assert open_weights(written(tmp_path, "", {"rope_freqs.weight": np.ones(8, np.float32)})).config == tiny_config()


def test_absurd_layer_count_is_refused_quickly(tmp_path: Path) -> None:
    path = saved(tmp_path, "gguf")
    data = bytearray(path.read_bytes())
    at = data.index(b"llama.block_count") + len("llama.block_count") + 4
    data[at : at + 4] = (4_000_000_000).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(FormatError, match="n_layers must be a positive whole number up to 65536, got 4000000000"):
        open_weights(path)


def test_damaged_models_only_raise_our_errors(tmp_path: Path) -> None:
    """Any byte of the header changed: opened and read, or refused."""
    path = saved(tmp_path, "gguf")
    good, broken = path.read_bytes(), tmp_path / "broken.gguf"
    rng = np.random.default_rng(0)
    refused = 0
    for at in rng.integers(0, 2500, 150):
        data = bytearray(good)
        data[at] ^= 1 << int(rng.integers(0, 8))
        broken.write_bytes(data)
        try:
            for tensor in open_weights(broken).tensors.values():
                tensor.array()
        except CamelidError:
            refused += 1
    assert refused > 50


def test_llama3_scaling_travels_as_divisors(tmp_path: Path) -> None:
    for scaling in (
        RopeScaling(rule="llama3", factor=32.0),
        RopeScaling(rule="divisors", divisors=tuple(np.linspace(1, 3, 8).tolist())),
    ):
        path = saved(tmp_path, "gguf", rope_scaling=scaling, rope_theta=5e5)
        found = open_weights(path).config.rope_scaling
        assert found is not None
        assert (found.rule, found.factor) == (scaling.rule, scaling.factor)
        assert found.divisors == pytest.approx(scaling.divisors, rel=1e-6)
        path.unlink()


def test_quantised_rows_are_permuted_as_they_are(tmp_path: Path) -> None:
    """Row order is undone on the stored bytes: no rounding is involved."""
    weights = tiny_weights("Q4_0", norms="F32")
    found = open_weights(save_weights(weights, tmp_path / "q.gguf", format="gguf"))
    stored = GGUFFile(tmp_path / "q.gguf")
    assert not np.array_equal(
        stored.blocks(stored.entries["blk.0.attn_k.weight"]), weights.tensors["layers.0.k_proj"].blocks()
    )
    for name, tensor in weights.tensors.items():
        assert np.array_equal(found.tensors[name].blocks(), tensor.blocks()), name
