"""Every row of QUANTS against the gguf package."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.weights.quants import BY_GGUF_TYPE, QUANTS, UNQUANTISED, dequantise_rows, quantise_rows

gguf = pytest.importorskip("gguf")

# The package has no reader for this one, which never occurs in files.
COMPARED = [name for name in QUANTS if name != "Q8_K"]
SIMPLE = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]
SUPER = ["Q4_K", "Q5_K", "Q6_K"]
# Bits a weight has, and the root mean square error on normal numbers that such a format can be held to.
NORMAL_ERROR = {"Q4_K": 0.073, "Q5_K": 0.0365, "Q6_K": 0.0182}


def theirs(name: str, blocks: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[name]).reshape(len(blocks), -1)


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    # Which of two NaNs comes out of an addition is the processor's choice.
    both_nan = np.isnan(one) & np.isnan(other)
    return bool(((one.view(np.uint32) == other.view(np.uint32)) | both_nan).all())


@pytest.mark.parametrize("name", QUANTS)
def test_table_agrees_with_ggml(name: str) -> None:
    row = QUANTS[name]
    kind = gguf.GGMLQuantizationType[name]
    assert (row.gguf_type, (row.block, row.bytes_per_block)) == (kind.value, gguf.GGML_QUANT_SIZES[kind])
    assert BY_GGUF_TYPE[row.gguf_type] is row


@pytest.mark.parametrize("name", COMPARED)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_dequantise_any_bytes(name: str, seed: int, count: int) -> None:
    row = QUANTS[name]
    blocks = np.random.default_rng(seed).integers(0, 256, (count, row.bytes_per_block), dtype=np.uint8)
    assert same_bits(row.dequantise(blocks), theirs(name, blocks))


@pytest.mark.parametrize("name", COMPARED)
@pytest.mark.parametrize("byte", [0x00, 0x7C, 0x80, 0xFC, 0xFF])
def test_dequantise_extremes(name: str, byte: int) -> None:
    blocks = np.full((3, QUANTS[name].bytes_per_block), byte, np.uint8)
    assert same_bits(QUANTS[name].dequantise(blocks), theirs(name, blocks))


def test_dequantise_many_chunks() -> None:
    row = QUANTS["Q4_1"]
    blocks = np.random.default_rng(1).integers(0, 120, (9001, row.bytes_per_block), dtype=np.uint8)
    assert same_bits(row.dequantise(blocks), theirs("Q4_1", blocks))


def test_dequantise_q8_k() -> None:
    values = np.arange(-128, 128, dtype=np.int8)
    block = np.concatenate([np.array([0.5], "<f4").view(np.uint8), values.view(np.uint8), np.full(32, 9, np.uint8)])
    assert np.array_equal(QUANTS["Q8_K"].dequantise(block[None])[0], values * np.float32(0.5))


@pytest.mark.parametrize("name", SIMPLE)
@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([1e-30, 1e-5, 1.0, 300.0]))
@settings(max_examples=25, deadline=None)
def test_quantise_as_ggml(name: str, seed: int, size: float) -> None:
    weights = np.random.default_rng(seed).standard_normal((16, 64)).astype(np.float32) * np.float32(size)
    weights[3] = 0
    weights[4] = size
    expected = gguf.quants.quantize(weights, gguf.GGMLQuantizationType[name])
    assert np.array_equal(quantise_rows(QUANTS[name], weights), expected.view(np.uint8))


@pytest.mark.parametrize("bits", [0x7FC00001, 0x7F800001, 0xFF800001, 0x7F800000, 0x7F7FFFFF, 0x3F808000, 0x3F818000])
def test_bf16_of_odd_numbers(bits: int) -> None:
    number = np.array([[bits]], np.uint32).view(np.float32)
    expected = gguf.quants.quantize(number, gguf.GGMLQuantizationType.BF16)
    assert np.array_equal(quantise_rows(QUANTS["BF16"], number), expected.view(np.uint8))


@pytest.mark.parametrize("name", [name for name, row in QUANTS.items() if row.quantise])
def test_quantise_again_changes_nothing(name: str) -> None:
    row = QUANTS[name]
    weights = np.random.default_rng(2).standard_normal((8, 256)).astype(np.float32)
    once = dequantise_rows(row, quantise_rows(row, weights))
    twice = dequantise_rows(row, quantise_rows(row, once))
    assert np.sqrt(np.mean((twice - once) ** 2)) < 0.25 * np.sqrt(np.mean((once - weights) ** 2)) + 1e-7


@pytest.mark.parametrize("name", SUPER)
def test_k_quants_are_good(name: str) -> None:
    row = QUANTS[name]
    weights = np.random.default_rng(3).standard_normal((512, 256)).astype(np.float32)
    restored = theirs(name, quantise_rows(row, weights)).reshape(weights.shape)
    error = np.sqrt(np.mean((restored - weights) ** 2))
    assert error < NORMAL_ERROR[name]
    assert np.abs(restored - weights).max() < 12 * error


@pytest.mark.parametrize("name", SUPER)
@given(seed=st.integers(0, 2**32 - 1), shift=st.floats(-3, 3), size=st.sampled_from([0.02, 1.0, 50.0]))
@settings(max_examples=20, deadline=None)
def test_k_quants_beat_plain_rounding(name: str, seed: int, shift: float, size: float) -> None:
    """On blocks of any kind the search is no worse than rounding by the extremes with the same number of bits."""
    rng = np.random.default_rng(seed)
    weights = ((rng.standard_t(4, (16, 256)) + shift) * size).astype(np.float32)
    row, bits = QUANTS[name], int(name[1])
    error = np.mean((dequantise_rows(row, quantise_rows(row, weights)) - weights) ** 2)
    small = weights.reshape(-1, 32 if bits < 6 else 16)
    if bits < 6:
        low = np.minimum(small.min(1, keepdims=True), 0)
        step = (small.max(1, keepdims=True) - low) / (2**bits - 1)
        plain = np.round((small - low) / step) * step + low
    else:
        step = np.abs(small).max(1, keepdims=True) / 31
        plain = np.round(small / step) * step
    # The plain rounding keeps exact scales, the format must round them too: hence the margin.
    assert error <= 1.1 * np.mean((plain - small) ** 2)


@pytest.mark.parametrize("name", [name for name, row in QUANTS.items() if row.quantise and name not in UNQUANTISED])
def test_zeros_and_constants(name: str) -> None:
    row = QUANTS[name]
    weights = np.zeros((4, 256), np.float32)
    weights[1], weights[2], weights[3, 7] = 0.75, -0.75, 1e-30
    restored = dequantise_rows(row, quantise_rows(row, weights))
    assert not restored[0].any()
    assert np.abs(restored - weights).max() < 0.03
