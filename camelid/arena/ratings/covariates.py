"""Bradley–Terry with further columns: ratings for answers that are alike in length, style or whatever else was counted.

The log-odds of a vote are the difference of strengths plus a coefficient times each column; all are fitted together
(Chatbot Arena's style control, LMSYS 2024). Each step of Newton's method goes once through the battles, a cacheful at
a time, and adds up by pair.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from camelid.arena.battles import Battles
from camelid.arena.ratings.board import Coefficient
from camelid.arena.ratings.counts import Counts, Pairs
from camelid.arena.ratings.elo import scores
from camelid.arena.ratings.fit import likeliest, ridge
from camelid.arena.ratings.links import LINKS, sigmoid
from camelid.arena.ratings.options import RateOptions
from camelid.arena.ratings.scale import anchored, ratings, widths, z
from camelid.errors import NumericsError, OptionError, one_of

Floats = NDArray[np.float64]
STYLE = ("tokens", "headers", "lists", "bold")
_AT_ONCE = 1 << 15  # battles that stay in the processor's cache
_SAMPLE = 200_000  # battles from which the first guess comes
_ROUNDS = 60
_CLOSE = 3e-6  # what is left after such a step is its square


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
        a, b = column.T
        column = (a - b) / (np.abs(a) + np.abs(b) + 1)
    size = float(np.sqrt(np.vdot(column, column) / max(len(column), 1)))
    if not np.isfinite(size):
        unsaid = int((~np.isfinite(column)).sum())
        raise OptionError(f"columns: {name!r} is not said for {unsaid} of {len(column)} battles", param="covariates")
    return column / size if size else column


@dataclass(frozen=True)
class _Rows:
    """N battles of M models.

    Attributes:
        m: M.
        pair: (N,) side A's model × M + side B's.
        score: (N,) what side A got.
        x: (K, N) columns.
        weight: (M × M,) of a pair's votes.
    """

    m: int
    pair: NDArray[np.int64]
    score: Floats
    x: Floats
    weight: Floats

    def some(self, most: int) -> _Rows:
        """Every so-manieth battle."""
        every = slice(None, None, max(1, len(self.score) // most))
        x = np.ascontiguousarray(self.x[:, every])
        return _Rows(self.m, np.ascontiguousarray(self.pair[every]), self.score[every], x, self.weight)


@dataclass
class _Sums:
    """What battles add up to at a point: likelihood, slope and curvature by M + K parameters; the strengths' own
    curvatures; squared slopes, where asked for."""

    value: float
    slope: Floats
    curvature: Floats
    own: Floats
    squared: Floats


def _sums(data: _Rows, at: Floats, style_ridge: float, squares: bool = False) -> _Sums:
    m, k = data.m, len(data.x)
    strength, coefficients = at[:m], at[m:]
    gaps = np.subtract.outer(strength, strength).ravel()
    by_pair = np.zeros(
        (2 + k + squares * (1 + k), m * m)
    )  # slopes; curvature and it times each column; the squares' same
    column_slope, blocks, value = np.zeros(k), np.zeros((2, k, k)), 0.0
    weighted = bool((data.weight != 1).any())
    at_once = max(_AT_ONCE, 2 * m * m)
    for low in range(0, len(data.score), at_once):
        rows = slice(low, low + at_once)
        x, score, pair = data.x[:, rows], data.score[rows], data.pair[rows]
        d = gaps[pair] + coefficients @ x
        small = np.exp(-np.abs(d))
        p = np.where(d >= 0, 1.0, small) / (1 + small)
        off, curved = score - p, p * (1 - p)
        gained = score * d - np.maximum(d, 0) - np.log1p(small)
        if weighted:
            weight = data.weight[pair]
            off, curved, gained = off * weight, curved * weight, gained * weight
        value += float(gained.sum())
        column_slope += x @ off
        by_pair[0] += np.bincount(pair, off, m * m)
        for n, each in enumerate((curved, off * off) if squares else (curved,)):
            times = x * each
            blocks[n] += times @ x.T
            for row, column in enumerate((each, *times), 1 + n * (1 + k)):
                by_pair[row] += np.bincount(pair, column, m * m)
    tables = by_pair.reshape(-1, m, m)
    curvature = _assembled(tables[1 : 2 + k], blocks[0])
    squared = _assembled(tables[2 + k :], blocks[1]) if squares else np.zeros((0, 0))
    own = curvature.diagonal()[:m].copy()
    curvature[np.arange(m, m + k), np.arange(m, m + k)] += style_ridge
    slope = np.append(_by_model(tables[0]), column_slope - style_ridge * coefficients)
    return _Sums(value - style_ridge * float(coefficients @ coefficients) / 2, slope, curvature, own, squared)


def _by_model(table: Floats) -> Floats:
    """(M, M) sums by sides, as what they add to each model: + on side A, - on side B."""
    found: Floats = table.sum(axis=1) - table.sum(axis=0)
    return found


def _assembled(tables: Floats, block: Floats) -> Floats:
    """(M + K, M + K) from (1 + K, M, M) sums by sides: plain, and times each column; and the (K, K) columns' own."""
    among = -(tables[0] + tables[0].T)
    np.fill_diagonal(among, 0)
    np.fill_diagonal(among, -among.sum(axis=1))
    across = np.stack([_by_model(table) for table in tables[1:]], axis=1)
    return np.block([[among, across], [across.T, block]])


def _climb(data: _Rows, at: Floats, style_ridge: float, imagined: float) -> Floats:
    """Newton's method from a first guess; steps that go down are halved."""

    def sums(there: Floats) -> _Sums:
        return _with_imagined(_sums(data, there, style_ridge), there, data.m, imagined)

    now = sums(at)
    for _ in range(_ROUNDS):
        step = np.linalg.solve(now.curvature, now.slope)
        if np.abs(step).max() < _CLOSE:
            return at + step
        shorter = 1.0
        while (new := sums(at + shorter * step)).value < now.value - 1e-10 * abs(now.value):
            shorter /= 2
            if shorter < 1e-9:
                return at
        at, now = at + shorter * step, new
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
    x = np.empty((len(names), len(battles)))
    for row, name in zip(x, names, strict=True):
        row[:] = differences(battles, name)
    numbers = {name: number for number, name in enumerate(counts.models)}
    place = np.array([numbers.get(name, -1) for name in battles.models], np.int32)
    pairs = Pairs.of(counts, options.pair_votes)
    pairs = replace(pairs, weight=pairs.weight * len(battles) / float(pairs.n.sum(axis=1) @ pairs.weight))
    plain, imagined = likeliest(LINKS["half-wins"], pairs)
    m = pairs.n_models
    pair = place[battles.a].astype(np.int64) * m + place[battles.b]
    data = _Rows(m, pair, scores(battles), x, pairs.weights.ravel())
    at = np.append(plain[:-1], np.zeros(len(names)))
    try:
        if len(data.score) > 2 * _SAMPLE and not imagined and len(pairs.i) * 8 < _SAMPLE:
            at = _climb(data.some(_SAMPLE), at, options.style_ridge, 0.0)
        at = _climb(data, at, options.style_ridge, imagined)
        sums = _with_imagined(_sums(data, at, options.style_ridge, squares=True), at, m, imagined)
        sums.curvature[np.arange(m), np.arange(m)] += ridge(len(battles), sums.own)
        inverse = np.linalg.inv(sums.curvature)
    except np.linalg.LinAlgError:
        raise NumericsError(f"ratings: columns {', '.join(names)} cannot be told apart") from None
    covariance = inverse @ sums.squared @ inverse
    fixed, value = anchored(counts.models, options.anchors)
    rating, half = ratings(at[:m], fixed, value), widths(covariance[:m, :m], fixed, options.level)
    sure = z(options.level) * np.sqrt(np.maximum(covariance.diagonal()[m:], 0))
    found = tuple(
        Coefficient(name, float(c), float(c - s), float(c + s)) for name, c, s in zip(names, at[m:], sure, strict=True)
    )
    return rating, rating - half, rating + half, found, imagined > 0
