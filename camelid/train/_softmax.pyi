"""Softmaxes in C++ (`csrc/bind.cpp`). Numbers are float32, or the bits of bfloat16 as uint16; they change in place.

ValueError where shapes do not fit.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

def power_columns(scores: NDArray[Any], maxima: NDArray[np.float32], totals: NDArray[np.float64], threads: int) -> None:
    """Turn scores (V, n) into e^(score - largest of its column); fill in the columns' largest scores and sums, (n,)."""

def attention_rows(scores: NDArray[Any], begins: NDArray[np.int64], start: int, first: int, threads: int) -> None:
    """Turn scores (B, Q, n) into weights, 0 where a query does not see a key; begins (R, T), as `Seen` has them."""

def attention_gradient_rows(
    grad: NDArray[Any], weights: NDArray[Any], begins: NDArray[np.int64], start: int, first: int, threads: int
) -> None:
    """Turn the gradient of weights (B, Q, n) into that of their scores."""
