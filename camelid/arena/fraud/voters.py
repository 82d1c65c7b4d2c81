"""Voters whose votes are unlikely under the others' board: a sequential test with a bound on false alarms.

A voter begins with 1 and bets on each next vote before seeing it. As long as expected scores lie within `taste` of what
the others' board says, the stake does not grow on average, whatever the voter does and whenever one looks; so with V
voters, the chance that any honest one's stake ever reaches V/alarm is at most `alarm` (Ville 1939; Waudby-Smith and
Ramdas 2024, arXiv:2010.09686; a sum over voters). FastChat's product of 1/(2p) is such a stake, too: it bets that the
voter throws a coin, allows no taste, and takes the same limit for one voter as for thousands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camelid.arena.battles import UNKNOWN, Battles
from camelid.arena.fraud.influence import SCORES, Fit
from camelid.arena.ratings.counts import Counts, Pairs
from camelid.arena.ratings.fit import likeliest
from camelid.arena.ratings.links import LINKS, sigmoid

Floats = NDArray[np.float64]
STAKES = np.array([0.15, 0.4, 0.65])  # shares of a stake that are bet, mixed evenly; taste is below a half
FOLDS = 200  # boards of others, at most
RIVALS = 3  # models above an aim whose place it may be meant to take
GENERAL = ("against the board", "with the board", "side A", "side B")
GENERAL_SHARE, EVEN_SHARE, SHARED_SHARE, OWN_SHARE = 0.15, 0.35, 0.3, 0.2  # of the first stake
CAP = 10.0  # logarithm of the most that one other voter's stake counts


@dataclass(frozen=True)
class Judged:
    """A voter's largest stake.

    Attributes:
        voter: number into `Battles.voters`.
        votes: how many were judged.
        stake: logarithm of the largest stake.
        bet: what won most: one of `GENERAL`, `for NAME`, `against NAME`, `to lift NAME` or `an order of its own`.
    """

    voter: int
    votes: int
    stake: float
    bet: str


def judge_voters(battles: Battles, limit: float, taste: float) -> list[Judged]:
    """Each voter whose stake reached a limit (a logarithm). A log that names no voters gives none.

    Bets are that a voter is for or against one model, that every vote is such as lifts one model on the board, that the
    voter is against the board, with it more than others, on one side, or has an order of its own, learnt as votes come.
    Bets that win with *other* voters get more of the first stake: so riggers with one aim give each other away.
    """
    if not len(battles) or (battles.voter == UNKNOWN).all():
        return []
    least = max(1, int(np.ceil(limit / np.log1p(STAKES.max()))))  # with fewer votes no stake can reach the limit
    got, won = scores(battles), np.zeros(_n_bets(len(battles.models)))
    for _, rows, fit in _by_voter(battles, least):
        won += np.exp(np.minimum(_stakes(battles, rows, got, fit, taste)[-1, :-1], CAP))
    found = []
    for voter, rows, fit in _by_voter(battles, least):
        logs = _stakes(battles, rows, got, fit, taste)
        weights = _weights(won - np.exp(np.minimum(logs[-1, :-1], CAP)))
        logs += np.log(weights)
        top = logs.max(axis=1)
        mixed = top + np.log(np.exp(logs - top[:, None]).sum(axis=1))
        end = int(mixed.argmax())
        if mixed[end] >= limit:
            bet = _name(battles.models, int(logs[end].argmax()))
            found.append(Judged(voter, len(rows), float(mixed[end]), bet))
    return found


def scores(battles: Battles) -> Floats:
    """(N,) what side A got: 1, 0, or a half for both kinds of tie."""
    found: Floats = SCORES[np.minimum(battles.winner, 2)]
    return found


def in_order(battles: Battles, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows by time where all say it; else as they are."""
    time = battles.time[rows]
    return rows if np.isnan(time).any() else rows[np.argsort(time, kind="stable")]


def _by_voter(battles: Battles, least: int) -> Iterator[tuple[int, NDArray[np.int64], Fit]]:
    """(voter, its rows in order, the fit to the others' votes) of those with enough votes; voters are left out of the
    fit by groups where they are many."""
    whole = Counts.of(battles)
    start = likeliest(LINKS["half-wins"], Pairs.of(whole))[0][:-1]
    order = np.argsort(battles.voter, kind="stable")
    ends = np.searchsorted(battles.voter[order], np.arange(len(battles.voters) + 1))
    sizes = np.diff(ends)
    for fold in range(min(FOLDS, len(sizes))):
        voters = [v for v in range(fold, len(sizes), FOLDS) if sizes[v] >= least]
        if not voters:
            continue
        rows = np.concatenate([order[ends[v] : ends[v + 1]] for v in range(fold, len(sizes), FOLDS)])
        rest = Counts(whole.models, whole.table - Counts.of(battles.take(rows)).table)
        fit = Fit.of(Pairs.of(rest), start)
        for v in voters:
            yield v, in_order(battles, order[ends[v] : ends[v + 1]].astype(np.int64)), fit


def _n_bets(m: int) -> int:
    """General ones, for and against each model, to lift each."""
    return len(GENERAL) + (2 + 1 + RIVALS) * m


def _stakes(battles: Battles, rows: NDArray[np.int64], got: Floats, fit: Fit, taste: float) -> Floats:
    """(n, bets + 1) logarithms of each bet's stake after each vote of one voter; the last is its own order's."""
    a, b, n, m = battles.a[rows], battles.b[rows], len(rows), len(battles.models)
    expected = sigmoid(fit.strength[a] - fit.strength[b])
    surprise = got[rows] - expected
    signs = np.zeros((n, _n_bets(m) + 1))
    strong, t, first = np.sign(np.round(expected - 0.5, 12)), np.arange(n), len(GENERAL)
    signs[:, 0], signs[:, 1], signs[:, 2], signs[:, 3] = -strong, strong, 1, -1
    signs[t, first + a] += 1
    signs[t, first + b] -= 1
    signs[:, first + m : first + 2 * m] = -signs[:, first : first + m]
    aims = _aims(fit)
    signs[:, first + 2 * m : -1] = np.sign(aims[a] - aims[b])
    signs[:, -1] = _learnt(a, b, surprise, m)
    won = signs * surprise[:, None] - np.abs(signs) * taste
    logs = np.stack([np.cumsum(np.log1p(stake * won), axis=0) for stake in STAKES])
    top = logs.max(axis=0)
    return top + np.log(np.exp(logs - top).mean(axis=0))


def _aims(fit: Fit) -> Floats:
    """(M, bets) what a vote for a model does for each aim: to lift a model as such, or above one just above it."""
    m = len(fit.strength)
    order = np.argsort(-fit.strength, kind="stable")
    place = np.empty(m, np.int64)
    place[order] = np.arange(m)
    lifts = [fit.inverse]
    for above in range(1, RIVALS + 1):
        rival = order[np.where(place >= above, place - above, np.minimum(place + above, m - 1))]
        lifts.append(fit.inverse - fit.inverse[rival])
    return np.concatenate(lifts).T


def _weights(won: Floats) -> Floats:
    """(bets + 1,) shares of the first stake; `won`: what bets have won with other voters."""
    n = len(won) - len(GENERAL)
    even = np.r_[np.full(len(GENERAL), GENERAL_SHARE / len(GENERAL)), np.full(n, EVEN_SHARE / n)]
    won = np.maximum(won, 0)
    shared = SHARED_SHARE * (won / won.sum() if won.sum() > 0 else np.full(len(won), 1 / len(won)))
    return np.append(even + shared, OWN_SHARE)


def _learnt(a: NDArray[np.int32], b: NDArray[np.int32], surprise: Floats, m: int) -> Floats:
    """(n,) bet of each vote by those before it: which models this voter favoured, and which not."""
    total, met, bet = np.zeros(m), np.zeros(m), np.zeros(len(surprise))
    for t, (x, y) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
        bet[t] = np.clip(2 * (total[x] / (met[x] + 1) - total[y] / (met[y] + 1)), -1, 1)
        total[x] += surprise[t]
        total[y] -= surprise[t]
        met[x] += 1
        met[y] += 1
    return bet


def _name(models: tuple[str, ...], bet: int) -> str:
    """A bet in words."""
    if bet < len(GENERAL):
        return GENERAL[bet]
    way, model = divmod(bet - len(GENERAL), len(models))
    if way >= 3 + RIVALS:
        return "an order of its own"
    return f"{('for', 'against')[way] if way < 2 else 'to lift'} {models[model]}"
