"""Log-sums of logits: C++, its clear twin in NumPy, and SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from camelid.engine import _cpu, scoring
from camelid.engine.backend_cpu import instruction_sets
from camelid.engine.scoring import log_sums, numpy_log_sums
from camelid.errors import NumericsError


def random_rows(n, width, scale, seed):
    """Some with ties, and with ids that may not come."""
    rng = np.random.default_rng(seed)
    rows = (rng.standard_normal((n, width)) * scale).astype(np.float32)
    rows[::2] = rows[::2].round()
    rows[1::2, rng.integers(0, width, width // 3)] = -np.inf
    rows[:, rng.integers(0, width)] = rng.standard_normal(n)
    return rows


@pytest.mark.parametrize("isa", instruction_sets())
@settings(max_examples=30, deadline=None)
@given(width=st.integers(1, 9000), scale=st.sampled_from([0.0, 0.01, 1.0, 5.0, 40.0]), seed=st.integers(0, 99))
def test_log_sums_are_scipys(isa, width, scale, seed):
    rows = random_rows(4, width, scale, seed)
    sums, best = np.empty(4), np.empty(4, np.int64)
    _cpu.log_sums(isa, rows, sums, best)
    np.testing.assert_allclose(sums, logsumexp(rows.astype(np.float64), axis=1), rtol=0, atol=2e-7)
    np.testing.assert_array_equal(best, rows.argmax(axis=1))
    twin, twins_best = numpy_log_sums(rows)
    np.testing.assert_allclose(sums, twin, rtol=0, atol=3e-7)
    np.testing.assert_array_equal(best, twins_best)


def test_log_probabilities_are_torchs():
    torch = pytest.importorskip("torch")
    rows = random_rows(6, 49152, 3.0, 1)
    sums, _ = log_sums(rows)
    expected = torch.log_softmax(torch.from_numpy(rows).double(), dim=-1).numpy()
    np.testing.assert_allclose(rows - sums[:, None], expected, rtol=0, atol=1e-7)


def test_a_rows_sum_does_not_depend_on_its_neighbours():
    rows = random_rows(9, 4999, 2.0, 2)
    together, _ = log_sums(rows)
    for row, log_sum in zip(rows, together, strict=True):
        assert log_sums(row[None])[0][0] == log_sum


@pytest.mark.parametrize("in_cpp", [True, False])
@pytest.mark.parametrize("place", [0, 63, 64, 199])
@pytest.mark.parametrize(
    ("value", "words"), [(np.nan, "not finite"), (np.inf, "not finite"), (None, "no id may come next")]
)
def test_rows_that_are_not_of_numbers_are_refused(monkeypatch, in_cpp, place, value, words):
    if not in_cpp:
        monkeypatch.setattr(scoring, "_cpu", None)
    rows = random_rows(3, 200, 1.0, 3)
    if value is None:
        rows[1] = -np.inf
    else:
        rows[1, place] = value
    with pytest.raises(NumericsError, match=words):
        log_sums(rows)


def test_arrays_of_another_shape_are_refused():
    rows = random_rows(3, 20, 1.0, 3)
    with pytest.raises(ValueError, match="shape"):
        _cpu.log_sums("", rows, np.empty(2), np.empty(3, np.int64))
    with pytest.raises(ValueError, match="shape"):
        _cpu.log_sums("", rows[:, :0].copy(), np.empty(3), np.empty(3, np.int64))
