"""Voters who copy each other, or are a script: the same votes on the same questions, and a pace that no person has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, lgamma, log, log1p

import numpy as np
from numpy.typing import NDArray

from camelid.arena.battles import UNKNOWN, Battles

Ints = NDArray[np.int64]
NEIGHBOURS = 200  # of votes on one item that are compared with each other, at most
STEADY, STEADY_VOTES = 0.05, 20  # a script's gaps differ by less than a twentieth


@dataclass(frozen=True)
class Alike:
    """Two voters who agree more than chance allows.

    Attributes:
        first, second: numbers into `Battles.voters`; the first voted earlier.
        items: that both voted on.
        same: on which they agreed.
        chance: bound on the chance that any two honest voters of the log agree so often.
    """

    first: int
    second: int
    items: int
    same: int
    chance: float


@dataclass(frozen=True)
class Pace:
    """A voter too quick, or too steady, for a person: gaps in seconds."""

    voter: int
    hasty: int
    median: float
    steady: bool


def alike(battles: Battles, alarm: float, more: float) -> list[Alike]:
    """Pairs of voters that agree on the same items more often than two honest ones would, by an exact binomial test.

    An item is two models and a question; each voter's first vote on it counts. Two honest voters agree at most as often
    as the middle voter agrees with all others (weighted by votes), and `more`; nearly half of the votes may be copies,
    and the middle voter is still no copy. With Q pairs that are compared, a pair is named at alarm/Q (Bonferroni): the
    chance that any honest pair is named is at most `alarm`.
    """
    u, v, same = _met(battles)
    if not len(u):
        return []
    code = u * len(battles.voters) + v
    pairs, place = np.unique(code, return_inverse=True)
    items, agreed = np.bincount(place), np.bincount(place, same).astype(np.int64)
    usual = min(0.99, _usual(u, v, same, battles) + more)
    found = []
    for k in np.flatnonzero(agreed / items > usual):
        bound = min(1.0, len(pairs) * binomial_tail(int(items[k]), int(agreed[k]), usual))
        if bound <= alarm:
            first, second = (int(each) for each in divmod(int(pairs[k]), len(battles.voters)))
            found.append(Alike(first, second, int(items[k]), int(agreed[k]), bound))
    first_vote = _first_votes(battles)
    return [x if first_vote[x.first] <= first_vote[x.second] else _turned(x) for x in found]


def _turned(x: Alike) -> Alike:
    return Alike(x.second, x.first, x.items, x.same, x.chance)


def _met(battles: Battles) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """Two voters' votes on the same item: (K,) the lower voter, the higher one, whether they agree."""
    if len(battles.prompt) != len(battles):
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, bool)
    rows = np.flatnonzero((battles.voter != UNKNOWN) & (battles.prompt != UNKNOWN) & (battles.a != battles.b))
    a, b = battles.a[rows].astype(np.int64), battles.b[rows].astype(np.int64)
    m = len(battles.models)
    item = (battles.prompt[rows].astype(np.int64) * m + np.minimum(a, b)) * m + np.maximum(a, b)
    outcome = np.minimum(battles.winner[rows], 2).astype(np.int64)
    outcome = np.where((a > b) & (outcome < 2), 1 - outcome, outcome)
    voter = battles.voter[rows].astype(np.int64)
    order = np.lexsort((voter, item))
    item, voter, outcome = item[order], voter[order], outcome[order]
    once = np.append(True, (item[1:] != item[:-1]) | (voter[1:] != voter[:-1]))[: len(item)]
    item, voter, outcome = item[once], voter[once], outcome[once]
    met = list(_neighbours(item, voter, outcome))
    if not met:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, bool)
    u, v, same = (np.concatenate(each) for each in zip(*met, strict=True))
    return u, v, same


def _neighbours(item: Ints, voter: Ints, outcome: Ints) -> Iterator[tuple[Ints, Ints, NDArray[np.bool_]]]:
    for distance in range(1, min(NEIGHBOURS, len(item))):
        rows = np.flatnonzero(item[distance:] == item[:-distance])
        if not len(rows):
            return
        yield voter[rows], voter[rows + distance], outcome[rows] == outcome[rows + distance]


def _usual(u: Ints, v: Ints, same: NDArray[np.bool_], battles: Battles) -> float:
    """How often the middle voter, weighted by votes, agrees with others."""
    both, agreed, n = np.r_[u, v], np.r_[same, same], len(battles.voters)
    met = np.bincount(both, minlength=n)
    votes = np.bincount(battles.voter[battles.voter != UNKNOWN], minlength=n)
    known = met > 0
    return _middle(np.bincount(both, agreed, n)[known] / met[known], votes[known])


def _middle(values: NDArray[np.float64], weights: Ints) -> float:
    """The weighted median."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, reached[-1] / 2)])


def _first_votes(battles: Battles) -> Ints:
    """(V,) place of each voter's first vote, by time where all say it, else in the log."""
    time = battles.time
    order = np.arange(len(battles)) if np.isnan(time).any() else np.argsort(time, kind="stable")
    place = np.full(len(battles.voters), len(battles), np.int64)
    known = battles.voter[order] != UNKNOWN
    np.minimum.at(place, battles.voter[order][known], np.flatnonzero(known))
    return place


def binomial_tail(n: int, k: int, p: float) -> float:
    """Chance of k or more of n, each of chance p."""
    terms = [
        lgamma(n + 1) - lgamma(x + 1) - lgamma(n - x + 1) + x * log(p) + (n - x) * log1p(-p) for x in range(k, n + 1)
    ]
    return min(1.0, sum(exp(term) for term in terms))


def too_quick(battles: Battles, fastest: float, hasty: int) -> list[Pace]:
    """Voters with `hasty` votes or more within `fastest` seconds of their last one, or whose gaps are a clock's.

    Nothing is estimated here: what a person cannot do is said beforehand. Without times nobody is named.
    """
    rows = np.flatnonzero((battles.voter != UNKNOWN) & ~np.isnan(battles.time))
    rows = rows[np.lexsort((battles.time[rows], battles.voter[rows]))]
    found = []
    for own in np.split(rows, np.flatnonzero(np.diff(battles.voter[rows])) + 1):
        gaps = np.diff(battles.time[own])
        if not len(gaps):
            continue
        quick, mean = int((gaps < fastest).sum()), float(gaps.mean())
        steady = len(gaps) >= STEADY_VOTES and float(gaps.std()) < STEADY * mean
        if quick >= hasty or steady:
            found.append(Pace(int(battles.voter[own[0]]), quick, float(np.median(gaps)), steady))
    return found
