"""Tensor: lazy, and faithful to what it was made of."""

from __future__ import annotations

import numpy as np
import pytest

from camelid.weights import QUANTS, Tensor
from camelid.weights.quants import UNQUANTISED


@pytest.mark.parametrize("quant", UNQUANTISED)
@pytest.mark.parametrize("shape", [(6, 32), (32,)])
def test_from_array(quant: str, shape: tuple[int, ...]) -> None:
    # Small whole numbers are exact in every kind.
    array = np.random.default_rng(0).integers(-100, 100, shape).astype(np.float32)
    tensor = Tensor.from_array("x", array, quant)
    assert np.array_equal(tensor.array(), array)
    assert tensor.blocks().shape == (shape[0] if len(shape) > 1 else 1, 32 * QUANTS[quant].bytes_per_block)
    assert tensor.nbytes == tensor.blocks().nbytes


def test_nothing_is_read_before_it_is_asked_for() -> None:
    reads = []
    tensor = Tensor("x", (1, 2), "F32", lambda: reads.append(1) or np.zeros((1, 8), np.uint8))
    assert tensor.nbytes == 8
    assert not reads
    tensor.array()
    assert reads == [1]


def test_array_is_the_callers_own() -> None:
    stored = np.zeros((1, 8), np.uint8)
    stored.flags.writeable = False
    array = Tensor("x", (1, 2), "F32", lambda: stored).array()
    array += 1
    assert not stored.any()
