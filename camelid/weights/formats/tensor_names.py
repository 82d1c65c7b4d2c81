"""One row a tensor: our name, Hugging Face's, Meta's and GGUF's; and the order of q and k rows.

Meta rotates pairs of neighbouring rows (2i, 2i + 1), Hugging Face the two halves (i, i + head_dim / 2). The same
numbers therefore lie in another order, which a permutation of whole rows undoes: exact for quantised rows too.
camelid holds Hugging Face's order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camelid.model.config import ModelConfig
from camelid.model.family import ARCHITECTURES
from camelid.weights.quants.quant import Bytes


@dataclass(frozen=True)
class Name:
    """How the three formats call one tensor; `{}` stands for the layer's number. Meta has no words for OLMo's norms."""

    ours: str
    hf: str
    gguf: str
    meta: str | None = None


NAMES = (
    Name("embed_tokens", "model.embed_tokens.weight", "token_embd.weight", "tok_embeddings.weight"),
    Name("layers.{}.input_layernorm", "model.layers.{}.input_layernorm.weight",
         "blk.{}.attn_norm.weight", "layers.{}.attention_norm.weight"),
    Name("layers.{}.q_proj", "model.layers.{}.self_attn.q_proj.weight",
         "blk.{}.attn_q.weight", "layers.{}.attention.wq.weight"),
    Name("layers.{}.k_proj", "model.layers.{}.self_attn.k_proj.weight",
         "blk.{}.attn_k.weight", "layers.{}.attention.wk.weight"),
    Name("layers.{}.v_proj", "model.layers.{}.self_attn.v_proj.weight",
         "blk.{}.attn_v.weight", "layers.{}.attention.wv.weight"),
    Name("layers.{}.o_proj", "model.layers.{}.self_attn.o_proj.weight",
         "blk.{}.attn_output.weight", "layers.{}.attention.wo.weight"),
    Name("layers.{}.q_norm", "model.layers.{}.self_attn.q_norm.weight", "blk.{}.attn_q_norm.weight"),
    Name("layers.{}.k_norm", "model.layers.{}.self_attn.k_norm.weight", "blk.{}.attn_k_norm.weight"),
    Name("layers.{}.gate_proj", "model.layers.{}.mlp.gate_proj.weight",
         "blk.{}.ffn_gate.weight", "layers.{}.feed_forward.w1.weight"),
    Name("layers.{}.up_proj", "model.layers.{}.mlp.up_proj.weight",
         "blk.{}.ffn_up.weight", "layers.{}.feed_forward.w3.weight"),
    Name("layers.{}.down_proj", "model.layers.{}.mlp.down_proj.weight",
         "blk.{}.ffn_down.weight", "layers.{}.feed_forward.w2.weight"),
    Name("layers.{}.post_attention_layernorm", "model.layers.{}.post_attention_layernorm.weight",
         "blk.{}.ffn_norm.weight", "layers.{}.ffn_norm.weight"),
    Name("layers.{}.post_feedforward_layernorm", "model.layers.{}.post_feedforward_layernorm.weight",
         "blk.{}.post_ffw_norm.weight"),
    Name("norm", "model.norm.weight", "output_norm.weight", "norm.weight"),
    Name("lm_head", "lm_head.weight", "output.weight", "output.weight"),
    Name("score", "score.weight", "cls.output.weight"),
)  # fmt: skip

# OLMo 2 normalises what its attention gives, so GGUF calls the same Hugging Face word differently.
_GGUF_NORMS_AFTER = {"layers.{}.post_attention_layernorm": "blk.{}.post_attention_norm.weight"}

_LAYER = re.compile(r"\.(\d+)\.")


def gguf_name(ours: str, config: ModelConfig) -> str:
    """Our name → GGUF's."""
    pattern, layer = _split(ours.removesuffix(".bias"))
    if config.norms_after and pattern in _GGUF_NORMS_AFTER:
        return _GGUF_NORMS_AFTER[pattern].format(layer)
    return _like(ours, _BY_OURS[pattern].gguf.format(layer))


def hf_name(ours: str) -> str:
    """Our name → Hugging Face's."""
    pattern, layer = _split(ours.removesuffix(".bias"))
    return _like(ours, _BY_OURS[pattern].hf.format(layer))


def meta_name(ours: str) -> str:
    """Our name → Meta's. Only the llama architecture has these names."""
    pattern, layer = _split(ours)
    meta = _BY_OURS[pattern].meta
    assert meta is not None, f"{ours} has no name in Meta's format"
    return meta.format(layer)


def rows_in_order(data: Bytes, order: NDArray[np.int64]) -> Bytes:
    """Rows of a matrix, or the numbers of a plain vector (one row), in another order."""
    return data[order] if len(data) == len(order) else data.reshape(len(order), -1)[order].reshape(1, -1)


_BY_OURS = {row.ours: row for row in NAMES}


def _like(ours: str, weight: str) -> str:
    """The name of a matrix, or of its bias if `ours` is one."""
    return weight.removesuffix(".weight") + ".bias" if ours.endswith(".bias") else weight


def _split(name: str) -> tuple[str, str]:
    """A name → its row's pattern and the layer's number: `layers.3.q_proj` → `layers.{}.q_proj`, `3`."""
    match = _LAYER.search(name)
    return (name, "") if match is None else (_LAYER.sub(".{}.", name, count=1), match.group(1))


def interleaved_to_halves(rows: int, heads: int) -> NDArray[np.int64]:
    """Which row of a Meta-ordered matrix is row i of the Hugging Face-ordered one, (rows,)."""
    return np.arange(rows).reshape(heads, -1, 2).swapaxes(1, 2).ravel()


def halves_to_interleaved(rows: int, heads: int) -> NDArray[np.int64]:
    """Which row of a Hugging Face-ordered matrix is row i of the Meta-ordered one, (rows,)."""
    return np.arange(rows).reshape(heads, 2, -1).swapaxes(1, 2).ravel()


def rotated_heads(name: str, config: ModelConfig) -> int | None:
    """Heads of a tensor whose rows turn in pairs (q_proj, k_proj, their biases); None for every other tensor."""
    own = name.removesuffix(".bias").rpartition(".")[2]
    return {"q_proj": config.n_heads, "k_proj": config.n_kv_heads}.get(own)


def gguf_permutes(config: ModelConfig) -> bool:
    """Whether GGUF files of this architecture hold q and k in Meta's order."""
    return ARCHITECTURES[config.architecture].gguf_permutes_qk
