"""config.json against transformers, and refusals."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from camelid.errors import CamelidError, FormatError, UnsupportedError
from camelid.model.config import ModelConfig, RopeScaling
from camelid.model.rope import attention_scale, inverse_frequencies
from camelid.weights.formats.hf_config import read_config, write_config
from tests.tiny import tiny_config

HERE = Path("config.json")
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}  # fmt: skip
LONGROPE = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 7 + [9.0]}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}


def keys(**changes: Any) -> dict[str, Any]:
    return {**write_config(HERE, tiny_config(), "float32"), **changes}


@pytest.mark.parametrize(
    "config",
    [
        tiny_config(),
        tiny_config(head_dim=32, ties_embeddings=True, norm_eps=1e-6, rope_theta=5e5),
        tiny_config(rope_scaling=RopeScaling(rule="linear", factor=4.0)),
        tiny_config(rope_scaling=RopeScaling(rule="llama3", factor=8.0, original_context=64)),
        tiny_config(rope_scaling=RopeScaling(rule="yarn", factor=4.0, original_context=64, attention_factor=1.25)),
        tiny_config(context=2048, rope_scaling=RopeScaling(rule="dynamic", factor=4.0, original_context=512)),
        tiny_config(
            rope_scaling=RopeScaling(
                rule="longrope",
                original_context=64,
                attention_factor=1.25,
                divisors=(1.0,) * 8,
                long_divisors=(2.0,) * 8,
            )
        ),
        tiny_config(attention_bias=True),
        tiny_config(mlp_bias=True),
        tiny_config(architecture="olmo", norm="layer", clip_qkv=8.0),
        tiny_config(architecture="olmo2", norms_after=True, qk_norm=True, norm_eps=1e-6),
    ],
)
def test_round_trip(config: ModelConfig) -> None:
    assert read_config(HERE, write_config(HERE, config, "bfloat16")) == config


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scaling", [None, {"rope_type": "linear", "factor": 2.0}, LLAMA3, YARN])
def test_frequencies_are_those_of_transformers(scaling: dict[str, Any] | None) -> None:
    """Our config, its rope rule included, means to transformers what it means to us; both spellings of the file."""
    transformers = pytest.importorskip("transformers")
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    values = keys(rope_theta=5e5, rope_scaling=scaling)
    # transformers writes into the dictionary that it is given.
    rotary = LlamaRotaryEmbedding(transformers.LlamaConfig(**copy.deepcopy(values)))
    config = read_config(HERE, values)
    assert np.allclose(inverse_frequencies(config), rotary.inv_freq.numpy(), rtol=1e-6)
    assert attention_scale(config.rope_scaling) == pytest.approx(rotary.attention_scaling)
    newer = transformers.LlamaConfig(**copy.deepcopy(values)).to_dict()
    assert newer["rope_parameters"]["rope_theta"] == 5e5
    assert read_config(HERE, newer) == config


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rope", [{}, {"factor": 8.0}, {"attention_factor": 1.5}])
@pytest.mark.parametrize("where", ["inside", "beside", "nowhere"])
def test_longrope_is_that_of_transformers(rope: dict[str, Any], where: str) -> None:
    """Its attention factor from whichever numbers the file has, and both places of the original context."""
    import torch
    import transformers
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    values = keys(rope_scaling={**LONGROPE, **rope})
    if where != "nowhere":
        (values["rope_scaling"] if where == "inside" else values)["original_max_position_embeddings"] = 128
    rotary = LlamaRotaryEmbedding(transformers.LlamaConfig(**copy.deepcopy(values)))
    config = read_config(HERE, values)
    original = 128 if where != "nowhere" else 512
    assert attention_scale(config.rope_scaling) == pytest.approx(rotary.attention_scaling)
    for length in (original, original + 1):
        rotary(torch.zeros(1), torch.tensor([[length - 1]]))
        np.testing.assert_allclose(inverse_frequencies(config, length), rotary.inv_freq.numpy(), rtol=1e-6)


def test_older_spelling_and_defaults() -> None:
    values = keys(rope_scaling={"type": "linear", "factor": 2})
    for absent in ("num_key_value_heads", "head_dim", "rope_theta", "rms_norm_eps", "tie_word_embeddings"):
        del values[absent]
    config = read_config(HERE, values)
    assert (config.n_kv_heads, config.head_dim, config.rope_theta, config.norm_eps) == (4, 16, 10000.0, 1e-6)
    assert config.rope_scaling == RopeScaling(rule="linear", factor=2.0)
    assert not config.ties_embeddings


def test_notes_in_rope_scaling_are_ignored_as_transformers_does() -> None:
    """The first YaRN models say `finetuned`."""
    noted = {**YARN, "finetuned": True, "attention_factor": None, "off": False}
    assert read_config(HERE, keys(rope_scaling=noted)) == read_config(HERE, keys(rope_scaling=YARN))


def test_yarn_constants_of_deepseek() -> None:
    config = read_config(HERE, keys(rope_scaling={**YARN, "mscale": 1.0, "mscale_all_dim": 0.5}))
    # (0.1 ln 4 + 1) / (0.05 ln 4 + 1)
    assert attention_scale(config.rope_scaling) == pytest.approx(1.064822)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"model_type": "mistral"}, UnsupportedError, "'mistral' is not supported"),
        ({"model_type": None}, FormatError, "model_type is missing"),
        ({"architectures": ["LlamaForTokenClassification"]}, UnsupportedError, "LlamaForTokenClassification"),
        ({"architectures": ["LlamaForSequenceClassification"]}, UnsupportedError, "gives 2 numbers a text"),
        ({"architectures": 4}, UnsupportedError, "architectures 4 is not supported"),
        ({"quantization_config": {"bits": 4}}, UnsupportedError, "quantization_config"),
        ({"attention_bias": "yes"}, FormatError, "attention_bias must be true or false"),
        ({"is_causal": False}, UnsupportedError, "is_causal = False"),
        ({"layer_types": ["full_attention"]}, UnsupportedError, "layer_types"),
        ({"embedding_multiplier": 12.0}, UnsupportedError, "embedding_multiplier = 12.0"),
        ({"num_local_experts": 8}, UnsupportedError, "num_local_experts = 8"),
        ({"vision_config": {"depth": 1}}, UnsupportedError, "vision_config"),
        ({"hidden_act": "gelu"}, UnsupportedError, "hidden_act = gelu"),
        ({"sliding_window": 4096}, UnsupportedError, "sliding_window = 4096"),
        ({"partial_rotary_factor": 0.5}, UnsupportedError, "partial_rotary_factor = 0.5"),
        ({"rope_interleaved": True}, UnsupportedError, "rope_interleaved"),
        ({"logit_scale": 0.5}, UnsupportedError, "logit_scale = 0.5"),
        ({"rope_scaling": {"rope_type": "mrope", "mrope_section": [2, 3, 3]}}, UnsupportedError, "mrope"),
        ({"rope_scaling": {"rope_type": "longrope"}}, FormatError, "needs short_factor, a list"),
        ({"rope_scaling": {**LONGROPE, "long_factor": [1.0] * 7}}, FormatError, "needs 8 divisors"),
        ({"rope_scaling": {**LONGROPE, "long_factor": [0.0] * 8}}, FormatError, "must be positive numbers"),
        ({"rope_scaling": {**LONGROPE, "short_factor": ["1"] * 8}}, FormatError, "short_factor must be a number"),
        ({"rope_scaling": {"rope_type": "dynamic"}}, FormatError, "needs factor"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0, "alpha": 8}}, UnsupportedError, "alpha"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, FormatError, "needs low_freq_factor"),
        ({"rope_scaling": {**YARN, "truncate": False}}, UnsupportedError, "truncate"),
        ({"rope_scaling": {**YARN, "something": True}}, UnsupportedError, "something"),
        (
            {"rope_scaling": {"rope_type": "linear", "factor": 2.0}, "rope_parameters": {"rope_type": "default"}},
            FormatError,
            "rope_scaling and rope_parameters differ in rope_type",
        ),
        ({"rope_scaling": {"rope_type": "linear", "factor": -1.0}}, FormatError, "must be positive"),
        ({"rope_scaling": {"rope_type": "linear", "factor": "2"}}, FormatError, "must be a number"),
        ({"rope_scaling": {"rope_type": "linear", "factor": float("nan")}}, FormatError, "must be a number"),
        ({"rope_scaling": 8}, FormatError, "must be an object"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, UnsupportedError, "layer to layer"),
        ({"rope_parameters": {"rope_theta": 5e5}}, FormatError, "rope_theta is 10000.0, but 500000.0"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, UnsupportedError, "partial_rotary_factor"),
        ({"hidden_size": None}, FormatError, "hidden_size is missing"),
        ({"hidden_size": "64"}, FormatError, "hidden_size must be a whole number"),
        ({"num_attention_heads": 0}, FormatError, "0 heads"),
        ({"num_hidden_layers": -1}, FormatError, "n_layers must be a positive"),
        ({"tie_word_embeddings": "no"}, FormatError, "must be true or false"),
        ({"rms_norm_eps": 0}, FormatError, "norm_eps must be a positive number"),
    ],
)
def test_refusals(changes: dict[str, Any], error: type[CamelidError], says: str) -> None:
    with pytest.raises(error, match=says):
        read_config(HERE, keys(**changes))


def test_harmless_keys_pass() -> None:
    odd = {"_name_or_path": "x", "pretraining_tp": 2, "use_cache": False, "transformers.js_config": {"a": 1}}
    odd |= {"sliding_window": None, "partial_rotary_factor": 1.0, "is_llama_config": True, "new_key_that_is_off": False}
    assert read_config(HERE, keys(**odd)) == tiny_config()


def test_unknown_keys_that_touch_no_arithmetic_are_ignored_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    odd = {"max_sequence_length": 2048, "my_training_note": "x", "training_args": {"lr": 1}, "use_flash_attn": True}
    odd |= {"neftune_noise_alpha": 5, "attention_softmax_in_fp32": True, "off": False, "none": None, "zero": 0.0}
    odd |= {"architectures": ["LLaMAForCausalLM"]}  # as the first conversions of Llama 1 say
    assert read_config(HERE, keys(**odd)) == tiny_config()
    (record,) = caplog.records
    names = "max_sequence_length, my_training_note, training_args, use_flash_attn, neftune_noise_alpha"
    assert record.message == f"config.json: unknown keys, ignored: {names} and 1 more"
    caplog.clear()
    assert read_config(HERE, keys(off=False)) == tiny_config()
    assert not caplog.records


@given(st.text(), st.one_of(st.integers(1), st.text(min_size=1), st.just(True), st.lists(st.integers(), min_size=1)))
def test_any_key_is_ignored_or_refused_in_one_line(key: str, value: object) -> None:
    known = keys()
    assume(key not in known)
    with contextlib.suppress(UnsupportedError, FormatError):
        assert read_config(HERE, {**known, key: value}) == tiny_config()


def test_what_config_json_cannot_say() -> None:
    scaling = RopeScaling(rule="divisors", divisors=(1.0,) * 8)
    for config in (
        tiny_config(rope_scaling=scaling),
        tiny_config(n_heads=6, n_kv_heads=2),
        tiny_config(architecture="olmo", norm="layer", head_dim=32),
    ):
        with pytest.raises(UnsupportedError):
            write_config(HERE, config, "float32")
