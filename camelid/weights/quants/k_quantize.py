"""Choosing the scales of K-quant blocks: many roundings are tried, each with its best scale by least squares.

Rounding by the plain range max − min wastes precision on outliers. For each small block several slightly different
ranges are tried; the rounded values of each give the scale (and minimum) that minimise the weighted squared error in
closed form; the best of all is kept. Then the scales of a super-block are rounded to their own few bits, and the
weights are rounded once more against what will really be stored.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from camelid.weights.quants.quant import Bytes, Floats, half_bytes, inverse

_AFFINE_TRIES = np.arange(-2.0, 1.0, 0.2, dtype=np.float32)  # added to the top value when a range is laid out
_SIGNED_TRIES = np.arange(-3.0, 1.0, 0.4, dtype=np.float32)


def encode_q4_k(weights: Floats) -> Bytes:
    """float32 (n, 256) → Q4_K blocks, uint8 (n, 144)."""
    scale, low, packed, values = _affine(weights, 15)
    pairs = values.reshape(-1, 4, 2, 32)
    nibbles = (pairs[:, :, 0] | (pairs[:, :, 1] << 4)).reshape(-1, 128)
    return np.concatenate([half_bytes(scale), half_bytes(low), packed, nibbles], axis=1)


def encode_q5_k(weights: Floats) -> Bytes:
    """float32 (n, 256) → Q5_K blocks, uint8 (n, 176)."""
    scale, low, packed, values = _affine(weights, 31)
    pairs = values.reshape(-1, 4, 2, 32)
    nibbles = ((pairs[:, :, 0] & 15) | (pairs[:, :, 1] << 4)).reshape(-1, 128)
    # Byte k of the fifth bits belongs to weight k of each of the eight small blocks.
    fifth = np.packbits(values.reshape(-1, 8, 32) >> 4, axis=1, bitorder="little")[:, 0]
    return np.concatenate([half_bytes(scale), half_bytes(low), packed, fifth, nibbles], axis=1)


def encode_q6_k(weights: Floats) -> Bytes:
    """float32 (n, 256) → Q6_K blocks, uint8 (n, 210)."""
    small = weights.reshape(-1, 16, 16)
    wanted = _signed_scales(small, 32)  # (n, 16)
    largest = np.take_along_axis(wanted, np.abs(wanted).argmax(axis=1, keepdims=True), axis=1)
    scale = _as_half(largest / np.float32(-128))
    steps = np.rint(wanted * inverse(scale)).clip(-128, 127)
    values = np.rint(small * inverse(scale * steps)[:, :, None]).clip(-32, 31) + np.float32(32)
    quarters = values.astype(np.uint8).reshape(-1, 2, 4, 32)
    low = (quarters[:, :, :2] & 15) | (quarters[:, :, 2:] << 4)
    high = quarters >> 4 << np.array([0, 2, 4, 6], np.uint8)[:, None]
    upper = np.bitwise_or.reduce(high, axis=2).reshape(-1, 64)
    scales = steps.astype(np.int8).view(np.uint8)
    return np.concatenate([low.reshape(-1, 128), upper, scales, half_bytes(scale)], axis=1)


def _affine(weights: Floats, top: int) -> tuple[Floats, Floats, Bytes, Bytes]:
    """d and dmin (n, 1), the packed six-bit scales and minima (n, 12), and the values 0 … top, (n, 256)."""
    small = weights.reshape(-1, 8, 32)
    scales, minima = _affine_scales(small, top)  # both ≥ 0, (n, 8)
    scale = _as_half(scales.max(axis=1, keepdims=True) / np.float32(63))
    low = _as_half(minima.max(axis=1, keepdims=True) / np.float32(63))
    scale_steps = np.rint(scales * inverse(scale)).clip(0, 63)
    low_steps = np.rint(minima * inverse(low)).clip(0, 63)
    moved = small + (low * low_steps)[:, :, None]
    values = np.rint(moved * inverse(scale * scale_steps)[:, :, None]).clip(0, top).astype(np.uint8)
    return scale, low, _pack_scales(scale_steps.astype(np.uint8), low_steps.astype(np.uint8)), values.reshape(-1, 256)


def _affine_scales(small: Floats, top: int) -> tuple[Floats, Floats]:
    """Best scale and minimum (w ≈ scale · q − minimum) of each small block (n, 8, 32) → two (n, 8), not negative."""
    importance = np.sqrt(np.square(small).mean(axis=2, keepdims=True)) + np.abs(small)
    low = np.minimum(small.min(axis=2, keepdims=True), 0)
    reach = small.max(axis=2, keepdims=True) - low
    total, total_w = importance.sum(axis=2), np.einsum("nsk,nsk->ns", importance, small)
    best_scale, best_low = reach[:, :, 0] / np.float32(top), low[:, :, 0]
    best = _affine_error(small, importance, best_scale, best_low, top)
    per_range = inverse(reach)
    for more in _AFFINE_TRIES:
        values = np.rint((small - low) * (per_range * (top + more))).clip(0, top)
        weighted = importance * values
        sum_q, sum_qq = weighted.sum(axis=2), np.einsum("nsk,nsk->ns", weighted, values)
        sum_qw = np.einsum("nsk,nsk->ns", weighted, small)
        divisor = inverse(total * sum_qq - sum_q * sum_q)
        scale = (total * sum_qw - total_w * sum_q) * divisor
        lowest = (sum_qq * total_w - sum_q * sum_qw) * divisor
        # A minimum can only be subtracted; a block that would need it added does without.
        positive = lowest > 0
        scale = np.where(positive, sum_qw * inverse(sum_qq), scale)
        lowest = np.where(positive, np.float32(0), lowest)
        error = _squares(importance, small - scale[:, :, None] * values - lowest[:, :, None])
        better = (error < best) & (scale > 0)
        best = np.where(better, error, best)
        best_scale, best_low = np.where(better, scale, best_scale), np.where(better, lowest, best_low)
    return best_scale, -best_low


def _affine_error(small: Floats, importance: Floats, scale: Floats, low: Floats, top: int) -> Floats:
    values = np.rint((small - low[:, :, None]) * inverse(scale)[:, :, None]).clip(0, top)
    return _squares(importance, small - scale[:, :, None] * values - low[:, :, None])


def _squares(importance: Floats, difference: Floats) -> Floats:
    result: Floats = np.einsum("nsk,nsk,nsk->ns", importance, difference, difference)
    return result


def _signed_scales(small: Floats, half: int) -> Floats:
    """Best scale (w ≈ scale · q, −half ≤ q < half) of each small block (n, 16, 16) → (n, 16), of either sign."""
    importance = np.square(small)
    largest = np.take_along_axis(small, np.abs(small).argmax(axis=2, keepdims=True), axis=2)
    per_range = inverse(largest)
    best = np.zeros(small.shape[:2], np.float32)
    best_gain = np.zeros_like(best)
    for more in _SIGNED_TRIES:
        values = np.rint(small * (per_range * -(half + more))).clip(-half, half - 1)
        weighted = importance * values
        sum_qw = np.einsum("nsk,nsk->ns", weighted, small)
        sum_qq = np.einsum("nsk,nsk->ns", weighted, values)
        scale = sum_qw * inverse(sum_qq)
        gain = scale * sum_qw  # by how much this scale lowers the squared error
        better = gain > best_gain
        best, best_gain = np.where(better, scale, best), np.where(better, gain, best_gain)
    return best


def _pack_scales(scales: Bytes, minima: Bytes) -> Bytes:
    """Eight scales and eight minima of six bits (n, 8) → 12 bytes; the inverse of `k_quants.unpack_scales`."""
    first = scales[:, :4] | ((scales[:, 4:] >> 4) << 6)
    second = minima[:, :4] | ((minima[:, 4:] >> 4) << 6)
    third = (scales[:, 4:] & 15) | ((minima[:, 4:] & 15) << 4)
    return np.concatenate([first, second, third], axis=1)


def _as_half(values: Floats) -> NDArray[np.float32]:
    """What remains of a scale when it is stored in 16 bits: rounding is done against this."""
    result: Floats = values.astype(np.float16).astype(np.float32)
    return result
