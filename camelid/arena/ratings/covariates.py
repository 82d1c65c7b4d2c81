"""Bradley–Terry with further columns: ratings for answers that are alike in length, style or whatever else was counted.

The log-odds of a vote are the difference of strengths plus a coefficient times each column; all are fitted together
(Chatbot Arena's style control, LMSYS 2024). Battles are sorted by pair once, so each step of Newton's method is a few
sums along memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from camelid.arena.battles import Battles
from camelid.arena.ratings.board import Coefficient
from camelid.arena.ratings.counts import Counts, Pairs
from camelid.arena.ratings.elo import scores
from camelid.arena.ratings.fit import likeliest
from camelid.arena.ratings.links import LINKS, sigmoid
from camelid.arena.ratings.options import RateOptions
from camelid.arena.ratings.scale import anchored, ratings, widths, z
from camelid.errors import NumericsError, OptionError, one_of

Floats = NDArray[np.float64]
STYLE = ("tokens", "headers", "lists", "bold")
_AT_ONCE = 1 << 15  # battles that stay in the processor's cache
_SAMPLE = 200_000  # battles from which the first guess comes
_ROUNDS, _CLOSE = 60, 1e-9


def column_names(options: RateOptions) -> tuple[str, ...]:
    """Columns of `battles.numbers` that are taken out of the ratings."""
    return tuple(dict.fromkeys([*(STYLE if options.style else ()), *options.covariates]))


def differences(battles: Battles, name: str) -> Floats:
    """(N,) a column, seen from side A, in standard deviations about 0.

    One of two sides becomes (a - b) / (|a| + |b| + 1), as in Chatbot Arena's style control; one without sides stays as
    it is, and speaks for side A. The mean is not taken off: swapping the sides of a battle must change nothing.

    Raises:
        OptionError: no such column; one that does not say every battle's number.
    """
    if name not in battles.numbers:
        known = one_of(name, battles.numbers) if battles.numbers else "it has none"
        raise OptionError(f"columns: the log has no column {name!r}; {known}", param="covariates")
    column = battles.numbers[name]
    if column.ndim == 2:
        column = (column[:, 0] - column[:, 1]) / (np.abs(column).sum(axis=1) + 1)
    if unsaid := int((~np.isfinite(column)).sum()):
        raise OptionError(f"columns: {name!r} is not said for {unsaid} of {len(column)} battles", param="covariates")
    size = float(np.sqrt(np.mean(column**2))) if len(column) else 0.0
    return column / size if size else column


@dataclass(frozen=True)
class _Sorted:
    """N battles by pair, each seen from the model that comes first in the list.

    Attributes:
        pairs: (P,) pairs, with their weights.
        starts: (P + 1,) where each pair's battles begin.
        score: (N,) what the first model got.
        x: (K, N) columns.
    """

    pairs: Pairs
    starts: NDArray[np.int64]
    score: Floats
    x: Floats

    @classmethod
    def of(cls, pairs: Pairs, a: NDArray[np.int32], b: NDArray[np.int32], score: Floats, x: Floats) -> Self:
        m = pairs.n_models
        turned = a > b
        code = np.where(turned, b, a).astype(np.int64) * m + np.where(turned, a, b)
        order = np.argsort(code.astype(np.uint16) if m * m < 1 << 16 else code, kind="stable")
        sizes = np.bincount(code, minlength=m * m)[pairs.i * m + pairs.j]
        sign = np.where(turned, -1.0, 1.0)
        return cls(
            pairs,
            np.append(0, np.cumsum(sizes)),
            ((score - 0.5) * sign + 0.5)[order],
            np.stack([(column * sign)[order] for column in x]),
        )

    def some(self, most: int) -> Self:
        """Every so-manieth battle of them, with the pairs that these leave."""
        rows = np.arange(0, len(self.score), max(1, len(self.score) // most))
        places = np.searchsorted(self.starts, rows, side="right") - 1
        starts = np.append(0, np.cumsum(np.bincount(places, minlength=len(self.pairs.i))))
        return type(self)(self.pairs, starts, self.score[rows], self.x[:, rows])


@dataclass
class _Sums:
    """What battles add up to at a point: likelihood, slope, curvature and squared slopes, (M + K) parameters."""

    value: float
    slope: Floats
    curvature: Floats
    squared: Floats


def _sums(data: _Sorted, at: Floats, ridge: float) -> _Sums:
    pairs, m, k = data.pairs, data.pairs.n_models, len(data.x)
    strength, coefficients = at[:m], at[m:]
    gaps = strength[pairs.i] - strength[pairs.j]
    by_pair = np.zeros((3 + 2 * k, len(gaps)))  # slope, curvature, squared slope; the last two times each column
    column_slope, blocks, value = np.zeros(k), np.zeros((2, k, k)), 0.0
    for low in range(0, len(data.score), _AT_ONCE):
        high = min(low + _AT_ONCE, len(data.score))
        first, last = np.searchsorted(data.starts, [low, high - 1], side="right") - 1
        inside = slice(first, last + 1)
        cuts = np.clip(data.starts[first : last + 2], low, high) - low
        sizes = np.diff(cuts)
        x, score = data.x[:, low:high], data.score[low:high]
        d = np.repeat(gaps[inside], sizes) + coefficients @ x
        weight = np.repeat(pairs.weight[inside], sizes)
        p = sigmoid(d)
        value += float(weight @ (score * d - np.logaddexp(0, d)))
        off, curved = weight * (score - p), weight * p * (1 - p)
        rows = [off, curved, off**2]
        rows += [each * column for each in rows[1:] for column in x]
        filled = sizes > 0
        by_pair[:, first : last + 1][:, filled] += np.add.reduceat(np.stack(rows), cuts[:-1][filled], axis=1)
        column_slope += x @ off
        blocks += [(x * curved) @ x.T, (x * off**2) @ x.T]
    matrices = []
    for n, block in enumerate(blocks):
        across = np.stack([pairs.add_up(row) for row in by_pair[3 + n * k : 3 + (n + 1) * k]], axis=1)
        matrices.append(np.block([[pairs.spread(by_pair[1 + n]), across], [across.T, block]]))
    matrices[0][np.arange(m, m + k), np.arange(m, m + k)] += ridge
    slope = np.append(pairs.add_up(by_pair[0]), column_slope - ridge * coefficients)
    return _Sums(value - ridge * float(coefficients @ coefficients) / 2, slope, *matrices)


def _climb(data: _Sorted, at: Floats, ridge: float, imagined: float) -> tuple[Floats, _Sums]:
    """Newton's method from a first guess; steps that go down are halved."""
    m = data.pairs.n_models
    now = _with_imagined(_sums(data, at, ridge), at, m, imagined)
    for _ in range(_ROUNDS):
        step = np.linalg.solve(now.curvature, now.slope)
        if np.abs(step).max() < _CLOSE:
            return at, now
        shorter = 1.0
        while True:
            there = at + shorter * step
            new = _with_imagined(_sums(data, there, ridge), there, m, imagined)
            if new.value >= now.value - 1e-10 * abs(now.value):
                break
            shorter /= 2
            if shorter < 1e-9:
                return at, now
        at, now = there, new
    raise NumericsError("ratings: the fit with columns has no end; does a column tell who wins?")


def _with_imagined(sums: _Sums, at: Floats, m: int, imagined: float) -> _Sums:
    strength = at[:m]
    if imagined:
        p = sigmoid(strength)
        sums.value -= imagined * float(np.sum(np.logaddexp(0, strength) + np.logaddexp(0, -strength))) / 2
        sums.slope[:m] -= imagined * (p - 0.5)
        sums.curvature[np.arange(m), np.arange(m)] += imagined * p * (1 - p)
    else:
        sums.curvature[:m, :m] += sums.curvature[:m, :m].trace() / m**2
    return sums


def rate_with_columns(
    counts: Counts, battles: Battles, options: RateOptions
) -> tuple[Floats, Floats, Floats, tuple[Coefficient, ...], bool]:
    """(M,) ratings, lower and upper bounds (sandwich), the columns' coefficients, and whether ties were imagined.

    Raises:
        OptionError: a column that the log lacks.
        NumericsError: columns that cannot be told apart, or that tell who wins.
    """
    names = column_names(options)
    met = np.flatnonzero(battles.a != battles.b)
    battles = battles if len(met) == len(battles) else battles.take(met)
    x = np.stack([differences(battles, name) for name in names])
    numbers = {name: number for number, name in enumerate(counts.models)}
    place = np.array([numbers.get(name, -1) for name in battles.models], np.int32)
    pairs = Pairs.of(counts, 50 if options.reweighted else 0)
    plain, imagined = likeliest(LINKS["half-wins"], pairs)
    data = _Sorted.of(pairs, place[battles.a], place[battles.b], scores(battles), x)
    at = np.append(plain[:-1], np.zeros(len(names)))
    try:
        if len(data.score) > 2 * _SAMPLE and not imagined and len(pairs.i) * 8 < _SAMPLE:
            at = _climb(data.some(_SAMPLE), at, options.style_ridge, 0.0)[0]
        at, sums = _climb(data, at, options.style_ridge, imagined)
        inverse = np.linalg.inv(sums.curvature)
    except np.linalg.LinAlgError:
        raise NumericsError(f"ratings: columns {', '.join(names)} cannot be told apart") from None
    covariance = inverse @ sums.squared @ inverse
    m = pairs.n_models
    fixed, value = anchored(counts.models, options.anchors)
    rating, half = ratings(at[:m], fixed, value), widths(covariance[:m, :m], fixed, options.level)
    sure = z(options.level) * np.sqrt(np.maximum(covariance.diagonal()[m:], 0))
    found = tuple(
        Coefficient(name, float(c), float(c - s), float(c + s)) for name, c, s in zip(names, at[m:], sure, strict=True)
    )
    return rating, rating - half, rating + half, found, imagined > 0
