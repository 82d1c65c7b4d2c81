"""F32, F16 and BF16: a block is one number, little-endian."""

from __future__ import annotations

import numpy as np

from camelid.weights.quants.quant import Bytes, Floats, Quant


def _fill_f32(blocks: Bytes, out: Floats) -> None:
    out[:] = np.ascontiguousarray(blocks).view("<f4")


def _encode_f32(weights: Floats) -> Bytes:
    return np.ascontiguousarray(weights.astype("<f4", copy=False)).view(np.uint8)


def _fill_f16(blocks: Bytes, out: Floats) -> None:
    out[:] = np.ascontiguousarray(blocks).view("<f2")


def _encode_f16(weights: Floats) -> Bytes:
    return np.ascontiguousarray(weights.astype("<f2")).view(np.uint8)


def _fill_bf16(blocks: Bytes, out: Floats) -> None:
    # A bfloat16 is the upper half of a float32.
    bits = out.view(np.uint32)
    bits[:] = np.ascontiguousarray(blocks).view("<u2")
    np.left_shift(bits, 16, out=bits)


def _encode_bf16(weights: Floats) -> Bytes:
    bits = np.ascontiguousarray(weights).view(np.uint32)
    # To the nearest, ties to even; a carry out of the fraction rightly raises the exponent.
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1)))) >> 16
    # Rounding could turn a NaN into an infinity: keep its upper half and make it quiet.
    nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    rounded = np.where(nan, (bits >> 16) | np.uint32(0x40), rounded)
    return rounded.astype("<u2").view(np.uint8)


F32 = Quant("F32", 0, 1, 4, _fill_f32, _encode_f32, file_type=0)
F16 = Quant("F16", 1, 1, 2, _fill_f16, _encode_f16, file_type=1)
BF16 = Quant("BF16", 30, 1, 2, _fill_bf16, _encode_bf16, file_type=32)
