"""Voters of few votes, judged together: five votes name nobody, but a thousand such voters can favour one model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camelid.arena.battles import UNKNOWN, Battles
from camelid.arena.fraud.voters import STAKES, Floats, in_order, scores
from camelid.arena.ratings.counts import Counts, Pairs
from camelid.arena.ratings.fit import likeliest
from camelid.arena.ratings.links import LINKS, sigmoid


@dataclass(frozen=True)
class Favoured:
    """A model that newcomers together vote for, or against.

    Attributes:
        model: number into `Battles.models`.
        way: 1 for, -1 against.
        votes: (K,) places of newcomers' votes in its battles.
        stake: logarithm of the largest stake.
    """

    model: int
    way: int
    votes: NDArray[np.int64]
    stake: float


def newcomers(battles: Battles, few: int) -> NDArray[np.bool_]:
    """(N,) votes of voters with fewer than `few`."""
    known = battles.voter != UNKNOWN
    votes = np.bincount(battles.voter[known], minlength=len(battles.voters))
    return known & (votes[battles.voter] < few)


def favoured(battles: Battles, new: NDArray[np.bool_], alarm: float, taste: float) -> list[Favoured]:
    """Models that the votes `new` favour or avoid against the board of all others, by the test of `voters.py`.

    Each model and way is a bet of its own at alarm/2M. The strongest comes first; another one counts only if it also
    holds without the votes found before it, since whoever favours one model avoids its rivals. Where newcomers cast
    more votes than all others, there is no board to judge them by, and nothing is found.
    """
    rows = np.flatnonzero(new & (battles.a != battles.b))
    if not len(rows) or 2 * len(rows) > len(battles):
        return []
    strength = likeliest(LINKS["half-wins"], Pairs.of(Counts.of(battles.take(~new))))[0][:-1]
    rows = in_order(battles, rows)
    a, b = battles.a[rows], battles.b[rows]
    surprise = scores(battles)[rows] - sigmoid(strength[a] - strength[b])
    limit = np.log(2 * len(battles.models) / alarm)
    bets = {
        (int(model), way): _gained(a, b, surprise, model, way) for model in np.unique(np.r_[a, b]) for way in (1, -1)
    }
    over = {bet: stake for bet, gained in bets.items() if (stake := _largest(gained - taste)) >= limit}
    left, found = np.ones(len(rows), bool), []
    for (model, way), stake in sorted(over.items(), key=lambda item: -item[1]):
        own = ((a == model) | (b == model)) & left
        if _largest(_gained(a[own], b[own], surprise[own], model, way) - taste) >= limit:
            found.append(Favoured(model, way, rows[own], stake))
            left &= ~own
    return found


def _gained(a: NDArray[np.int32], b: NDArray[np.int32], surprise: Floats, model: int, way: int) -> Floats:
    """(K,) what a model gained beyond expectation in each of its battles, or lost where way is -1."""
    own = (a == model) | (b == model)
    gained: Floats = way * np.where(a == model, 1, -1)[own] * surprise[own]
    return gained


def _largest(won: Floats) -> float:
    """Logarithm of the largest stake when each share of `STAKES` is bet with a third of the start."""
    if not len(won):
        return 0.0
    logs = np.cumsum(np.log1p(won[:, None] * STAKES), axis=0)
    top = logs.max(axis=1)
    return float((top + np.log(np.exp(logs - top[:, None]).mean(axis=1))).max())
