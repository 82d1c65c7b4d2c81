"""Elo's ratings, vote by vote (Elo 1978): the order of votes counts, and late votes count most."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from camelid.arena.battles import Battles

Floats = NDArray[np.float64]
START = 1000.0


def in_order(battles: Battles) -> NDArray[np.int64]:
    """Battles between two models, by time where all say theirs, else in the log's order."""
    rows = np.flatnonzero(battles.a != battles.b)
    times = battles.time[rows]
    return rows if np.isnan(times).any() else rows[np.argsort(times, kind="stable")]


def scores(battles: Battles) -> Floats:
    """(N,) what side A got: 1 for a win, ½ for a tie of either kind, 0."""
    found: Floats = np.array([1.0, 0.0, 0.5, 0.5])[battles.winner]
    return found


def elo(battles: Battles, k: float) -> Floats:
    """(M,) ratings after all votes; each moves both models by k × (score - expected score), from 1000."""
    rows = in_order(battles)
    rating = [START] * len(battles.models)
    columns = (battles.a[rows].tolist(), battles.b[rows].tolist(), scores(battles)[rows].tolist())
    for a, b, score in zip(*columns, strict=True):
        change = k * (score - 1 / (1 + 10 ** ((rating[b] - rating[a]) / 400)))
        rating[a] += change
        rating[b] -= change
    return np.array(rating)


def elo_resampled(battles: Battles, k: float, resamples: int, seed: int) -> Floats:
    """(resamples, M) ratings, each vote taken as often as a Poisson draw of mean 1 says: a bootstrap that keeps the
    votes' order (Chamandy et al. 2012). A vote drawn twice moves twice as much."""
    rng = np.random.default_rng(seed)
    rating = np.full((len(battles.models), resamples), START)
    rows = in_order(battles)
    a, b, score = battles.a[rows], battles.b[rows], scores(battles)[rows, None]
    for low, high in _apart(a.tolist(), b.tolist(), len(battles.models)):
        first, second = a[low:high], b[low:high]
        expected = 1 / (1 + np.exp((rating[second] - rating[first]) * (np.log(10) / 400)))
        change = k * rng.poisson(1.0, expected.shape) * (score[low:high] - expected)
        rating[first] += change
        rating[second] -= change
    return rating.T


def _apart(a: list[int], b: list[int], m: int) -> Iterator[tuple[int, int]]:
    """Runs of votes in which no model comes twice: taken at once they give what they give one by one."""
    last, low = [-1] * m, 0  # the run in which a model was seen, named by its first vote
    for place, (first, second) in enumerate(zip(a, b, strict=True)):
        if last[first] == low or last[second] == low:
            yield low, place
            low = place
        last[first] = last[second] = low
    if a:
        yield low, len(a)
