"""params.json: published files, inferred values, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from camelid.errors import CamelidError, FormatError, UnsupportedError
from camelid.model.config import RopeScaling
from camelid.model.family import FAMILY
from camelid.weights.formats.meta_config import ffn_rule, read_config, write_config
from tests.tiny import tiny_config

HERE = Path("params.json")
# As Meta ships them.
LLAMA2_7B = {"dim": 4096, "multiple_of": 256, "n_heads": 32, "n_layers": 32, "norm_eps": 1e-5, "vocab_size": -1}
LLAMA2_70B = {
    "dim": 8192, "multiple_of": 4096, "ffn_dim_multiplier": 1.3, "n_heads": 64, "n_kv_heads": 8, "n_layers": 80,
    "norm_eps": 1e-5, "vocab_size": -1,
}  # fmt: skip
LLAMA3_8B = {
    "dim": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 8, "vocab_size": 128256, "multiple_of": 1024,
    "ffn_dim_multiplier": 1.3, "norm_eps": 1e-5, "rope_theta": 500000.0,
}  # fmt: skip
LLAMA32_1B = {
    "dim": 2048, "n_layers": 16, "n_heads": 32, "n_kv_heads": 8, "vocab_size": 128256, "multiple_of": 256,
    "ffn_dim_multiplier": 1.5, "norm_eps": 1e-5, "rope_theta": 500000.0, "use_scaled_rope": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("title", "params", "vocab", "ffn", "tied"),
    [
        ("Llama 1 7B", {**LLAMA2_7B, "norm_eps": 1e-6}, 32000, 11008, False),
        ("Llama 2 7B", LLAMA2_7B, 32000, 11008, False),
        ("Llama 2 70B", LLAMA2_70B, 32000, 28672, False),
        ("Code Llama 7B", {**LLAMA2_7B, "vocab_size": 32016, "rope_theta": 1e6}, 32016, 11008, False),
        ("Llama 3 8B", LLAMA3_8B, 128256, 14336, False),
        ("Llama 3.1 8B", {**LLAMA3_8B, "use_scaled_rope": True}, 128256, 14336, False),
        ("Llama 3.2 1B", LLAMA32_1B, 128256, 8192, True),
    ],
)
def test_published_files(title: str, params: dict[str, Any], vocab: int, ffn: int, tied: bool) -> None:
    assert read_config(HERE, params, vocab, ffn, tied) == FAMILY[title].config


def test_scaling_factor_follows_the_shape_even_untied() -> None:
    """Meta's own file of a tied model holds the matrix twice; a tuned copy may differ and is still a 3.2."""
    config = read_config(HERE, LLAMA32_1B, 128256, 8192, False)
    assert config.rope_scaling == RopeScaling(rule="llama3", factor=32.0)


@pytest.mark.parametrize("title", [title for title, member in FAMILY.items() if member.shards])
def test_written_params_say_the_same(title: str) -> None:
    config = FAMILY[title].config
    params = write_config(HERE, config)
    assert ffn_rule(config.dim, params["multiple_of"], params.get("ffn_dim_multiplier")) == config.ffn_dim
    again = read_config(HERE, params, config.vocab_size, config.ffn_dim, config.ties_embeddings)
    assert replace(again, context=config.context) == config


@pytest.mark.parametrize("ffn_dim", [1, 96, 97, 171, 1000, 99991])
def test_any_width_can_be_said(ffn_dim: int) -> None:
    config = tiny_config(ffn_dim=ffn_dim)
    params = write_config(HERE, config)
    assert ffn_rule(64, params["multiple_of"], params.get("ffn_dim_multiplier")) == ffn_dim


def test_contexts_of_strangers() -> None:
    params = write_config(HERE, tiny_config())
    assert read_config(HERE, params, 320, 96, False).context == 4096
    assert read_config(HERE, {**params, "norm_eps": 1e-6}, 320, 96, False).context == 2048
    assert read_config(HERE, {**params, "use_scaled_rope": True}, 320, 96, False).context == 131072
    assert read_config(HERE, {**params, "max_seq_len": 77}, 320, 96, False).context == 77


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"dim": None}, FormatError, "dim is missing"),
        ({"n_heads": "4"}, FormatError, "n_heads must be a whole number"),
        ({"n_heads": 0}, FormatError, "0 heads"),
        ({"n_heads": 5}, FormatError, "5 heads do not divide"),
        ({"vocab_size": 5}, FormatError, "vocab_size is 5, but the output matrix has 320"),
        ({"multiple_of": 1024}, FormatError, "feed-forward width"),
        ({"rope_theta": "x"}, FormatError, "rope_theta must be a number"),
        ({"vision_chunk_size": 448}, UnsupportedError, "vision_chunk_size"),
        ({"quantization_args": {"group_size": 32}}, UnsupportedError, "quantization_args"),
        ({"lora_args": {"rank": 16}}, UnsupportedError, "lora_args"),
        ({"moe_args": {"num_experts": 16}}, UnsupportedError, "moe_args"),
    ],
)
def test_refusals(changes: dict[str, Any], error: type[CamelidError], says: str) -> None:
    with pytest.raises(error, match=says):
        read_config(HERE, {**write_config(HERE, tiny_config()), **changes}, 320, 96, False)


@pytest.mark.parametrize(
    "config",
    [
        tiny_config(head_dim=32),
        tiny_config(architecture="olmo2", norms_after=True, qk_norm=True),
        tiny_config(rope_scaling=RopeScaling(rule="linear", factor=2.0)),
        tiny_config(rope_scaling=RopeScaling(rule="llama3", factor=8.0, original_context=64)),
    ],
)
def test_what_params_json_cannot_say(config: Any) -> None:
    with pytest.raises(UnsupportedError, match="Meta's format"):
        write_config(HERE, config)
