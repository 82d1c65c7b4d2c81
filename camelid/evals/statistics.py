"""Figures over items with their errors, and whether two models differ by more than noise.

Every figure is a function of the items' weights, all 1; the bootstrap draws other weights (Efron & Tibshirani, 1993).
Errors: the sample formula for means; clustered where items of a group are not independent; the linear approximation
for ratios (Miller, "Adding Error Bars to Evals", 2024, sections 2 to 4; Cochran, "Sampling Techniques", 6.4).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camelid.evals.task import Metric

SAMPLES = 1000  # of the bootstrap
SEED = 1234
_Z = 1.959963984540054  # of a two-sided 95 % interval
_BYTES = 1 << 26  # of weights that are held at a time

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One item's scores, as `Verdict.scores`, and its group."""

    group: str | None
    scores: Mapping[str, float | None]


@dataclass(frozen=True)
class Figure:
    """A metric over items.

    Attributes:
        value: the figure.
        stderr: its standard error; None where that cannot be told, as of one item.
        low, high: the 95 % interval of the bootstrap; None as `stderr`.
        n: items that count.
        n_unparsable: of them, or beside them, those whose answer could not be read.
    """

    value: float
    stderr: float | None
    low: float | None
    high: float | None
    n: int
    n_unparsable: int = 0


@dataclass(frozen=True)
class Comparison:
    """Two results on the same items, second less first.

    Attributes:
        difference: of the means.
        stderr, low, high: of the paired differences: standard error, and the 95 % interval that follows.
        n: items that both have.
        only_first, only_second: items that only the one got right, where scores are 0 and 1; else None.
        p: of the exact McNemar test where scores are 0 and 1, else of the paired z test: how often chance alone makes
            so large a difference.
    """

    difference: float
    stderr: float | None
    low: float | None
    high: float | None
    n: int
    only_first: int | None
    only_second: int | None
    p: float | None

    @property
    def is_noise(self) -> bool:
        """Whether the difference is no more than chance makes one time in twenty."""
        return self.p is None or self.p >= 0.05


def figure(metric: Metric, rows: Sequence[Row], clustered: bool = False, interval: bool = True) -> Figure | None:
    """A metric over the rows that have its score; None if there are none.

    Args:
        clustered: items of a group are drawn together.
        interval: also the bootstrap's, which takes a moment.
    """
    having = [row for row in rows if metric.score in row.scores]
    n_unparsable = sum(row.scores[metric.score] is None for row in having)
    if metric.unparsable == "out":
        having = [row for row in having if row.scores[metric.score] is not None]
    if not having:
        return None
    parts = _Parts(metric, having)
    value = float(parts.values(np.ones((1, len(having))))[0])
    stderr = _stderr(parts, value, clustered)
    low = high = None
    if interval and stderr is not None:
        drawn = parts.values_of(parts.strata(clustered))
        low, high = (float(each) for each in np.quantile(drawn, (0.025, 0.975)))
    return Figure(value, stderr, low, high, len(having), n_unparsable)


class _Parts:
    """A metric's numbers of each item: above and below the line, and the item's group as a number."""

    def __init__(self, metric: Metric, rows: Sequence[Row]) -> None:
        self.how = metric.how
        self.above = np.array([row.scores[metric.score] or 0.0 for row in rows], dtype=np.float64)
        per = metric.per
        self.below = np.array([1.0 if per is None else row.scores.get(per) or 0.0 for row in rows], dtype=np.float64)
        numbers: dict[str | None, int] = {}
        self.groups: NDArray[np.int64] = np.array([numbers.setdefault(row.group, len(numbers)) for row in rows])
        self.n_groups = len(numbers)

    def values(self, weights: Numbers) -> Numbers:
        """The figure for each row of weights, (samples, items) → (samples,)."""
        if self.how == "macro":
            in_group = np.zeros((len(self.groups), self.n_groups))
            in_group[np.arange(len(self.groups)), self.groups] = 1
            means = ((weights * self.above) @ in_group) / (weights @ in_group)
            mean: Numbers = means.mean(axis=1)
            return mean
        ratio: Numbers = (weights @ self.above) / (weights @ self.below)
        if self.how == "exp":
            return np.exp(ratio)
        return ratio / math.log(2) if self.how == "bits" else ratio

    def strata(self, clustered: bool) -> list[list[NDArray[np.int64]]]:
        """What is drawn from what: items from all, clusters from all, or, for a mean of groups, items from each."""
        members = [np.flatnonzero(self.groups == group) for group in range(self.n_groups)]
        if self.how == "macro":
            return [[np.array([item]) for item in own] for own in members]
        return [members] if clustered else [[np.array([item]) for item in range(len(self.groups))]]

    def values_of(self, strata: list[list[NDArray[np.int64]]]) -> Numbers:
        """The figure of `SAMPLES` draws."""
        rng = np.random.default_rng(SEED)
        n_items = len(self.groups)
        at_once = max(1, min(SAMPLES, _BYTES // (8 * n_items)))
        drawn = []
        for start in range(0, SAMPLES, at_once):
            weights = np.zeros((min(at_once, SAMPLES - start), n_items))
            for units in strata:
                counts = rng.multinomial(len(units), [1 / len(units)] * len(units), size=len(weights))
                lengths = [len(unit) for unit in units]
                weights[:, np.concatenate(units)] = np.repeat(counts, lengths, axis=1)
            drawn.append(self.values(weights))
        return np.concatenate(drawn)


def _stderr(parts: _Parts, value: float, clustered: bool) -> float | None:
    if parts.how == "macro":
        return _stderr_of_macro(parts)
    ratio = {"exp": math.log(value) if value > 0 else 0.0, "bits": value * math.log(2)}.get(parts.how, value)
    rest: Numbers = parts.above - ratio * parts.below  # of a mean: what lies between an item and the mean
    if clustered:
        rest = np.bincount(parts.groups, weights=rest).astype(np.float64)
    n = len(rest)
    if n < 2:
        return None
    error = math.sqrt(float(rest @ rest) * n / (n - 1)) / float(parts.below.sum())
    return error * {"exp": value, "bits": 1 / math.log(2)}.get(parts.how, 1.0)


def _stderr_of_macro(parts: _Parts) -> float | None:
    total = 0.0
    for group in range(parts.n_groups):
        own = parts.above[parts.groups == group]
        if len(own) < 2:
            return None
        total += float(own.var(ddof=1)) / len(own)
    return math.sqrt(total) / parts.n_groups


def compare(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """The paired difference of two models' scores of the same items, in the same order: second less first."""
    pairs = np.array([first, second], dtype=np.float64)
    gaps = pairs[1] - pairs[0]
    n = len(gaps)
    difference = float(gaps.mean())
    stderr = math.sqrt(float(gaps.var(ddof=1)) / n) if n > 1 else None
    low, high = (None, None) if stderr is None else (difference - _Z * stderr, difference + _Z * stderr)
    if np.isin(pairs, (0.0, 1.0)).all():
        only_first, only_second = int((gaps < 0).sum()), int((gaps > 0).sum())
        return Comparison(difference, stderr, low, high, n, only_first, only_second, mcnemar(only_first, only_second))
    p = None
    if stderr is not None:
        p = math.erfc(abs(difference) / stderr / math.sqrt(2)) if stderr > 0 else float(difference == 0)
    return Comparison(difference, stderr, low, high, n, None, None, p)


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p of the exact McNemar test: how often fair coins fall so unevenly."""
    n, fewer = only_first + only_second, min(only_first, only_second)
    if n == 0:
        return 1.0
    tail = ways = 1
    for k in range(fewer):  # exact; each binomial from the one before, since thousands of them take seconds otherwise
        ways = ways * (n - k) // (k + 1)
        tail += ways
    return min(1.0, 2 * tail / 2**n)


def figures(
    metrics: Sequence[Metric], rows: Sequence[Row], clustered: bool = False, interval: bool = True
) -> dict[str, Figure]:
    """All metrics that the rows have a score for, by name."""
    found = {metric.name: figure(metric, rows, clustered, interval) for metric in metrics}
    return {name: each for name, each in found.items() if each is not None}


def as_json(figure: Figure) -> dict[str, Any]:
    """A figure as JSON values."""
    shown: dict[str, Any] = {"value": figure.value, "stderr": figure.stderr, "low": figure.low, "high": figure.high}
    shown["n"] = figure.n
    if figure.n_unparsable:
        shown["n_unparsable"] = figure.n_unparsable
    return shown
