"""Blocks of 32 weights with one scale: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.

`_0`: w = d · q with q around zero. `_1`: w = d · q + m with q from zero up. Four-bit values lie in 16 bytes: the low
halves are the first 16 weights, the high halves the last 16; a fifth bit of each weight lies in a 32-bit word.
The encoders round as ggml's reference does, bit for bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from camelid.weights.quants.quant import Bytes, Floats, Quant, half_bytes, halves, inverse


def _nibbles(packed: Bytes) -> Bytes:
    """Bytes (n, 16) → values (n, 32) from 0 to 15."""
    values = np.empty((len(packed), 32), np.uint8)
    np.bitwise_and(packed, np.uint8(15), out=values[:, :16])
    np.right_shift(packed, np.uint8(4), out=values[:, 16:])
    return values


def _pack_nibbles(values: Bytes) -> Bytes:
    """Values (n, 32), of which the low four bits count → bytes (n, 16)."""
    packed: Bytes = (values[:, :16] & np.uint8(15)) | (values[:, 16:] << np.uint8(4))
    return packed


def _fifth_bits(words: Bytes) -> Bytes:
    """Bytes (n, 4) → 0 or 16 for each of 32 weights."""
    return np.unpackbits(words, axis=1, bitorder="little") << np.uint8(4)


def _fill_q4_0(blocks: Bytes, out: Floats) -> None:
    out[:] = _nibbles(blocks[:, 2:]).view(np.int8) - np.int8(8)
    np.multiply(out, halves(blocks, 0), out=out)


def _fill_q4_1(blocks: Bytes, out: Floats) -> None:
    packed = blocks[:, 4:]
    np.copyto(out[:, :16], packed & 15)
    np.copyto(out[:, 16:], packed >> 4)
    np.multiply(out, halves(blocks, 0), out=out)
    np.add(out, halves(blocks, 2), out=out)


def _fill_q5_0(blocks: Bytes, out: Floats) -> None:
    values = _nibbles(blocks[:, 6:]) | _fifth_bits(blocks[:, 2:6])
    out[:] = values.view(np.int8) - np.int8(16)
    np.multiply(out, halves(blocks, 0), out=out)


def _fill_q5_1(blocks: Bytes, out: Floats) -> None:
    out[:] = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks[:, 4:8])
    np.multiply(out, halves(blocks, 0), out=out)
    np.add(out, halves(blocks, 2), out=out)


def _fill_q8_0(blocks: Bytes, out: Floats) -> None:
    out[:] = blocks[:, 2:].view(np.int8)
    np.multiply(out, halves(blocks, 0), out=out)


def _signed(weights: Floats, bits: int) -> tuple[Floats, Bytes]:
    """Scale and values 0 … 2^bits − 1 around the middle; the largest weight gets the value 0, which is exact."""
    middle = 1 << (bits - 1)
    largest = np.abs(weights).argmax(axis=1, keepdims=True)
    scale = np.take_along_axis(weights, largest, axis=1) / np.float32(-middle)
    values = np.trunc(weights * inverse(scale) + np.float32(middle + 0.5))
    return scale, values.clip(0, 2 * middle - 1).astype(np.uint8)


def _unsigned(weights: Floats, bits: int) -> tuple[Floats, Floats, Bytes]:
    """Scale, minimum and values 0 … 2^bits − 1 between the block's extremes."""
    top = (1 << bits) - 1
    low = weights.min(axis=1, keepdims=True)
    scale = (weights.max(axis=1, keepdims=True) - low) / np.float32(top)
    values = np.trunc((weights - low) * inverse(scale) + np.float32(0.5))
    return scale, low, values.clip(0, top).astype(np.uint8)


def _pack_fifth(values: Bytes) -> Bytes:
    return np.packbits(values >> np.uint8(4), axis=1, bitorder="little")


def _encode_q4_0(weights: Floats) -> Bytes:
    scale, values = _signed(weights, 4)
    return np.concatenate([half_bytes(scale), _pack_nibbles(values)], axis=1)


def _encode_q4_1(weights: Floats) -> Bytes:
    scale, low, values = _unsigned(weights, 4)
    return np.concatenate([half_bytes(scale), half_bytes(low), _pack_nibbles(values)], axis=1)


def _encode_q5_0(weights: Floats) -> Bytes:
    scale, values = _signed(weights, 5)
    return np.concatenate([half_bytes(scale), _pack_fifth(values), _pack_nibbles(values)], axis=1)


def _encode_q5_1(weights: Floats) -> Bytes:
    scale, low, values = _unsigned(weights, 5)
    return np.concatenate([half_bytes(scale), half_bytes(low), _pack_fifth(values), _pack_nibbles(values)], axis=1)


def _encode_q8_0(weights: Floats) -> Bytes:
    scale = np.abs(weights).max(axis=1, keepdims=True) / np.float32(127)
    values = away_from_zero(weights * inverse(scale)).astype(np.int8)
    return np.concatenate([half_bytes(scale), values.view(np.uint8)], axis=1)


def away_from_zero(values: Floats) -> NDArray[np.float32]:
    """Round to the nearest whole number, halves away from zero."""
    size = np.abs(values)
    whole = np.floor(size)
    result: Floats = np.copysign(whole + np.floor(2 * (size - whole)), values)
    return result


Q4_0 = Quant("Q4_0", 2, 32, 18, _fill_q4_0, _encode_q4_0, file_type=2)
Q4_1 = Quant("Q4_1", 3, 32, 20, _fill_q4_1, _encode_q4_1, file_type=3)
Q5_0 = Quant("Q5_0", 6, 32, 22, _fill_q5_0, _encode_q5_0, file_type=8)
Q5_1 = Quant("Q5_1", 7, 32, 24, _fill_q5_1, _encode_q5_1, file_type=9)
Q8_0 = Quant("Q8_0", 8, 32, 34, _fill_q8_0, _encode_q8_0, file_type=7)
