"""The family: which architectures camelid reads, and the exact shape of each member.

Adding a member whose arithmetic is known is one row of `FAMILY`. New arithmetic is a switch in `ModelConfig` and a
branch in each telling of the forward pass, then a row of `ARCHITECTURES`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from camelid.model.config import ModelConfig, RopeScaling


@dataclass(frozen=True)
class Architecture:
    """How one kind of arithmetic is called in files."""

    name: str
    hf_model_type: str
    hf_class: str
    gguf_name: str
    gguf_permutes_qk: bool  # GGUF keeps q and k rows in Meta's interleaved order


ARCHITECTURES = {
    row.name: row
    for row in (
        Architecture("llama", "llama", "LlamaForCausalLM", "llama", gguf_permutes_qk=True),
        Architecture("olmo", "olmo", "OlmoForCausalLM", "olmo", gguf_permutes_qk=True),
        Architecture("olmo2", "olmo2", "Olmo2ForCausalLM", "olmo2", gguf_permutes_qk=False),
    )
}


@dataclass(frozen=True)
class Member:
    """One published model: its title, its shape, and the Meta shards it came in (0: not published by Meta)."""

    title: str
    config: ModelConfig
    shards: int = 0


def _shape(dim: int, layers: int, heads: int, kv_heads: int, ffn: int, vocab: int, **rest: Any) -> ModelConfig:
    return ModelConfig(
        dim=dim,
        n_layers=layers,
        n_heads=heads,
        n_kv_heads=kv_heads,
        head_dim=dim // heads,
        ffn_dim=ffn,
        vocab_size=vocab,
        **rest,
    )


_LLAMA1 = {"norm_eps": 1e-6, "context": 2048}
_LLAMA2 = {"context": 4096}
_CODE = {"context": 16384, "rope_theta": 1e6}
_LLAMA3 = {"context": 8192, "rope_theta": 5e5}
_LLAMA31 = {"context": 131072, "rope_theta": 5e5, "rope_scaling": RopeScaling(rule="llama3", factor=8.0)}
_LLAMA32 = {**_LLAMA31, "rope_scaling": RopeScaling(rule="llama3", factor=32.0), "ties_embeddings": True}
_SMOL2 = {"context": 8192, "ties_embeddings": True}
_OLMO = {"architecture": "olmo", "norm": "layer", "context": 2048}
_OLMO2 = {"architecture": "olmo2", "norms_after": True, "qk_norm": True, "norm_eps": 1e-6, "rope_theta": 5e5}

_LLAMA2_7B = _shape(4096, 32, 32, 32, 11008, 32000, **_LLAMA2)
_LLAMA3_8B = _shape(4096, 32, 32, 8, 14336, 128256, **_LLAMA3)
_LLAMA31_8B = _shape(4096, 32, 32, 8, 14336, 128256, **_LLAMA31)
_LLAMA32_1B = _shape(2048, 16, 32, 8, 8192, 128256, **_LLAMA32)

FAMILY = {
    row.title: row
    for row in (
        Member("Llama 1 7B", _shape(4096, 32, 32, 32, 11008, 32000, **_LLAMA1), 1),
        Member("Llama 1 13B", _shape(5120, 40, 40, 40, 13824, 32000, **_LLAMA1), 2),
        Member("Llama 1 33B", _shape(6656, 60, 52, 52, 17920, 32000, **_LLAMA1), 4),
        Member("Llama 1 65B", _shape(8192, 80, 64, 64, 22016, 32000, **_LLAMA1), 8),
        Member("Llama 2 7B", _LLAMA2_7B, 1),
        Member("Llama 2 13B", _shape(5120, 40, 40, 40, 13824, 32000, **_LLAMA2), 2),
        Member("Llama 2 70B", _shape(8192, 80, 64, 8, 28672, 32000, **_LLAMA2), 8),
        Member("Code Llama 7B", _shape(4096, 32, 32, 32, 11008, 32016, **_CODE), 1),
        Member("Code Llama 13B", _shape(5120, 40, 40, 40, 13824, 32016, **_CODE), 2),
        Member("Code Llama 34B", _shape(8192, 48, 64, 8, 22016, 32000, **_CODE), 4),
        Member("Code Llama 70B", _shape(8192, 80, 64, 8, 28672, 32016, **_CODE), 8),
        Member("Code Llama 7B Python", _shape(4096, 32, 32, 32, 11008, 32000, **_CODE), 1),
        Member("Code Llama 13B Python", _shape(5120, 40, 40, 40, 13824, 32000, **_CODE), 2),
        Member("Llama 3 8B", _LLAMA3_8B, 1),
        Member("Llama 3 70B", _shape(8192, 80, 64, 8, 28672, 128256, **_LLAMA3), 8),
        Member("Llama 3.1 8B", _LLAMA31_8B, 1),
        Member("Llama 3.1 70B", _shape(8192, 80, 64, 8, 28672, 128256, **_LLAMA31), 8),
        Member("Llama 3.1 405B", _shape(16384, 126, 128, 8, 53248, 128256, **_LLAMA31), 8),
        Member("Llama 3.2 1B", _LLAMA32_1B, 1),
        Member("Llama 3.2 3B", _shape(3072, 28, 24, 8, 8192, 128256, **_LLAMA32), 1),
        Member("Llama 3.3 70B", _shape(8192, 80, 64, 8, 28672, 128256, **_LLAMA31), 8),
        # A guard has the shape of the model it was tuned from; its prompt makes the difference.
        Member("Llama Guard 1 7B", _LLAMA2_7B, 1),
        Member("Llama Guard 2 8B", _LLAMA3_8B, 1),
        Member("Llama Guard 3 8B", _LLAMA31_8B, 1),
        Member("Llama Guard 3 1B", _LLAMA32_1B, 1),
        Member("TinyLlama 1.1B", _shape(2048, 22, 32, 4, 5632, 32000, context=2048)),
        Member("SmolLM2 135M", _shape(576, 30, 9, 3, 1536, 49152, rope_theta=1e5, **_SMOL2)),
        Member("SmolLM2 360M", _shape(960, 32, 15, 5, 2560, 49152, rope_theta=1e5, **_SMOL2)),
        Member("SmolLM2 1.7B", _shape(2048, 24, 32, 32, 8192, 49152, rope_theta=1.3e5, **_SMOL2)),
        Member("OLMo 1B", _shape(2048, 16, 16, 16, 8192, 50304, ties_embeddings=True, **_OLMO)),
        Member("OLMo 7B", _shape(4096, 32, 32, 32, 11008, 50304, **_OLMO)),
        Member("OLMo 2 1B", _shape(2048, 16, 16, 16, 8192, 100352, context=4096, **_OLMO2)),
        Member("OLMo 2 7B", _shape(4096, 32, 32, 32, 11008, 100352, context=4096, **_OLMO2)),
    )
}


def recognise(config: ModelConfig) -> str | None:
    """Title of the first member with this shape, the context aside if no member has that too; None for a stranger.

    Several members share a shape (a guard and its base), so this names a shape, not a training.
    """
    same = [row for row in FAMILY.values() if _same(row.config, config, but=("context",))]
    exact = [row for row in same if row.config.context == config.context]
    rows = exact or same
    return rows[0].title if rows else None


def _same(one: ModelConfig, other: ModelConfig, but: tuple[str, ...]) -> bool:
    other = replace(other, **{name: getattr(one, name) for name in but})
    return all(_alike(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))


def _alike(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= 1e-6 * abs(one)  # files hold some of these as float32
    return one == other
