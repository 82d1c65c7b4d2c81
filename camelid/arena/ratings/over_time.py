"""Ratings that move: Bradley–Terry in each window of time, with strengths that walk at random from window to window.

A window alone has few votes, and not every model; the walk lends it its neighbours' (Glickman 1999, "Parameter
estimation in large dynamic paired comparison experiments"). How far models walk is what makes the votes likeliest,
unless it is given. All windows are fitted at once: later votes speak about earlier windows, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camelid.arena.battles import Battles
from camelid.arena.ratings.counts import Counts, Pairs
from camelid.arena.ratings.links import LINKS
from camelid.arena.ratings.scale import POINTS, anchored, ratings, widths
from camelid.arena.ratings.threads import one_thread
from camelid.errors import NumericsError, OptionError

Floats = NDArray[np.float64]
DRIFTS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0)  # points in a window, tried in turn
SPREAD = 400.0  # points: how far apart models may be expected to begin
MOST_WINDOWS = 1000
_DAY = 86400.0
_LINK = LINKS["half-wins"]


@dataclass(frozen=True)
class OverTime:
    """T windows of M models.

    Attributes:
        models: (M,) names.
        starts: (T,) seconds since 1970.
        rating, lower, upper: (T, M) on Elo's scale; NaN before a model's first vote and after its last.
        votes: (T, M) battles of a model in a window.
        drift: points that a model's rating is expected to move in a window.
    """

    models: tuple[str, ...]
    starts: Floats
    rating: Floats
    lower: Floats
    upper: Floats
    votes: NDArray[np.int64]
    drift: float


def rate_over_time(
    battles: Battles,
    days: float = 7.0,
    drift: float | None = None,
    anchors: Mapping[str, float] | None = None,
    level: float = 0.95,
) -> OverTime:
    """Ratings by window of so many days; without anchors, all models' mean is 1000 in each.

    Raises:
        OptionError: no votes, votes without a time, or more than 1,000 windows.
    """
    starts, windows = _windows(battles, days)
    counts = [Counts.of(battles.take(rows)) for rows in windows]
    everything = Counts(battles.models, np.sum([each.table for each in counts], axis=0))
    met = np.flatnonzero(everything.votes)
    models = tuple(battles.models[k] for k in met)
    some = [Counts(models, each.table[np.ix_(met, met)]) for each in counts]
    pairs = [Pairs.of(each) for each in some]
    fixed, value = anchored(models, anchors or {})
    with one_thread():
        tried = [_Walk.fitted(pairs, each) for each in ((drift,) if drift is not None else DRIFTS)]
        best = max(tried, key=lambda walk: walk.evidence)
        half = np.stack([widths(each, fixed, level) for each in best.covariances()])
    rating = ratings(best.strength, fixed, value)
    votes = np.stack([each.votes for each in some])
    seen = (np.cumsum(votes, axis=0) > 0) & (np.cumsum(votes[::-1], axis=0)[::-1] > 0)
    rating = np.where(seen, rating, np.nan)
    return OverTime(models, starts, rating, rating - half, rating + half, votes, best.drift)


def _windows(battles: Battles, days: float) -> tuple[Floats, list[NDArray[np.int64]]]:
    """(T,) starts, and the rows of each window."""
    if not days > 0:
        raise OptionError(f"days: must be more than 0, got {days}", param="days")
    if not (battles.a != battles.b).any():
        raise OptionError("ratings: no vote between two models; nothing can be rated")
    if unsaid := int((~np.isfinite(battles.time)).sum()):
        raise OptionError(f"ratings over time: {unsaid} of {len(battles)} votes do not say their time")
    size = days * _DAY
    first = float(battles.time.min())
    number = ((battles.time - first) // size).astype(np.int64)
    n = int(number.max()) + 1
    if n > MOST_WINDOWS:
        raise OptionError(
            f"days: {n:,} windows of {days:g} days; at most {MOST_WINDOWS:,}, take longer ones", param="days"
        )
    order = np.argsort(number, kind="stable")
    starts: Floats = first + size * np.arange(n, dtype=np.float64)
    return starts, np.split(order, np.cumsum(np.bincount(number))[:-1])


@dataclass
class _Walk:
    """A fit of all windows for one drift.

    Attributes:
        drift: points in a window.
        strength: (T, M) natural logarithms of odds.
        evidence: logarithm of how likely the votes are with this drift, strengths integrated out (Laplace).
        solved: T matrices (M, M), each window's curvature with what the earlier ones say: the last is the last's own.
        tie: 1 / (drift in natural logarithms)².
    """

    drift: float
    strength: Floats
    evidence: float
    solved: list[Floats]
    tie: float

    @classmethod
    def fitted(cls, pairs: list[Pairs], drift: float) -> _Walk:
        """The likeliest strengths, by Newton's method; curvatures are tridiagonal in blocks."""
        if not drift > 0:
            raise OptionError(f"drift: must be more than 0, got {drift}", param="drift")
        tie = (POINTS / drift) ** 2
        at = np.zeros((len(pairs), pairs[0].n_models))
        value = _value(pairs, at, tie)
        for _ in range(100):
            slope, curvature = _slopes(pairs, at, tie)
            solved, step = _solve(curvature, slope, tie)
            shorter = 1.0
            while (new := _value(pairs, at + shorter * step, tie)) < value - 1e-10 * abs(value) and shorter > 1e-9:
                shorter /= 2
            at, value = at + shorter * step, new
            if np.abs(step).max() < 1e-9:
                half_log = sum(float(np.linalg.slogdet(each)[1]) for each in solved) / 2
                prior = (at.size - at.shape[1]) * np.log(tie) / 2
                return cls(drift, at, value + prior - half_log, solved, tie)
        raise NumericsError("ratings over time: the fit has no end")

    def covariances(self) -> list[Floats]:
        """(M, M) covariance of each window's strengths, from the last to the first and turned round."""
        found: list[Floats] = []
        for matrix in reversed(self.solved):
            inverse: Floats = np.linalg.inv(matrix).astype(np.float64)
            found.append(inverse + self.tie**2 * inverse @ found[-1] @ inverse if found else inverse)
        return found[::-1]


def _value(pairs: list[Pairs], at: Floats, tie: float) -> float:
    """Log-likelihood of the votes, less what a long walk costs."""
    votes = sum(
        float(np.vdot(each.n, _LINK.log_likelihood(row[each.i] - row[each.j], 0.0)))
        for each, row in zip(pairs, at, strict=True)
    )
    begin = (POINTS / SPREAD) ** 2 * float(np.sum(at[0] ** 2))
    return votes - (tie * float(np.sum(np.diff(at, axis=0) ** 2)) + begin) / 2


def _slopes(pairs: list[Pairs], at: Floats, tie: float) -> tuple[Floats, list[Floats]]:
    """(T, M) slopes, and T blocks (M, M) of the curvature's diagonal; those beside them are -tie times the identity."""
    slope, blocks = np.zeros_like(at), []
    for t, (each, row) in enumerate(zip(pairs, at, strict=True)):
        slopes = _LINK.slopes(row[each.i] - row[each.j], 0.0)
        slope[t] = each.add_up(np.einsum("pk,pk->p", each.n, slopes.d))
        neighbours = (t > 0) + (t < len(at) - 1)
        own = tie * neighbours + ((POINTS / SPREAD) ** 2 if t == 0 else 0.0)
        blocks.append(each.spread(np.einsum("pk,pk->p", each.n, slopes.dd)) + own * np.eye(len(row)))
    steps = tie * np.diff(at, axis=0)
    slope[:-1] += steps
    slope[1:] -= steps
    slope[0] -= (POINTS / SPREAD) ** 2 * at[0]
    return slope, blocks


def _solve(blocks: list[Floats], slope: Floats, tie: float) -> tuple[list[Floats], Floats]:
    """The eliminated blocks, and (T, M) the step: Gauss's elimination from the first window to the last and back."""
    solved, right = [blocks[0]], [slope[0]]
    for block, row in zip(blocks[1:], slope[1:], strict=True):
        inverse = np.linalg.inv(solved[-1])
        solved.append(block - tie**2 * inverse)
        right.append(row + tie * (inverse @ right[-1]))
    step = np.empty_like(slope)
    after = np.zeros(slope.shape[1])
    for t in range(len(solved) - 1, -1, -1):
        after = step[t] = np.linalg.solve(solved[t], right[t] + tie * after)
    return solved, step
