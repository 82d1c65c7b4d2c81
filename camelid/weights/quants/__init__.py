"""QUANTS: every way of storing weights that camelid reads, by name. A new kind is one row here."""

from __future__ import annotations

import numpy as np

from camelid.weights.quants.float_quants import BF16, F16, F32
from camelid.weights.quants.k_quants import Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, Q8_K
from camelid.weights.quants.quant import Bytes, Floats, Quant
from camelid.weights.quants.simple_quants import Q4_0, Q4_1, Q5_0, Q5_1, Q8_0
from camelid.weights.quants.table_quants import IQ4_NL, IQ4_XS, MXFP4, TQ1_0, TQ2_0

_FLOATS = (F32, F16, BF16)
_SIMPLE = (Q4_0, Q4_1, Q5_0, Q5_1, Q8_0)
_SUPER = (Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, Q8_K)
_TABLES = (IQ4_NL, IQ4_XS, MXFP4, TQ1_0, TQ2_0)

QUANTS: dict[str, Quant] = {row.name: row for row in (*_FLOATS, *_SIMPLE, *_SUPER, *_TABLES)}
BY_GGUF_TYPE: dict[int, Quant] = {row.gguf_type: row for row in QUANTS.values()}
UNQUANTISED = tuple(row.name for row in _FLOATS)


def dequantise_rows(quant: Quant, rows: Bytes) -> Floats:
    """Rows as stored, uint8 (n, bytes per row) → float32 (n, width)."""
    blocks = np.ascontiguousarray(rows).reshape(-1, quant.bytes_per_block)
    return quant.dequantise(blocks).reshape(len(rows), -1)


def quantise_rows(quant: Quant, rows: Floats) -> Bytes:
    """float32 (n, width) → rows as stored, uint8 (n, bytes per row). The width must be a multiple of `quant.block`."""
    assert quant.quantise is not None
    blocks = np.ascontiguousarray(rows, np.float32).reshape(-1, quant.block)
    return quant.quantise(blocks).reshape(len(rows), -1)
