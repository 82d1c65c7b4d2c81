"""A way of storing numbers: its blocks, and how they become float32 and back.

A row of a matrix is cut into blocks of `block` weights; each block is `bytes_per_block` bytes. F32, F16 and BF16 are
kinds too, with blocks of one weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

# Weights worked on at a time: what a chunk reads and writes stays in a core's own cache.
CHUNK = 1 << 17


@dataclass(frozen=True)
class Quant:
    """One row of the table `QUANTS`.

    `fill(blocks, out)` writes the weights of blocks, uint8 (n, bytes_per_block), into out, float32 (n, block).
    `encode(weights)` turns float32 (n, block) into blocks; None: this kind is only read.
    """

    name: str
    gguf_type: int  # ggml's number of this kind
    block: int  # weights in a block
    bytes_per_block: int
    fill: Callable[[Bytes, Floats], None]
    encode: Callable[[Floats], Bytes] | None = None
    file_type: int | None = None  # GGUF's general.file_type of a file that is mostly this

    def row_bytes(self, width: int) -> int:
        """Bytes of a row of `width` weights; `width` must be a multiple of `block`."""
        return width // self.block * self.bytes_per_block

    def dequantise(self, blocks: Bytes) -> Floats:
        """The weights of blocks, uint8 (n, bytes_per_block) → float32 (n, block)."""
        out = np.empty((len(blocks), self.block), np.float32)
        step = max(CHUNK // self.block, 1)
        # Files may hold infinities and NaNs; they pass through as they would anywhere else.
        with np.errstate(all="ignore"):
            for start in range(0, len(blocks), step):
                self.fill(blocks[start : start + step], out[start : start + step])
        return out

    @property
    def quantise(self) -> Callable[[Floats], Bytes] | None:
        """Function from float32 (n, block) to blocks, uint8 (n, bytes_per_block); None if this kind is only read."""
        return self._quantise if self.encode else None

    def _quantise(self, weights: Floats) -> Bytes:
        assert self.encode is not None
        out = np.empty((len(weights), self.bytes_per_block), np.uint8)
        step = max(CHUNK // self.block, 1)
        with np.errstate(all="ignore"):
            for start in range(0, len(weights), step):
                out[start : start + step] = self.encode(weights[start : start + step])
        return out


def halves(blocks: Bytes, start: int, count: int = 1) -> Floats:
    """The 16-bit floats that begin at byte `start` of each block, as float32 (n, count)."""
    stop = start + 2 * count
    values: Floats = np.ascontiguousarray(blocks[:, start:stop]).view("<f2").astype(np.float32)
    return values


def half_bytes(values: Floats) -> Bytes:
    """float32 (n, count) as 16-bit floats, uint8 (n, 2 · count)."""
    return np.ascontiguousarray(values.astype("<f2")).view(np.uint8)


def inverse(scale: Floats) -> Floats:
    """1 / scale, and 0 where the scale is 0."""
    result: Floats = np.where(scale == 0, np.float32(0), np.float32(1) / scale)
    return result
