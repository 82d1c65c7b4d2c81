"""The forward pass of a Llama in NumPy: the definition, made to be read and observed.

T new ids, L positions in all (earlier ones from the cache, then the new ones), D width, H query heads,
K key/value heads, G = H / K query heads that share one, E width of a head, F feed-forward width, V vocabulary.

Touvron et al. 2023 (arXiv:2302.13971, arXiv:2307.09288): pre-norm RMSNorm, rotary embedding, SwiGLU, no biases
(but transformers' Llama can have them, and some descendants do).
`llama_torch.py` and the C++ engine say the same in the same order with the same names; a test holds them together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from camelid.model.config import ModelConfig

Array = NDArray[np.float32]
Cache = Sequence[tuple[Array, Array]]  # a layer's keys and values, each (L, K, E)
Observe = Callable[[str, int, Array], None]  # called with what, layer, value


def forward(
    config: ModelConfig,
    tensors: Mapping[str, Array],
    ids: NDArray[np.int64],
    cos: Array,
    sin: Array,
    cache: Cache | None = None,
    observe: Observe | None = None,
) -> Array:
    """Hidden state of each new id after the final norm, (T, D).

    Args:
        config: the shape.
        tensors: float32 arrays named and shaped as `tensor_shapes(config)` says; beside a layer's matrix may stand
            `NAME.lora_A` (rank, in) and `NAME.lora_B` (out, rank), of which lora_B · lora_A is added to it.
        ids: new ids, (T,).
        cos, sin: `rope_table` for the new ids' positions, (T, E/2).
        cache: for each layer keys and values (L, K, E); the last T rows are written here. None: nothing came before.
        observe: is shown `embedding` (layer 0), then for each layer `query` (rotated, (T, H, E)), `attention_weights`
            (H, T, L), `attention` and `feed_forward` (what each block adds, (T, D)) and `residual` (the stream after
            the layer, (T, D)).
    """
    show = observe or (lambda what, layer, value: None)
    cache = cache if cache is not None else empty_cache(config, len(ids))
    x = tensors["embed_tokens"][ids]  # (T, D)
    show("embedding", 0, x)
    for layer, (keys, values) in enumerate(cache):
        weights = _Layer(config, tensors, layer)

        h = x if config.norms_after else weights.norm(x, "input_layernorm")
        q, k, v = _project(config, weights, h)  # (T, H, E), (T, K, E), (T, K, E)
        q, keys[-len(ids) :], values[-len(ids) :] = rotate(q, cos, sin), rotate(k, cos, sin), v
        show("query", layer, q)
        mixed, attention_weights = attend(q, keys, values)  # (T, H·E), (H, T, L)
        show("attention_weights", layer, attention_weights)
        added = weights.project(mixed, "o_proj")  # (T, D)
        added = weights.norm(added, "post_attention_layernorm") if config.norms_after else added
        show("attention", layer, added)
        x = x + added

        h = x if config.norms_after else weights.norm(x, "post_attention_layernorm")
        gate, up = weights.project(h, "gate_proj"), weights.project(h, "up_proj")  # (T, F)
        added = weights.project(silu(gate) * up, "down_proj")  # (T, D)
        added = weights.norm(added, "post_feedforward_layernorm") if config.norms_after else added
        show("feed_forward", layer, added)
        x = x + added
        show("residual", layer, x)
    return final_norm(config, tensors, x)


def logits(config: ModelConfig, tensors: Mapping[str, Array], hidden: Array) -> Array:
    """Scores over the vocabulary, (T, V), from hidden states after the final norm, (T, D)."""
    output = tensors["embed_tokens" if config.ties_embeddings else "lm_head"]
    result: Array = hidden @ output.T
    return result


def final_norm(config: ModelConfig, tensors: Mapping[str, Array], x: Array) -> Array:
    """The norm before the output matrix, (T, D) → (T, D); on the stream after a layer it gives the logit lens."""
    return _norm(config, x, tensors.get("norm"))


def empty_cache(config: ModelConfig, length: int) -> Cache:
    """Room for the keys and values of `length` positions."""
    shape = (length, config.n_kv_heads, config.head_dim)
    return [(np.empty(shape, np.float32), np.empty(shape, np.float32)) for _ in range(config.n_layers)]


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """Rotary embedding (arXiv:2104.09864): the pairs (i, i + E/2) of x (T, heads, E) turn by their angles."""
    first, second = np.split(x, 2, axis=-1)
    cos, sin = cos[:, None, :], sin[:, None, :]  # (T, 1, E/2)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def attend(q: Array, keys: Array, values: Array) -> tuple[Array, Array]:
    """Causal attention of the last T positions over all L: the mixed values (T, H·E) and the weights (H, T, L)."""
    n_new, n_heads, width = q.shape
    n_all, n_kv_heads, _ = keys.shape
    by_head = q.transpose(1, 0, 2)  # (H, T, E); heads that share keys and values lie side by side
    grouped = by_head.reshape(n_kv_heads, -1, width)  # (K, G·T, E)
    scores = (grouped @ keys.transpose(1, 2, 0)) * np.float32(width**-0.5)  # (K, G·T, L)
    scores = scores.reshape(n_heads, n_new, n_all)  # (H, T, L)
    if n_new > 1:
        later = np.arange(n_all) > np.arange(n_all - n_new, n_all)[:, None]  # (T, L)
        scores[:, later] = -np.inf
    weights = softmax(scores)
    mixed = weights.reshape(n_kv_heads, -1, n_all) @ values.transpose(1, 0, 2)  # (K, G·T, E)
    mixed = mixed.reshape(n_heads, n_new, width).transpose(1, 0, 2).reshape(n_new, -1)  # (T, H·E)
    return mixed, weights


def softmax(x: Array) -> Array:
    """Probabilities along the last axis."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    result: Array = powers / powers.sum(axis=-1, keepdims=True)
    return result


def silu(x: Array) -> Array:
    """x · sigmoid(x)."""
    with np.errstate(over="ignore"):  # exp(-x) may reach infinity, where the quotient is rightly zero
        return x / (1 + np.exp(-x))


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """x over its root mean square, times a weight (Zhang and Sennrich 2019, arXiv:1910.07467)."""
    result: Array = x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + np.float32(eps)) * weight
    return result


class _Layer:
    """The tensors of one layer by their short names."""

    def __init__(self, config: ModelConfig, tensors: Mapping[str, Array], layer: int) -> None:
        self.config, self._tensors, self._prefix = config, tensors, f"layers.{layer}."

    def project(self, x: Array, name: str) -> Array:
        """x (T, in) through a matrix and its bias, if it has one: (T, out)."""
        result: Array = x @ self._tensors[self._prefix + name].T
        if (down := self._tensors.get(f"{self._prefix}{name}.lora_A")) is not None:  # arXiv:2106.09685
            result += (x @ down.T) @ self._tensors[f"{self._prefix}{name}.lora_B"].T
        bias = self._tensors.get(f"{self._prefix}{name}.bias")
        return result if bias is None else result + bias

    def norm(self, x: Array, name: str) -> Array:
        return _norm(self.config, x, self._tensors.get(self._prefix + name))


def _norm(config: ModelConfig, x: Array, weight: Array | None) -> Array:
    if config.norm == "rms":
        assert weight is not None
        return rms_norm(x, weight, config.norm_eps)
    centred = x - x.mean(axis=-1, keepdims=True)  # OLMo 1: LayerNorm without weights
    result: Array = centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + np.float32(config.norm_eps))
    return result


def _project(config: ModelConfig, weights: _Layer, h: Array) -> tuple[Array, Array, Array]:
    q, k, v = (weights.project(h, name) for name in ("q_proj", "k_proj", "v_proj"))
    if config.qk_norm:
        q, k = weights.norm(q, "q_norm"), weights.norm(k, "k_norm")
    if config.clip_qkv is not None:
        q, k, v = (np.clip(part, -config.clip_qkv, config.clip_qkv) for part in (q, k, v))
    heads = (len(h), -1, config.head_dim)
    return q.reshape(heads), k.reshape(heads), v.reshape(heads)
