"""Figures, their errors and comparisons: against SciPy, worked examples, and what must hold of any numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camelid.evals.statistics import Row, compare, figure, mcnemar
from camelid.evals.task import Metric

stats = pytest.importorskip("scipy.stats")
ACC = Metric("acc", "acc")


def rows(values, groups=None):
    return [Row(None if groups is None else groups[at], {"acc": value}) for at, value in enumerate(values)]


@pytest.mark.parametrize("n", [2, 17, 400])
def test_a_mean_has_the_sample_formula(n):
    values = np.random.default_rng(n).random(n)
    found = figure(ACC, rows(values))
    assert found.value == pytest.approx(values.mean())
    assert found.stderr == pytest.approx(stats.sem(values))


def test_one_item_has_no_error():
    found = figure(ACC, rows([1.0]))
    assert (found.value, found.stderr, found.low) == (1.0, None, None)


def test_the_bootstrap_is_scipys():
    values = (np.random.default_rng(3).random(200) < 0.3).astype(float)
    found = figure(ACC, rows(values))
    theirs = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", random_state=1)
    assert found.low == pytest.approx(theirs.confidence_interval.low, abs=0.01)
    assert found.high == pytest.approx(theirs.confidence_interval.high, abs=0.01)
    assert found == figure(ACC, rows(values))  # the same at every run


def test_items_of_a_cluster_count_as_one_where_they_are_alike():
    """Each item five times: the error is that of the items once, of n clusters."""
    values = np.random.default_rng(5).random(40)
    many = figure(ACC, rows(np.repeat(values, 5), np.repeat(np.arange(40), 5).astype(str)), clustered=True)
    once = figure(ACC, rows(values))
    assert many.value == pytest.approx(once.value)
    assert many.stderr == pytest.approx(once.stderr)
    assert many.high - many.low == pytest.approx(once.high - once.low, rel=0.15)
    assert figure(ACC, rows(np.repeat(values, 5))).stderr < 0.5 * once.stderr


def test_micro_and_macro():
    values, groups = [1.0, 1.0, 0.0, 0.0, 0.0, 1.0], ["a", "a", "b", "b", "b", "b"]
    assert figure(ACC, rows(values, groups)).value == pytest.approx(3 / 6)
    macro = figure(Metric("m", "acc", how="macro"), rows(values, groups))
    assert macro.value == pytest.approx((1 + 1 / 4) / 2)
    assert macro.stderr == pytest.approx(math.sqrt(0 + np.var([0, 0, 0, 1], ddof=1) / 4) / 2)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=60))
def test_macro_lies_among_the_groups(pairs):
    made = [Row(str(group), {"acc": float(right)}) for group, right in pairs]
    macro = figure(Metric("m", "acc", how="macro"), made, interval=False).value
    means = [np.mean([right for group, right in pairs if group == own]) for own in {group for group, _ in pairs}]
    assert min(means) - 1e-12 <= macro <= max(means) + 1e-12
    assert macro == pytest.approx(float(np.mean(means)))


def test_unparsable_answers_are_counted_apart():
    made = rows([1.0, None, 0.0, None])
    zero, out = figure(ACC, made), figure(Metric("acc", "acc", unparsable="out"), made)
    assert (zero.value, zero.n, zero.n_unparsable) == (0.25, 4, 2)
    assert (out.value, out.n, out.n_unparsable) == (0.5, 2, 2)
    assert figure(Metric("other", "other"), made) is None


def test_perplexity_and_bits_per_byte():
    made = [Row(None, {"nll": n * math.log(256), "tokens": float(n), "bytes": 2.0 * n}) for n in (3, 5, 9)]
    perplexity = figure(Metric("p", "nll", how="exp", per="tokens"), made)
    assert perplexity.value == pytest.approx(256)
    assert perplexity.stderr == pytest.approx(0, abs=1e-6)
    assert figure(Metric("b", "nll", how="bits", per="bytes"), made).value == pytest.approx(4)


def test_the_error_of_a_ratio_is_what_the_bootstrap_finds():
    rng = np.random.default_rng(7)
    sizes = rng.integers(50, 500, 300).astype(float)
    made = [Row(None, {"nll": float(3 * n + rng.normal() * n / 3), "tokens": n}) for n in sizes]
    for how in ("ratio", "bits", "exp"):
        found = figure(Metric("p", "nll", how=how, per="tokens"), made)
        assert found.high - found.low == pytest.approx(2 * 1.96 * found.stderr, rel=0.1)


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (5, 15), (1, 9), (40, 41), (300, 340)])
def test_mcnemar_is_the_binomial_test(only_first, only_second):
    n = only_first + only_second
    wanted = stats.binomtest(only_first, n, 0.5).pvalue if n else 1.0
    assert mcnemar(only_first, only_second) == pytest.approx(wanted)


def test_two_models_on_the_same_items():
    rng = np.random.default_rng(11)
    first = rng.random(500)
    second = first + rng.normal(0.02, 0.1, 500)
    found = compare(first, second)
    assert found.difference == pytest.approx(float((second - first).mean()))
    assert found.stderr == pytest.approx(stats.sem(second - first))
    assert found.p == pytest.approx(2 * stats.norm.sf(found.difference / found.stderr))
    assert not found.is_noise
    right = compare([1, 1, 0, 0, 1.0], [1, 0, 1, 1, 1.0])
    assert (right.only_first, right.only_second) == (1, 2)
    assert right.is_noise
    assert compare([0.5, 0.5], [0.5, 0.5]).is_noise
