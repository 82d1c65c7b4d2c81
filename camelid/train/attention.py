"""Causal attention within documents: a token sees itself and what stands before it in its own document.

Handed to `LlamaTorch` as `attend`; R rows of T tokens, H query heads, K key/value heads, E width of a head.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from camelid.model.llama_torch import Mix
from camelid.train.softmax import Seen, attention_gradient, attention_weights

BLOCK = 128  # queries that are taken at once on a CPU


class BlockAttention:
    """For CPUs: blocks of queries times the keys that any of them may see, as plain matrix products.

    PyTorch's own attention spends most of its time outside of matrix products there, in bf16 above all
    (benchmarks/LOG.md, 2026-11-24). Scores are kept in the precision of the model, as Meta's own code does; sums are
    float32.
    """

    def __init__(self) -> None:
        self._begins = torch.empty(0, 0, dtype=torch.int64)
        self._blocks = _operator()

    def prepare(self, positions: Tensor) -> None:
        """Take in the positions (R, T) of the rows that come next: they start from 0 in each document."""
        self._begins = torch.arange(positions.shape[1]) - positions  # where each token's document begins

    def __call__(self, layer: int) -> Mix:
        return self._mix

    def _mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Query heads that share keys are put below each other, so that they are one matrix: row t·(H/K) + head."""
        rows, context, n_heads, width = q.shape
        n_kv = k.shape[2]
        q = q.view(rows, context, n_kv, n_heads // n_kv, width).permute(0, 2, 1, 3, 4)
        q, k = (part.reshape(rows * n_kv, -1, width) for part in (q, k.transpose(1, 2)))
        mixed, _ = self._blocks(q, k, v, self._begins)
        mixed = mixed.view(rows, n_kv, context, n_heads // n_kv, width).transpose(1, 2)
        return mixed.reshape(rows, context, n_heads, width)


@functools.cache
def _operator() -> Any:
    """Attention by blocks as one operator, which torch.compile leaves whole instead of cutting the layer there.

    q (R·K, T·H/K, E), k (R·K, T, E), v (R, T, K, E), begins (R, T) → as q, and the weights of all blocks one after the
    other. (q and k come from arithmetic that their new layout is fused with; v does not.) All that it
    gives is contiguous: the fakes promise strides too, and of one row k is a view. PyTorch keeps compiled code by the
    operator's name, so another layout takes another name.
    """
    from torch import library

    @library.custom_op("camelid::block_attention", mutates_args=())
    def forward(q: Tensor, k: Tensor, v: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
        mixed, kept, scale = q.new_empty(q.shape), q.new_empty(_n_weights(q, k)), 1 / math.sqrt(q.shape[2])
        v = v.transpose(1, 2).reshape(k.shape)
        for seen, queries, keys, weights in _blocks(q, begins, kept):
            _scaled(q[:, queries], k[:, keys].transpose(1, 2), scale, out=weights)
            attention_weights(weights, seen)
            torch.bmm(weights, v[:, keys], out=mixed[:, queries])
        return mixed, kept

    @library.custom_op("camelid::block_attention_gradient", mutates_args=())
    def backward(
        grad: Tensor, q: Tensor, k: Tensor, v: Tensor, begins: Tensor, kept: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        grad_q, scale = q.new_empty(q.shape), 1 / math.sqrt(q.shape[2])
        rows, context, n_kv, width = v.shape
        v = v.transpose(1, 2).reshape(k.shape)
        grad_k, grad_v = (torch.zeros(k.shape, dtype=torch.float32) for _ in range(2))
        for seen, queries, keys, weights in _blocks(q, begins, kept):
            own = grad[:, queries]
            of_scores = attention_gradient(torch.bmm(own, v[:, keys].transpose(1, 2)), weights, seen)
            _scaled(of_scores, k[:, keys], scale, out=grad_q[:, queries])
            grad_k[:, keys] += _scaled(of_scores.transpose(1, 2), q[:, queries], scale)
            grad_v[:, keys] += torch.bmm(weights.transpose(1, 2), own)
        grad_v = grad_v.view(rows, n_kv, context, width).transpose(1, 2)
        return grad_q, grad_k.to(k.dtype), torch.empty(grad_v.shape, dtype=v.dtype).copy_(grad_v)

    def keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, output[1])

    def differentiate(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor | None, ...]:
        return *backward(grad.contiguous(), *ctx.saved_tensors), None

    forward.register_fake(lambda q, k, v, begins: (q.new_empty(q.shape), q.new_empty(_n_weights(q, k))))
    backward.register_fake(lambda grad, q, k, v, begins, kept: tuple(part.new_empty(part.shape) for part in (q, k, v)))
    forward.register_autograd(differentiate, setup_context=keep)
    return forward


def _n_weights(q: Tensor, k: Tensor) -> int:
    """Room for the weights of all blocks, were each row one document."""
    share, context = q.shape[1] // k.shape[1], k.shape[1]
    return len(q) * share * sum((stop - start) * stop for start, stop in _edges(context))


def _edges(context: int) -> list[tuple[int, int]]:
    return [(start, min(start + BLOCK, context)) for start in range(0, context, BLOCK)]


def _blocks(q: Tensor, begins: Tensor, kept: Tensor) -> Iterator[tuple[Seen, slice, slice, Tensor]]:
    """Each block's queries and keys, as rows of theirs, and its place in `kept`."""
    context = begins.shape[1]
    share, used = q.shape[1] // context, 0
    for start, stop in _edges(context):
        own = begins[:, start:stop].contiguous()
        first = int(own.min())
        shape = len(q), (stop - start) * share, stop - first
        weights = kept[used : used + math.prod(shape)].view(shape)
        used += weights.numel()
        yield Seen(start, first, own), slice(start * share, stop * share), slice(first, stop), weights


def _scaled(one: Tensor, other: Tensor, scale: float, out: Tensor | None = None) -> Tensor:
    """Batches of matrices multiplied, times a number, rounded once."""
    return torch.baddbmm(one.new_empty(1, 1, 1), one, other, beta=0, alpha=scale, out=out)


class FlexAttention:
    """For GPUs: PyTorch's FlexAttention (Dong et al. 2024, arXiv:2412.05496), which skips blocks nobody may see.

    Args:
        compiled: as it must be to be fast; else whole scores are in memory.
    """

    def __init__(self, compiled: bool = True) -> None:
        from torch.nn.attention.flex_attention import flex_attention

        self._flex: Any = torch.compile(flex_attention, dynamic=False) if compiled else flex_attention
        self._mask: Any = None

    def prepare(self, positions: Tensor) -> None:
        """As `BlockAttention.prepare`."""
        from torch.nn.attention.flex_attention import create_block_mask

        rows, context = positions.shape
        begins = torch.arange(context, device=positions.device) - positions  # (R, T)

        def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (key <= query) & (key >= begins[row, query])

        self._mask = create_block_mask(sees, rows, None, context, context, device=positions.device)

    def __call__(self, layer: int) -> Mix:
        return self._mix

    def _mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        mixed: Tensor = self._flex(q, k, v, block_mask=self._mask, enable_gqa=q.shape[1] != k.shape[1])
        return mixed.transpose(1, 2)


Attention = BlockAttention | FlexAttention


def attention_on(device: torch.device) -> Attention:
    """The faster one there."""
    return FlexAttention() if device.type == "cuda" else BlockAttention()
