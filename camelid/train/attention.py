"""Causal attention within documents: a token sees itself and what stands before it in its own document.

Handed to `LlamaTorch` as `attend`; R rows of T tokens, H query heads, K key/value heads, E width of a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

BLOCK = 128  # queries that are taken at once on a CPU


class BlockAttention:
    """For CPUs: blocks of queries times the keys that any of them may see, as plain matrix products.

    PyTorch's own attention spends most of its time outside of matrix products there, in bf16 above all
    (docs/decisions.md, 2026-11-24). Scores are kept in the precision of the model, as Meta's own code does; sums are
    float32.
    """

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        self._mix: Any = torch.compiler.disable(_Blocks.apply)  # here, not at import: it loads the compiler

    def prepare(self, positions: Tensor) -> None:
        """Take in the positions (R, T) of the rows that come next: they start from 0 in each document."""
        context = positions.shape[1]
        places = torch.arange(context)
        begins = places - positions  # (R, T): where each token's document begins
        self._blocks = []
        for start in range(0, context, BLOCK):
            stop = min(start + BLOCK, context)
            own = begins[:, start:stop]
            first, queries = int(own.min()), places[start:stop, None]
            if int(own.max()) == first:  # one document in each row: only the last square has something to hide
                hidden = (places[start:stop] > queries)[None]
            else:
                keys = places[first:stop]
                hidden = (keys > queries) | (keys < own[:, :, None])
            bias = torch.zeros(hidden.shape).masked_fill_(hidden, -math.inf)
            self._blocks.append(_Block(start, stop, first, bias[:, None, :, None]))

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Moves between layouts stand here, outside of `_mix`, so that the compiler can fuse them."""
        rows, context, n_heads, width = q.shape
        n_kv = k.shape[2]
        shape = rows, context, n_kv, n_heads // n_kv, width
        mixed: Tensor = self._mix(
            _heads_first(q.view(shape)), _heads_first(k.unsqueeze(3)), _heads_first(v.unsqueeze(3)), shape, self._blocks
        )
        return _tokens_first(mixed, shape).reshape(rows, context, n_heads, width)


@dataclass(frozen=True)
class _Block:
    """Queries start … stop − 1 with the keys first … stop − 1.

    `bias` (R or 1, 1, queries, 1, n), float32, is -inf where a query may not see one of the last n keys, else 0; it
    sees all keys before them. (Adding it is three times as fast as masked_fill_.)
    """

    start: int
    stop: int
    first: int
    bias: Tensor


class _Blocks(torch.autograd.Function):
    """Query heads that share keys are put below each other, so that they are one matrix: row t·(H/K) + head."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, shape: tuple[int, ...], blocks: list[_Block]) -> Tensor:
        """q (R·K, T·H/K, E), k and v (R·K, T, E) → as q; shape is (R, T, K, H/K, E)."""
        share = shape[3]
        mixed = torch.empty_like(q)
        seen = []
        for block in blocks:
            weights = _weights(q, k, block, shape)
            queries = slice(block.start * share, block.stop * share)
            torch.bmm(weights, v[:, block.first : block.stop], out=mixed[:, queries])
            seen.append(weights)
        ctx.save_for_backward(q, k, v, *seen)
        ctx.blocks, ctx.shape = blocks, shape
        return mixed

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *seen = ctx.saved_tensors
        share, scale = ctx.shape[3], 1 / math.sqrt(ctx.shape[4])
        grad = grads[0]
        grad_q = torch.empty_like(q)
        grad_k, grad_v = (torch.empty(0) for _ in range(2))
        for block, weights in zip(reversed(ctx.blocks), reversed(seen), strict=True):
            queries = slice(block.start * share, block.stop * share)
            keys = slice(block.first, block.stop)
            own = grad[:, queries]
            of_weights = torch.bmm(own, v[:, keys].transpose(1, 2))
            of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            grad_q[:, queries] = _scaled(of_scores, k[:, keys], scale)
            part_v = torch.bmm(weights.transpose(1, 2), own)
            part_k = _scaled(of_scores.transpose(1, 2), q[:, queries], scale)
            if not len(grad_k):  # the last block, which often sees all keys
                grad_k, grad_v = (_spread(part, block.first) for part in (part_k, part_v))
            else:
                grad_k[:, keys] += part_k
                grad_v[:, keys] += part_v
        return grad_q, grad_k.to(k.dtype), grad_v.to(v.dtype), None, None


def _weights(q: Tensor, k: Tensor, block: _Block, shape: tuple[int, ...]) -> Tensor:
    """Attention weights (R·K, queries·H/K, keys) of a block."""
    rows, _, n_kv, share, width = shape
    queries = q[:, block.start * share : block.stop * share]
    scores = _scaled(queries, k[:, block.first : block.stop].transpose(1, 2), 1 / math.sqrt(width))
    square = scores.view(rows, n_kv, block.stop - block.start, share, block.stop - block.first)
    square[..., -block.bias.shape[-1] :].add_(block.bias.to(scores.dtype))
    return torch.softmax(scores, -1)


def _scaled(one: Tensor, other: Tensor, scale: float) -> Tensor:
    """Batches of matrices multiplied, times a number, rounded once."""
    return torch.baddbmm(one.new_empty(1, 1, 1), one, other, beta=0, alpha=scale)


def _spread(part: Tensor, first: int) -> Tensor:
    """(B, n, E) as float32 (B, first + n, E), zeros before."""
    return torch.nn.functional.pad(part.float(), (0, 0, first, 0)) if first else part.float()


def _heads_first(x: Tensor) -> Tensor:
    """(R, T, K, H/K, E) → (R·K, T·H/K, E)."""
    rows, context, n_kv, share, width = x.shape
    return x.permute(0, 2, 1, 3, 4).reshape(rows * n_kv, context * share, width)


def _tokens_first(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(R·K, n·H/K, E) → (R, n, K, H/K, E), for the shape (R, any, K, H/K, E)."""
    rows, _, n_kv, share, width = shape
    return x.view(rows, n_kv, -1, share, width).transpose(1, 2)


class FlexAttention:
    """For GPUs: PyTorch's FlexAttention (Dong et al. 2024, arXiv:2412.05496), which skips blocks nobody may see.

    Args:
        compiled: as it must be to be fast; else whole scores are in memory.
    """

    def __init__(self, compiled: bool = True) -> None:
        from torch.nn.attention.flex_attention import flex_attention

        self._mix: Any = torch.compile(flex_attention, dynamic=False) if compiled else flex_attention
        self._mask: Any = None

    def prepare(self, positions: Tensor) -> None:
        """As `BlockAttention.prepare`."""
        from torch.nn.attention.flex_attention import create_block_mask

        rows, context = positions.shape
        begins = torch.arange(context, device=positions.device) - positions  # (R, T)

        def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (key <= query) & (key >= begins[row, query])

        self._mask = create_block_mask(sees, rows, None, context, context, device=positions.device)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        mixed: Any = self._mix(q, k, v, block_mask=self._mask, enable_gqa=q.shape[1] != k.shape[1])
        return mixed.transpose(1, 2)


Attention = BlockAttention | FlexAttention


def attention_on(device: torch.device) -> Attention:
    """The faster one there."""
    return FlexAttention() if device.type == "cuda" else BlockAttention()
