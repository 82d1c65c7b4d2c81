"""The softmaxes in C++, against numpy in float64 and against their slow clear forms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

_softmax = pytest.importorskip("camelid.train._softmax", reason="the C++ part is not built")


def narrow(values):
    """Bits of bfloat16, rounded to nearest even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def wide(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32) if bits.dtype == np.uint16 else bits


def held(values, bf16):
    return narrow(values) if bf16 else np.ascontiguousarray(values, np.float32)


def tolerance(bf16):
    return {"rtol": 2**-8, "atol": 1e-30} if bf16 else {"rtol": 1e-5, "atol": 1e-30}


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 700),
    st.integers(1, 70),
    st.sampled_from([0.1, 3, 40]),
    st.booleans(),
    st.integers(1, 3),
    st.integers(0, 99),
)
def test_columns(vocab, n, spread, bf16, threads, seed):
    scores = held(np.random.default_rng(seed).normal(0, spread, (vocab, n)), bf16)
    exact = wide(scores).astype(np.float64)
    top, total = np.empty(n, np.float32), np.empty(n)
    _softmax.power_columns(scores, top, total, threads)
    np.testing.assert_array_equal(top, exact.max(0))
    powers = np.exp(exact - exact.max(0))
    np.testing.assert_allclose(total, powers.sum(0), rtol=1e-6)
    seen = powers > 1e-30  # smaller ones end at 2^-126, which no sum feels
    np.testing.assert_allclose(wide(scores)[seen], powers[seen], **tolerance(bf16))
    assert wide(scores)[~seen].max(initial=0) < 1e-29


def test_many_small_ones_are_not_worn_down_and_threads_change_nothing():
    scores = np.zeros((200_003, 3), np.float32)
    scores[7] = 12
    found = []
    for threads in (1, 2, 5):
        copy, top, total = scores.copy(), np.empty(3, np.float32), np.empty(3)
        _softmax.power_columns(copy, top, total, threads)
        found.append((copy.tobytes(), total.tobytes()))
        np.testing.assert_allclose(total, 1 + 200_002 * np.exp(-12.0), rtol=1.5e-6)
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_seen_in_the_sum(bad):
    for bf16 in (False, True):
        values = np.zeros((40, 33))
        values[5, 32] = bad
        scores, top, total = held(values, bf16), np.empty(33, np.float32), np.empty(33)
        _softmax.power_columns(scores, top, total, 1)
        assert np.isnan(total[32])
        assert np.isfinite(total[:32]).all()


@st.composite
def attentions(draw):
    """Rows, tokens, first key's place, key heads, queries that share them, and where documents begin."""
    rows, tokens, earlier, heads, share = (
        draw(st.integers(*ends)) for ends in ((1, 3), (1, 40), (0, 50), (1, 3), (1, 3))
    )
    first = draw(st.integers(0, earlier))
    begins = [[draw(st.integers(first, earlier + token)) for token in range(tokens)] for _ in range(rows)]
    return rows, tokens, earlier, first, heads, share, np.array(begins, np.int64)


@settings(max_examples=40, deadline=None)
@given(attentions(), st.booleans(), st.integers(1, 3), st.integers(0, 99))
def test_attention(case, bf16, threads, seed):
    rows, tokens, start, first, heads, share, begins = case
    n = start + tokens - first
    random = np.random.default_rng(seed)
    scores, grad = (held(random.normal(0, 3, (rows * heads, tokens * share, n)), bf16) for _ in range(2))
    exact, exact_grad = (wide(part).astype(np.float64) for part in (scores, grad))
    visible = np.zeros(exact.shape, bool)
    for row, token in itertools.product(range(rows), range(tokens)):
        keys = slice(begins[row, token] - first, start + token + 1 - first)
        visible[row * heads : (row + 1) * heads, token * share : (token + 1) * share, keys] = True
    powers = np.exp(exact - exact.max(-1, keepdims=True, where=visible, initial=-np.inf)) * visible
    weights = powers / powers.sum(-1, keepdims=True)
    _softmax.attention_rows(scores, begins, start, first, threads)
    assert not wide(scores)[~visible].any()
    np.testing.assert_allclose(wide(scores), weights, **tolerance(bf16))

    given_weights = wide(scores).astype(np.float64)
    expected = given_weights * (exact_grad - (given_weights * exact_grad).sum(-1, keepdims=True))
    _softmax.attention_gradient_rows(grad, scores, begins, start, first, threads)
    assert not wide(grad)[~visible].any()
    np.testing.assert_allclose(wide(grad), expected, rtol=2**-8 if bf16 else 1e-4, atol=1e-6)


def test_arrays_that_do_not_fit_are_refused():
    scores, begins = np.zeros((4, 6, 8), np.float32), np.zeros((2, 3), np.int64)
    with pytest.raises(ValueError, match="shapes do not fit"):
        _softmax.attention_rows(scores, begins, 4, 0, 1)  # 7 keys
    with pytest.raises(ValueError, match="does not see itself"):
        _softmax.attention_rows(scores, begins + 6, 5, 0, 1)
    with pytest.raises(ValueError, match="does not see itself"):
        _softmax.attention_rows(scores, begins, 6, 1, 1)  # a document begins before the first key
    with pytest.raises(ValueError, match="another shape"):
        _softmax.attention_gradient_rows(scores, np.zeros((4, 6, 9), np.float32), begins, 5, 0, 1)
    with pytest.raises(ValueError, match="number of columns"):
        _softmax.power_columns(np.zeros((4, 6), np.float32), np.zeros(5, np.float32), np.zeros(6), 1)
    with pytest.raises(TypeError):
        _softmax.power_columns(np.zeros((4, 6)), np.zeros(6, np.float32), np.zeros(6), 1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_slow_clear_forms_agree(dtype, monkeypatch):
    torch = pytest.importorskip("torch")
    from camelid.train import softmax

    torch.manual_seed(0)
    seen = softmax.Seen(20, 4, torch.tensor([[4] * 12, [4] * 5 + [25] * 7]))
    columns, squares, grads = (
        torch.randn(shape).to(getattr(torch, dtype)) for shape in ((300, 40), (4, 24, 28), (4, 24, 28))
    )

    def results():
        weights = squares.clone()
        softmax.attention_weights(weights, seen)
        gradient = softmax.attention_gradient(grads.clone(), weights, seen)
        return *softmax.powers_over(columns.clone(), fuse=False), weights, gradient

    fast = results()
    monkeypatch.setattr(softmax, "_cpp", lambda: None)
    for quick, slow in zip(fast, results(), strict=True):
        torch.testing.assert_close(quick, slow, **({} if dtype == "float32" else {"rtol": 0.02, "atol": 1e-3}))
