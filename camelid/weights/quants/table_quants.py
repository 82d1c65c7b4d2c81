"""Kinds whose values are few and fixed: sixteen uneven steps (IQ4_NL, IQ4_XS, MXFP4) or three (TQ1_0, TQ2_0).

MXFP4: Open Compute Project, "Microscaling Formats" 1.0; the table is doubled so that it is whole, the scale halved.
"""

from __future__ import annotations

import numpy as np

from camelid.weights.quants.quant import Bytes, Floats, Quant, halves

_UNEVEN = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
_E2M1 = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)


def _look_up(table: Floats, packed: Bytes, out: Floats) -> None:
    """Bytes (n, k, 16) → out (n, k, 32): low halves first, then high halves."""
    np.take(table, packed & 15, out=out[..., :16])
    np.take(table, packed >> 4, out=out[..., 16:])


def _fill_iq4_nl(blocks: Bytes, out: Floats) -> None:
    _look_up(_UNEVEN, blocks[:, 2:], out)
    np.multiply(out, halves(blocks, 0), out=out)


def _fill_iq4_xs(blocks: Bytes, out: Floats) -> None:
    high = np.ascontiguousarray(blocks[:, 2:4]).view("<u2") >> np.arange(0, 16, 2, dtype=np.uint16)  # (n, 8)
    low = np.stack([blocks[:, 4:8] & 15, blocks[:, 4:8] >> 4], axis=2).reshape(-1, 8)
    scales = (low | ((high & 3).astype(np.uint8) << 4)).view(np.int8) - np.int8(32)
    small = out.reshape(-1, 8, 32)
    _look_up(_UNEVEN, blocks[:, 8:].reshape(-1, 8, 16), small)
    np.multiply(small, (halves(blocks, 0) * scales.astype(np.float32))[:, :, None], out=small)


def _fill_mxfp4(blocks: Bytes, out: Floats) -> None:
    exponent = blocks[:, :1].astype(np.uint32)
    # Half of 2^(e − 127); below the smallest normal number the bit stands in the fraction.
    bits = np.where(exponent < 2, np.uint32(0x00200000) << exponent, (exponent - np.uint32(1)) << np.uint32(23))
    _look_up(_E2M1, blocks[:, 1:], out)
    np.multiply(out, bits.view(np.float32), out=out)


def _trits(packed: Bytes, count: int) -> Bytes:
    """The first `count` base-3 digits of bytes (n, k) that hold a fraction of 256 → 0, 1 or 2, (n, count · k)."""
    powers = np.array([1, 3, 9, 27, 81], np.uint8)[:count, None]
    moved = packed[:, None, :] * powers  # wraps at 256 on purpose: whole parts fall away
    return ((moved.astype(np.uint16) * 3) >> 8).astype(np.uint8).reshape(len(packed), -1)


def _fill_tq1_0(blocks: Bytes, out: Floats) -> None:
    parts = [_trits(blocks[:, :32], 5), _trits(blocks[:, 32:48], 5), _trits(blocks[:, 48:52], 4)]
    out[:] = np.concatenate(parts, axis=1).view(np.int8) - np.int8(1)
    np.multiply(out, halves(blocks, 52), out=out)


def _fill_tq2_0(blocks: Bytes, out: Floats) -> None:
    shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    values = (blocks[:, :64].reshape(-1, 2, 1, 32) >> shifts) & np.uint8(3)
    out[:] = values.reshape(-1, 256).view(np.int8) - np.int8(1)
    np.multiply(out, halves(blocks, 64), out=out)


IQ4_NL = Quant("IQ4_NL", 20, 32, 18, _fill_iq4_nl, file_type=25)
IQ4_XS = Quant("IQ4_XS", 23, 256, 136, _fill_iq4_xs, file_type=30)
MXFP4 = Quant("MXFP4", 39, 32, 17, _fill_mxfp4)
TQ1_0 = Quant("TQ1_0", 34, 256, 54, _fill_tq1_0, file_type=36)
TQ2_0 = Quant("TQ2_0", 35, 256, 66, _fill_tq2_0, file_type=37)
