"""GGUF's fields ↔ ModelConfig. A field that might touch the arithmetic is used or refused; others are ignored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from camelid.errors import FormatError, UnsupportedError, one_of
from camelid.model.config import ModelConfig, RopeScaling
from camelid.model.family import ARCHITECTURES, Architecture
from camelid.model.rope import attention_scale, recognise_divisors
from camelid.weights.formats.unknown_keys import first_refused, warn_ignored

# Fields that change no number when they hold one of these values; None: whatever they hold.
_HARMLESS: dict[str, tuple[object, ...] | None] = {
    "rope.scaling.finetuned": None,
    "expert_count": (0,),
    "expert_used_count": (0,),
    "attention.causal": (True,),
    "attention.sliding_window": (0,),
    "use_parallel_residual": (False,),
    "leading_dense_block_count": (0,),
    "tensor_data_layout": ("Meta AI original pth", ""),
    "logit_scale": (1.0, 0.0),
    "residual_scale": (1.0, 0.0),
    "embedding_scale": (1.0, 0.0),
    "attention.scale": (0.0,),
    "rope.scaling.yarn_ext_factor": (1.0, -1.0),
    "rope.scaling.yarn_attn_factor": (1.0,),
    "rope.scaling.yarn_log_multiplier": (0.0,),
    "pooling_type": None,  # of embeddings
}


_ATTENTION_BIAS = re.compile(r"blk\.\d+\.attn_(q|k|v|output)\.bias")
_MLP_BIAS = re.compile(r"blk\.\d+\.ffn_(gate|up|down)\.bias")


def read_config(path: Path, fields: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> ModelConfig:
    """The shape of a model from its fields and its tensors' shapes (by GGUF names), scaling by `rope_freqs` aside.

    Raises:
        FormatError: a field is missing or of the wrong kind.
        UnsupportedError: another architecture, or a field with arithmetic that is not supported.
    """
    architecture = _architecture(path, fields)
    keys = _Fields(path, fields, architecture.gguf_name)
    dim, heads = keys.whole("embedding_length"), keys.whole("attention.head_count")
    if heads <= 0 or (dim % heads and not keys.has("attention.key_length")):
        raise FormatError(f"{path}: {heads} heads do not divide a width of {dim}; convert the model again")
    head_dim = keys.whole("attention.key_length", dim // heads)
    for same in ("attention.value_length", "rope.dimension_count"):
        if keys.whole(same, head_dim) != head_dim:
            raise UnsupportedError(f"{path}: {same} is {keys.whole(same)}, not the head's width {head_dim}")
    if keys.whole("embedding_length_out", dim) not in (0, dim):
        raise UnsupportedError(f"{path}: embedding_length_out is {keys.whole('embedding_length_out')}, not {dim}")
    vocab = shapes.get("token_embd.weight", (keys.whole("vocab_size", 0),))[0]
    if keys.whole("vocab_size", vocab) != vocab:
        raise FormatError(f"{path}: vocab_size is {keys.whole('vocab_size')}, but the embedding has {vocab} rows")
    config = ModelConfig(
        architecture=architecture.name,
        dim=dim,
        n_layers=keys.whole("block_count"),
        n_heads=heads,
        n_kv_heads=keys.whole("attention.head_count_kv", heads),
        head_dim=head_dim,
        ffn_dim=keys.whole("feed_forward_length"),
        vocab_size=vocab,
        context=keys.whole("context_length"),
        rope_theta=keys.real("rope.freq_base", 10000.0),
        rope_scaling=_scaling(keys),
        ties_embeddings="output.weight" not in shapes,
        attention_bias=any(_ATTENTION_BIAS.fullmatch(name) for name in shapes),
        mlp_bias=any(_MLP_BIAS.fullmatch(name) for name in shapes),
        **_switches(architecture, keys),
    )
    keys.refuse_others()
    return config


def add_long_divisors(
    path: Path, config: ModelConfig, short: NDArray[np.float32] | None, long: NDArray[np.float32] | None
) -> RopeScaling:
    """LongRoPE's scaling with the divisors of the tensors `rope_factors_short` and `rope_factors_long`."""
    scaling = config.rope_scaling
    if scaling is None or scaling.rule != "longrope" or short is None or long is None:
        raise FormatError(
            f"{path}: rope.scaling.type longrope, rope_factors_short and rope_factors_long need each other; convert it"
        )
    for values in (short, long):
        _check_divisors(path, config, "rope_factors", values)
    return replace(scaling, divisors=tuple(map(float, short)), long_divisors=tuple(map(float, long)))


def _check_divisors(path: Path, config: ModelConfig, name: str, values: NDArray[np.float32]) -> None:
    half = config.head_dim // 2
    if values.shape != (half,) or not (np.isfinite(values) & (values > 0)).all():
        raise FormatError(f"{path}: {name} is not {half} positive numbers; convert the model again")


def add_divisors(path: Path, config: ModelConfig, values: NDArray[np.float32]) -> RopeScaling | None:
    """The scaling that a `rope_freqs` tensor means; None if it divides by 1 only."""
    before = config.rope_scaling
    if before is not None and before.rule != "linear":
        raise UnsupportedError(f"{path}: both {before.rule} rope scaling and a rope_freqs tensor; convert it again")
    _check_divisors(path, config, "rope_freqs", values)
    if (values == 1).all():
        return before
    if before is not None:  # llama.cpp divides by both
        values = values * np.float32(before.factor)
    return recognise_divisors(config.head_dim, config.rope_theta, values)


def write_config(config: ModelConfig) -> dict[str, Any]:
    """The fields of a model's shape; Llama 3's scaling and all divisors are tensors instead."""
    name = ARCHITECTURES[config.architecture].gguf_name
    values: dict[str, Any] = {
        "context_length": config.context,
        "embedding_length": config.dim,
        "block_count": config.n_layers,
        "feed_forward_length": config.ffn_dim,
        "attention.head_count": config.n_heads,
        "attention.head_count_kv": config.n_kv_heads,
        "rope.dimension_count": config.head_dim,
        "rope.freq_base": config.rope_theta,
        "vocab_size": config.vocab_size,
        "attention.layer_norm_epsilon" if config.norm == "layer" else _RMS_EPS: config.norm_eps,
    }
    if config.head_dim * config.n_heads != config.dim:
        values |= {"attention.key_length": config.head_dim, "attention.value_length": config.head_dim}
    if config.clip_qkv is not None:
        values["attention.clamp_kqv"] = config.clip_qkv
    scaling = config.rope_scaling
    if scaling is not None and scaling.rule in ("linear", "yarn"):
        values |= {"rope.scaling.type": scaling.rule, "rope.scaling.factor": scaling.factor}
    if scaling is not None and scaling.rule == "yarn":
        values |= {
            "rope.scaling.original_context_length": scaling.original_context,
            "rope.scaling.yarn_beta_fast": scaling.beta_fast,
            "rope.scaling.yarn_beta_slow": scaling.beta_slow,
        }
        if scaling.attention_factor is not None:
            # Readers multiply what this field says with YaRN's own factor.
            own = attention_scale(RopeScaling(rule="yarn", factor=scaling.factor))
            values["rope.scaling.attn_factor"] = scaling.attention_factor / own
    if scaling is not None and scaling.rule == "longrope":
        values |= {
            "rope.scaling.type": "longrope",
            "rope.scaling.original_context_length": scaling.original_context,
            "rope.scaling.attn_factor": scaling.attention_factor,
        }
    return {f"{name}.{key}": value for key, value in values.items()}


_RMS_EPS = "attention.layer_norm_rms_epsilon"


class _Fields:
    """The fields of one architecture; remembers which were asked for."""

    def __init__(self, path: Path, fields: Mapping[str, Any], prefix: str) -> None:
        self.path, self.fields, self.prefix = path, fields, prefix + "."
        self.asked: set[str] = set()

    def has(self, key: str) -> bool:
        return self.prefix + key in self.fields

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(self.prefix + key)
        value = self.fields.get(self.prefix + key, default)
        if isinstance(value, list):
            if not value or any(item != value[0] for item in value):
                raise UnsupportedError(f"{self.path}: {self.prefix}{key} differs from layer to layer")
            return value[0]
        if value is None:
            raise FormatError(f"{self.path}: field {self.prefix}{key} is missing; convert the model again")
        return value

    def whole(self, key: str, default: int | None = None) -> int:
        value = self.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise FormatError(f"{self.path}: {self.prefix}{key} must be a whole number, is {str(value)[:40]!r}")
        return value

    def real(self, key: str, default: float | None = None) -> float:
        value = self.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise FormatError(f"{self.path}: {self.prefix}{key} must be a number, is {str(value)[:40]!r}")
        return float(value)

    def refuse_others(self) -> None:
        """Refuse what is left where it may touch the arithmetic; say what else is ignored."""
        unknown = {}
        for key in self.fields:
            short = key.removeprefix(self.prefix)
            if short == key or key in self.asked:
                continue
            allowed = _HARMLESS.get(short, ())
            if short not in _HARMLESS:
                unknown[short] = self.fields[key]
            elif allowed is not None and self.fields[key] not in allowed:
                self._refuse(short)
        refused = first_refused(unknown)
        if refused is not None:
            self._refuse(refused)
        warn_ignored(self.path, {self.prefix + key: value for key, value in unknown.items()})

    def _refuse(self, short: str) -> NoReturn:
        key = self.prefix + short
        raise UnsupportedError(f"{self.path}: {key} = {str(self.fields[key])[:60]} is not supported")


def _architecture(path: Path, fields: Mapping[str, Any]) -> Architecture:
    name = fields.get("general.architecture")
    known = {row.gguf_name: row for row in ARCHITECTURES.values()}
    if name is None:
        raise FormatError(f"{path}: field general.architecture is missing; convert the model again")
    if not isinstance(name, str) or name not in known:
        raise UnsupportedError(f"{path}: architecture {str(name)!r} is not supported; {one_of(str(name), known)}")
    return known[name]


def _switches(architecture: Architecture, keys: _Fields) -> dict[str, Any]:
    """How this architecture differs from Llama, and the epsilon of its norms."""
    if architecture.name == "olmo":
        clip = keys.real("attention.clamp_kqv", 0.0)
        eps = keys.real("attention.layer_norm_epsilon", 1e-5)
        return {"norm": "layer", "norm_eps": eps, "clip_qkv": clip or None}
    keys.real("attention.layer_norm_epsilon", 0.0)  # of another kind of norm: llama.cpp does not read it here either
    rms = {"norm_eps": keys.real(_RMS_EPS)}
    return {"norms_after": True, "qk_norm": True, **rms} if architecture.name == "olmo2" else rms


def _scaling(keys: _Fields) -> RopeScaling | None:
    old = keys.real("rope.scale_linear", 1.0)
    factor = keys.real("rope.scaling.factor", old) or 1.0
    rule = keys.get("rope.scaling.type", "linear")
    original = keys.whole("rope.scaling.original_context_length", 0)
    attention = keys.real("rope.scaling.attn_factor", 1.0)
    fast, slow = keys.real("rope.scaling.yarn_beta_fast", 32.0), keys.real("rope.scaling.yarn_beta_slow", 1.0)
    if rule not in ("none", "linear", "yarn", "longrope"):
        raise UnsupportedError(f"{keys.path}: rope.scaling.type {str(rule)!r}; supported: none, linear, yarn, longrope")
    if rule == "none" or (rule == "linear" and factor == 1):
        return None
    if rule == "linear":
        return RopeScaling(rule="linear", factor=factor)
    if rule == "longrope":
        if factor != 1:
            raise UnsupportedError(f"{keys.path}: rope.scaling.factor beside longrope's own divisors is not supported")
        context = original or keys.whole("context_length")
        return RopeScaling(rule="longrope", original_context=context, attention_factor=attention)
    own = attention_scale(RopeScaling(rule="yarn", factor=factor))
    return RopeScaling(
        rule="yarn",
        factor=factor,
        original_context=original or keys.whole("context_length"),
        beta_fast=fast,
        beta_slow=slow,
        attention_factor=None if attention == 1 else attention * own,
    )
