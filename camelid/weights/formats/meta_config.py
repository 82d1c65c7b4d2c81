"""params.json ↔ ModelConfig. Meta's files leave much unsaid; what is inferred, and from what, is written here.

absent            taken as                                                     source
n_kv_heads        n_heads                                                      Meta's reference code
vocab_size −1     rows of the output matrix                                    Llama 2's files
rope_theta        10000                                                        Llama 1 and 2's files
context           camelid.json, else the family's member of this shape, else
                  131072 with use_scaled_rope, 2048 with eps 1e-6, 4096        model cards
scaling factor    the family's member of this shape, else 8                    see `_scaling`
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from camelid.errors import FormatError, UnsupportedError
from camelid.model.config import ModelConfig, RopeScaling
from camelid.model.family import FAMILY, recognise
from camelid.weights.formats.hf_config import number

_KNOWN = frozenset(
    """dim n_layers n_heads n_kv_heads vocab_size multiple_of ffn_dim_multiplier norm_eps
    rope_theta use_scaled_rope max_seq_len max_batch_size""".split()  # noqa: SIM905
)
_LLAMA3_FACTORS = (8.0, 32.0)  # Llama 3.1 and 3.3; Llama 3.2
# Known (multiple_of, ffn_dim_multiplier) of published models, tried before one is made up.
_FFN_RULES = ((256, None), (1024, 1.3), (4096, 1.3), (256, 1.5), (256, 1.0), (4096, 1.2))


def read_config(path: Path, values: Mapping[str, Any], vocab_size: int, ffn_dim: int, tied: bool) -> ModelConfig:
    """The shape of a model from params.json at `path`; vocabulary and feed-forward width as the tensors have them.

    Raises:
        FormatError: a key is missing, of the wrong kind, or contradicts the tensors.
        UnsupportedError: a key with arithmetic that is not supported.
    """
    for key, value in values.items():
        if key not in _KNOWN and value not in (None, False, -1):
            raise UnsupportedError(f"{path}: {key} = {str(value)[:60]} is not supported")
    dim, heads = _whole(path, values, "dim"), _whole(path, values, "n_heads")
    if heads <= 0 or dim % heads:
        raise FormatError(f"{path}: {heads} heads do not divide a width of {dim}; correct the file")
    if _whole(path, values, "vocab_size", -1) not in (-1, vocab_size):
        raise FormatError(f"{path}: vocab_size is {values['vocab_size']}, but the output matrix has {vocab_size} rows")
    if "multiple_of" in values:
        multiple, factor = _whole(path, values, "multiple_of"), values.get("ffn_dim_multiplier")
        ruled = ffn_rule(dim, multiple, None if factor is None else number(path, "ffn_dim_multiplier", factor))
        if ruled != ffn_dim:
            raise FormatError(f"{path}: the file's rule makes a feed-forward width of {ruled}, the tensors {ffn_dim}")
    config = ModelConfig(
        dim=dim,
        n_layers=_whole(path, values, "n_layers"),
        n_heads=heads,
        n_kv_heads=_whole(path, values, "n_kv_heads", heads),
        head_dim=dim // heads,
        ffn_dim=ffn_dim,
        vocab_size=vocab_size,
        norm_eps=number(path, "norm_eps", values.get("norm_eps", 1e-5)),
        rope_theta=number(path, "rope_theta", values.get("rope_theta") or 10000.0),
        ties_embeddings=tied,
    )
    if values.get("use_scaled_rope"):
        config = replace(config, rope_scaling=_scaling(config))
    return replace(config, context=_context(path, config, values))


def ffn_rule(dim: int, multiple_of: int, multiplier: float | None) -> int:
    """Width of the feed-forward block by Meta's rule: two thirds of 4 · dim, scaled, rounded up to a multiple."""
    width = int(2 * (4 * dim) / 3)
    if multiplier is not None:
        width = int(multiplier * width)
    return multiple_of * -(-width // multiple_of) if multiple_of > 0 else width


def write_config(path: Path, config: ModelConfig) -> dict[str, Any]:
    """The keys of params.json for this shape; `path` is for errors.

    Raises:
        UnsupportedError: Meta's format has no words for this model.
    """
    scaling = config.rope_scaling
    if config.architecture != "llama":
        raise UnsupportedError(f"{path}: Meta's format holds llama only, not {config.architecture}; write hf or gguf")
    if config.attention_bias or config.mlp_bias:
        raise UnsupportedError(f"{path}: Meta's format has no biases; write hf or gguf")
    if config.head_dim * config.n_heads != config.dim:
        raise UnsupportedError(f"{path}: Meta's format has no head_dim other than dim / n_heads; write hf or gguf")
    if scaling is not None and replace(scaling, factor=8.0) != RopeScaling(rule="llama3", factor=8.0):
        raise UnsupportedError(
            f"{path}: Meta's format has no words for {scaling.rule!r} rope scaling with these constants; "
            "write hf or gguf"
        )
    multiple_of, multiplier = _ffn_words(config.dim, config.ffn_dim)
    values: dict[str, Any] = {
        "dim": config.dim,
        "n_layers": config.n_layers,
        "n_heads": config.n_heads,
        "n_kv_heads": config.n_kv_heads,
        "vocab_size": config.vocab_size,
        "multiple_of": multiple_of,
        "ffn_dim_multiplier": multiplier,
        "norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
    }
    if scaling is not None:
        values["use_scaled_rope"] = True
    return {key: value for key, value in values.items() if value is not None}


def _ffn_words(dim: int, ffn_dim: int) -> tuple[int, float | None]:
    """multiple_of and ffn_dim_multiplier that make the rule give `ffn_dim`."""
    for multiple_of, multiplier in _FFN_RULES:
        if ffn_rule(dim, multiple_of, multiplier) == ffn_dim:
            return multiple_of, multiplier
    multiplier = ffn_dim / int(2 * (4 * dim) / 3)
    assert ffn_rule(dim, ffn_dim, multiplier) == ffn_dim
    return ffn_dim, multiplier


def _scaling(config: ModelConfig) -> RopeScaling:
    """Llama 3's scaling. Meta's reference code divides by 8 for every model; the published Llama 3.2 configs say 32.

    The file says neither, so the shape decides: that of a known member with 32 gets 32, every other one 8.
    """
    for factor in _LLAMA3_FACTORS:
        scaling = RopeScaling(rule="llama3", factor=factor)
        if any(recognise(replace(config, rope_scaling=scaling, ties_embeddings=tied)) for tied in (False, True)):
            return scaling
    return RopeScaling(rule="llama3", factor=_LLAMA3_FACTORS[0])


def _context(path: Path, config: ModelConfig, values: Mapping[str, Any]) -> int:
    if values.get("max_seq_len") is not None:
        return _whole(path, values, "max_seq_len")
    title = recognise(config)
    if title is not None:
        return FAMILY[title].config.context
    if config.rope_scaling is not None:
        return 131072
    return 2048 if math.isclose(config.norm_eps, 1e-6) else 4096


def _whole(path: Path, values: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = values.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool):
        what = "is missing" if value is None else f"must be a whole number, is {str(value)[:40]!r}"
        raise FormatError(f"{path}: {key} {what}; correct the file")
    return value
