"""A tensor of a model as it lies in a file: name, shape, kind, and its bytes when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from camelid.open_file import Which
from camelid.weights.quants import QUANTS, dequantise_rows, quantise_rows
from camelid.weights.quants.quant import Bytes, Floats

Read = Callable[[], Bytes]
ReadRows = Callable[[Which], Bytes]


@dataclass(frozen=True)
class Tensor:
    """One tensor of a model; nothing is read before `blocks` or `array` is called.

    Attributes:
        name: a name of `model.config.tensor_shapes`.
        shape: (out, in) for matrices, (width,) for norms.
        quant: how the numbers are stored, a key of `QUANTS`.
    """

    name: str
    shape: tuple[int, ...]
    quant: str
    _read: Read = field(repr=False, compare=False)
    _read_rows: ReadRows | None = field(default=None, repr=False, compare=False)

    def blocks(self) -> Bytes:
        """The stored bytes, uint8 (rows, bytes per row), rows in camelid's order: read from the file now.

        A norm is one row.

        Raises:
            ResourceError: the file was changed after it was opened.
        """
        return self._read()

    def array(self) -> Floats:
        """The numbers as float32 in `shape`: a new array that the caller may change."""
        return dequantise_rows(QUANTS[self.quant], self.blocks()).reshape(self.shape)

    def rows(self, which: Which) -> Floats:
        """Some rows of a matrix as float32, (rows, in): others are not dequantised, nor read if possible."""
        blocks = self._read_rows(which) if self._read_rows else self.blocks()[which]
        return dequantise_rows(QUANTS[self.quant], blocks)

    @property
    def n_rows(self) -> int:
        """Rows of `blocks`: 1 for a norm."""
        return math.prod(self.shape[:-1])

    @property
    def nbytes(self) -> int:
        """Bytes as stored."""
        return self.n_rows * QUANTS[self.quant].row_bytes(self.shape[-1])

    @classmethod
    def from_array(cls, name: str, array: NDArray[np.float32], quant: str = "F32") -> Tensor:
        """A tensor in memory, stored as `quant`."""
        rows = quantise_rows(QUANTS[quant], array.reshape(-1, array.shape[-1]))
        return cls(name, tuple(array.shape), quant, lambda: rows)
