"""Super-blocks of 256 weights whose small blocks have scales that are quantised themselves: Q2_K … Q6_K, Q8_K.

Q3_K and Q6_K: 16 small blocks of 16 weights, w = d · s · q. Q2_K: 16 of 16, w = d · s · q − dmin · m.
Q4_K and Q5_K: 8 small blocks of 32, w = d · s · q − dmin · m, with s and m of six bits. `docs/formats.md` draws them.
"""

from __future__ import annotations

import numpy as np

from camelid.weights.quants.k_quantize import encode_q4_k, encode_q5_k, encode_q6_k
from camelid.weights.quants.quant import Bytes, Floats, Quant, halves


def unpack_scales(packed: Bytes) -> tuple[Bytes, Bytes]:
    """Q4_K's and Q5_K's 12 bytes (n, 12) → eight scales and eight minima of six bits, each (n, 8).

    Bytes 0–3 hold scales 0–3 and 4–7 minima 0–3 in their low six bits; bytes 8–11 hold the low four bits of scales
    4–7 (low half) and of minima 4–7 (high half), whose upper two bits lie atop the first eight bytes.
    """
    low, high = packed[:, :8], packed[:, 8:]
    scales, minima = np.empty((2, len(packed), 8), np.uint8)
    scales[:, :4], minima[:, :4] = low[:, :4] & 63, low[:, 4:] & 63
    scales[:, 4:] = (high & 15) | ((low[:, :4] >> 2) & 48)
    minima[:, 4:] = (high >> 4) | ((low[:, 4:] >> 2) & 48)
    return scales, minima


def _split(packed: Bytes, width: int, bits: int) -> Bytes:
    """Values of `bits` bits: runs of `width` bytes give first their lowest bits in order, then the next; (n, −1)."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    runs = packed.reshape(len(packed), -1, 1, width) >> shifts
    return (runs & np.uint8((1 << bits) - 1)).reshape(len(packed), -1)


def _fill_affine(out: Floats, values: Bytes, scales: Floats, minima: Floats) -> None:
    """w = scale · value − minimum, with scales and minima (n, small blocks)."""
    small = out.reshape(len(out), scales.shape[1], -1)
    np.copyto(small, values.reshape(small.shape))
    np.multiply(small, scales[:, :, None], out=small)
    np.subtract(small, minima[:, :, None], out=small)


def _fill_q2_k(blocks: Bytes, out: Floats) -> None:
    packed = blocks[:, :16]
    scales = halves(blocks, 80) * (packed & 15).astype(np.float32)
    minima = halves(blocks, 82) * (packed >> 4).astype(np.float32)
    _fill_affine(out, _split(blocks[:, 16:80], 32, 2), scales, minima)


def _fill_q3_k(blocks: Bytes, out: Floats) -> None:
    packed = blocks[:, 96:108]
    scales = _split(packed[:, :8], 8, 4) | (_split(packed[:, 8:], 4, 2) << 4)
    # The third bit says "do not subtract four".
    values = _split(blocks[:, 32:96], 32, 2) | (_split(blocks[:, :32], 32, 1) << 2)
    _fill_signed(out, values.view(np.int8) - np.int8(4), halves(blocks, 108), scales.view(np.int8) - np.int8(32))


def _fill_signed(out: Floats, values: np.ndarray, scale: Floats, scales: np.ndarray) -> None:
    """w = (d · s) · q with sixteen s a super-block."""
    small = out.reshape(len(out), 16, 16)
    np.copyto(small, values.reshape(small.shape))
    np.multiply(small, (scale * scales.astype(np.float32))[:, :, None], out=small)


def _fill_q4_k(blocks: Bytes, out: Floats) -> None:
    scales, minima = unpack_scales(blocks[:, 4:16])
    _fill_affine(out, _split(blocks[:, 16:], 32, 4), halves(blocks, 0) * scales, halves(blocks, 2) * minima)


def _fill_q5_k(blocks: Bytes, out: Floats) -> None:
    scales, minima = unpack_scales(blocks[:, 4:16])
    values = _split(blocks[:, 48:], 32, 4) | (_split(blocks[:, 16:48], 32, 1) << np.uint8(4))
    _fill_affine(out, values, halves(blocks, 0) * scales, halves(blocks, 2) * minima)


def _fill_q6_k(blocks: Bytes, out: Floats) -> None:
    values = _split(blocks[:, :128], 64, 4) | (_split(blocks[:, 128:192], 32, 2) << 4)
    _fill_signed(out, values.view(np.int8) - np.int8(32), halves(blocks, 208), blocks[:, 192:208].view(np.int8))


def _fill_q8_k(blocks: Bytes, out: Floats) -> None:
    # Sums of sixteen values follow in the last 32 bytes; they only speed up products.
    np.copyto(out, blocks[:, 4:260].view(np.int8))
    np.multiply(out, np.ascontiguousarray(blocks[:, :4]).view("<f4"), out=out)


Q2_K = Quant("Q2_K", 10, 256, 84, _fill_q2_k, file_type=10)
Q3_K = Quant("Q3_K", 11, 256, 110, _fill_q3_k, file_type=11)
Q4_K = Quant("Q4_K", 12, 256, 144, _fill_q4_k, encode_q4_k, file_type=14)
Q5_K = Quant("Q5_K", 13, 256, 176, _fill_q5_k, encode_q5_k, file_type=16)
Q6_K = Quant("Q6_K", 14, 256, 210, _fill_q6_k, encode_q6_k, file_type=18)
Q8_K = Quant("Q8_K", 15, 256, 292, _fill_q8_k)
