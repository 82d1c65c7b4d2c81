"""Softmaxes of training and their gradients: of scores over the vocabulary, and of attention.

Each has a slow clear form in PyTorch's terms, and a fast one in C++ (`csrc/`), which is taken where it is built and
the tensors lie in a processor's memory. On a GPU torch.compile fuses the slow form.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def powers_over(scores: Tensor, fuse: bool) -> tuple[Tensor, Tensor, Tensor]:
    """What the softmax of each column is made of: its largest score, e^(score − largest), and the sum of these.

    Args:
        scores: (V, n), float32 or bfloat16; may be overwritten.
        fuse: let torch.compile fuse what C++ does not do.

    Returns:
        (n,) float32, (V, n) like the scores, (n,) float32.
    """
    if _in_cpp(scores) and scores.is_contiguous():
        tops, totals = torch.empty(scores.shape[1]), torch.empty(scores.shape[1], dtype=torch.float64)
        _cpp().power_columns(_bits(scores), tops.numpy(), totals.numpy(), torch.get_num_threads())
        return tops, scores, totals.float()
    return (_compiled() if fuse else _powers_over)(scores)


def _powers_over(scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    wide = scores.float()
    tops = wide.amax(0)
    powers = (wide - tops).exp()
    return tops, powers.to(scores.dtype), powers.sum(0)


@dataclass(frozen=True)
class Seen:
    """Which keys some queries see: those of their own document that do not come later.

    T queries of each of R rows stand at the places `start` … of their rows, the keys at `first` ….

    Attributes:
        begins: (R, T) int64, contiguous: the place where each query's document begins, not before `first`.
    """

    start: int
    first: int
    begins: Tensor

    @property
    def bias(self) -> Tensor:
        """(R, 1, T, 1, n) float32: -inf where a query does not see one of the n keys, else 0.

        Adding it is three times as fast as masked_fill_.
        """
        n_queries = self.begins.shape[1]
        queries = torch.arange(self.start, self.start + n_queries)[:, None]
        keys = torch.arange(self.first, self.start + n_queries)
        hidden = (keys > queries) | (keys < self.begins[:, :, None])
        return torch.zeros(hidden.shape).masked_fill_(hidden, -math.inf)[:, None, :, None]


def attention_weights(scores: Tensor, seen: Seen) -> None:
    """Turn scores into their softmax over what each query sees, 0 elsewhere.

    Args:
        scores: (R·K, T·S, n): K key/value heads of each row, S query heads of each of these, next to each other.
        seen: of n keys.
    """
    if _in_cpp(scores):
        _cpp().attention_rows(_bits(scores), *_span(seen), torch.get_num_threads())
    else:
        _squares(scores, seen).add_(seen.bias.to(scores.dtype))
        scores.copy_(torch.softmax(scores, -1))


def attention_gradient(of_weights: Tensor, weights: Tensor, seen: Seen) -> Tensor:
    """The gradient of the scores from that of the `weights` that `attention_weights` gave, in its place."""
    if _in_cpp(weights):
        _cpp().attention_gradient_rows(_bits(of_weights), _bits(weights), *_span(seen), torch.get_num_threads())
        return of_weights
    return torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)


def _squares(scores: Tensor, seen: Seen) -> Tensor:
    """(R·K, T·S, n) as (R, K, T, S, n)."""
    rows, n_queries = seen.begins.shape
    return scores.view(rows, -1, n_queries, scores.shape[1] // n_queries, scores.shape[2])


def _span(seen: Seen) -> tuple[Any, int, int]:
    return seen.begins.numpy(), seen.start, seen.first


def _in_cpp(tensor: Tensor) -> bool:
    known = tensor.dtype in (torch.float32, torch.bfloat16)
    return known and tensor.device.type == "cpu" and _cpp() is not None


def _bits(tensor: Tensor) -> Any:
    """An array of the same memory; bfloat16, which numpy does not have, as uint16."""
    return (tensor if tensor.dtype == torch.float32 else tensor.view(torch.uint16)).detach().numpy()


@functools.cache
def _cpp() -> Any:
    """The C++ module, None where it is not built."""
    try:
        from camelid.train import _softmax
    except ImportError:
        return None
    return _softmax


@functools.cache
def _compiled() -> Any:
    return torch.compile(_powers_over, dynamic=False)
