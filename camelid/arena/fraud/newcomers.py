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

    Each model and way is a bet of its own at alarm/2M. Where newcomers cast more votes than all others, there is no
    board to judge them by, and nothing is found.
    """
    rows = np.flatnonzero(new & (battles.a != battles.b))
    if not len(rows) or 2 * len(rows) > len(battles):
        return []
    strength = likeliest(LINKS["half-wins"], Pairs.of(Counts.of(battles.take(~new))))[0][:-1]
    rows = in_order(battles, rows)
    a, b = battles.a[rows], battles.b[rows]
    surprise = scores(battles)[rows] - sigmoid(strength[a] - strength[b])
    limit = np.log(2 * len(battles.models) / alarm)
    found = []
    for model in np.unique(np.r_[a, b]):
        own = (a == model) | (b == model)
        gained = np.where(a == model, 1, -1)[own] * surprise[own]
        for way in (1, -1):
            stake = _largest(way * gained - taste)
            if stake >= limit:
                found.append(Favoured(int(model), way, rows[own], stake))
    return found


def _largest(won: Floats) -> float:
    """Logarithm of the largest stake when each share of `STAKES` is bet with a third of the start."""
    logs = np.cumsum(np.log1p(won[:, None] * STAKES), axis=0)
    top = logs.max(axis=1)
    return float((top + np.log(np.exp(logs - top[:, None]).mean(axis=1))).max())
