"""Which few votes decide who stands above whom: found by each vote's influence on the fit, checked by a true refit.

Broderick, Giordano, Meager 2023 (AMIP, arXiv:2011.14999); of Bradley–Terry boards Huang, Shen, Wei, Broderick 2025
(arXiv:2508.11847): 2 of 57,477 votes decided Chatbot Arena's first place.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from camelid.arena.battles import Battles
from camelid.arena.ratings.counts import Counts, Pairs
from camelid.arena.ratings.fit import likeliest
from camelid.arena.ratings.links import LINKS, sigmoid
from camelid.arena.ratings.scale import POINTS
from camelid.errors import OptionError, one_of

Floats = NDArray[np.float64]
SCORES = np.array([1.0, 0.0, 0.5])  # of the pair's first model, by outcome
CLOSEST = 5  # rivals of the first place that are checked by a refit


@dataclass(frozen=True)
class Fit:
    """Bradley–Terry on votes, and what one vote more or less does to it.

    Attributes:
        pairs: (P,) counts of the pairs that met.
        strength: (M,) natural logarithms of odds, mean 0.
        inverse: (M, M) inverse curvature of the likelihood.
    """

    pairs: Pairs
    strength: Floats
    inverse: Floats

    @classmethod
    def of(cls, pairs: Pairs, start: Floats | None = None) -> Self:
        """The likeliest strengths; as in `rate`, ties are imagined where nothing is the likeliest."""
        at, imagined = likeliest(LINKS["half-wins"], pairs, None if start is None else np.append(start, 0.0))
        strength, m = at[:-1], pairs.n_models
        p = sigmoid(strength[pairs.i] - strength[pairs.j])
        curvature = pairs.spread(pairs.n.sum(axis=1) * p * (1 - p))
        own = sigmoid(strength)
        curvature[np.arange(m), np.arange(m)] += imagined * own * (1 - own)
        return cls(pairs, strength, np.linalg.inv(curvature + curvature.trace() / m**2))

    def pulls(self, upper: int, lower: int) -> Floats:
        """(P, 3) by how much a vote for the first, the second or neither widens upper − lower, to first order."""
        pairs = self.pairs
        p = sigmoid(self.strength[pairs.i] - self.strength[pairs.j])
        row = self.inverse[upper] - self.inverse[lower]
        return (row[pairs.i] - row[pairs.j])[:, None] * (SCORES - p[:, None])


@dataclass(frozen=True)
class Flip:
    """Votes without which `lower` stands above `upper`.

    Attributes:
        upper, lower: names; the first stands above with all votes.
        votes: (K,) places in the battles, in the log's order.
        before, after: points between them with all votes, and without these (below 0), by a fit each.
    """

    upper: str
    lower: str
    votes: NDArray[np.int64]
    before: float
    after: float


def flip(battles: Battles, upper: str, lower: str, most: int | None = None) -> Flip | None:
    """The fewest votes found without which `lower` stands above `upper`.

    Votes with the largest influence go first; after each refit influences are taken anew, and then single votes come
    back as long as the order stays turned. So these votes suffice; that no fewer do is not proven.

    Args:
        battles: all votes.
        upper, lower: two models; the first must stand above.
        most: give up beyond so many votes; half of all if left out.

    Returns:
        None where `most` votes are not enough.

    Raises:
        OptionError: a model that has no votes; `upper` does not stand above.
    """
    counts = Counts.of(battles).rated()
    for name in (upper, lower):
        if name not in counts.models:
            raise OptionError(f"{name!r}: no votes; {one_of(name, counts.models or ('none',))}")
    fit = Fit.of(Pairs.of(counts))
    up, low = counts.models.index(upper), counts.models.index(lower)
    if fit.strength[up] <= fit.strength[low]:
        raise OptionError(f"{upper} does not stand above {lower}")
    found = _fewest(fit, up, low, counts.n_votes // 2 if most is None else most)
    if found is None:
        return None
    dropped, gap = found
    before = float(fit.strength[up] - fit.strength[low]) * POINTS
    return Flip(upper, lower, _rows(battles, counts, fit.pairs, dropped), before, gap * POINTS)


def first_place(battles: Battles, most: int | None = None) -> Flip | None:
    """The fewest votes found without which another model is first; the `CLOSEST` rivals by influence are tried.

    Raises:
        OptionError: fewer than two models with votes.
    """
    counts = Counts.of(battles).rated()
    if len(counts.models) < 2:
        raise OptionError("influence: votes between two models are needed")
    fit = Fit.of(Pairs.of(counts))
    top = int(fit.strength.argmax())
    rivals = [k for k in range(len(counts.models)) if k != top]
    rivals.sort(key=lambda k: _foreseen(fit, top, k))
    best: Flip | None = None
    for rival in rivals[:CLOSEST]:
        if fit.strength[top] <= fit.strength[rival]:
            continue
        found = flip(battles, counts.models[top], counts.models[rival], most if best is None else len(best.votes) - 1)
        best = found or best
    return best


def neighbours(battles: Battles, places: int, most: int | None = None) -> list[Flip | None]:
    """`flip` of the first and second place, of the second and third …, `places` of them or as many as there are."""
    counts = Counts.of(battles).rated()
    strength = Fit.of(Pairs.of(counts)).strength
    order = sorted(range(len(strength)), key=lambda k: -strength[k])[: places + 1]
    names = [counts.models[k] for k in order]
    apart = [strength[x] > strength[y] for x, y in itertools.pairwise(order)]
    pairs = zip(names, names[1:], apart, strict=False)
    return [flip(battles, upper, lower, most) for upper, lower, differs in pairs if differs]


def _foreseen(fit: Fit, up: int, low: int) -> int:
    """Votes that must go, by influence alone; more than there are where these do not suffice."""
    taken = _largest(fit, up, low, float(fit.strength[up] - fit.strength[low]))
    return int(taken.sum()) if taken is not None else int(fit.pairs.n.sum()) + 1


def _largest(fit: Fit, up: int, low: int, gap: float) -> Floats | None:
    """(P, 3) the fewest votes whose influences add up to more than the gap."""
    pulls, n = fit.pulls(up, low).ravel(), fit.pairs.n.ravel()
    order = np.argsort(-pulls, kind="stable")
    order = order[(pulls[order] > 0) & (n[order] > 0)]
    if not len(order):
        return None
    before = np.cumsum(n[order] * pulls[order]) - n[order] * pulls[order]
    taken = np.zeros(len(n))
    needed = np.floor(np.maximum(gap - before, 0) / pulls[order]) + (before <= gap)
    taken[order] = np.minimum(needed, n[order])
    return taken.reshape(-1, 3)


def _fewest(fit: Fit, up: int, low: int, most: int) -> tuple[Floats, float] | None:
    """(P, 3) votes that turn the order when they go, and the gap without them (below 0)."""
    kept, now = fit.pairs.n.copy(), fit
    gap = float(fit.strength[up] - fit.strength[low])
    while gap >= 0:
        taken = _largest(now, up, low, gap)
        if taken is None or (fit.pairs.n - kept + taken).sum() > 2 * most:
            return None
        kept = kept - taken
        now = _refit(fit, kept, now)
        gap = float(now.strength[up] - now.strength[low])
    kept, gap = _give_back(fit, kept, up, low)
    dropped = fit.pairs.n - kept
    return (dropped, gap) if dropped.sum() <= most else None


def _give_back(fit: Fit, kept: Floats, up: int, low: int) -> tuple[Floats, float]:
    """As many of the dropped votes as may come back, the least influential first, by halving."""
    dropped = fit.pairs.n - kept
    cells = np.repeat(np.arange(dropped.size), dropped.ravel().astype(int))
    pulls = fit.pulls(up, low).ravel()[cells]
    cells = cells[np.argsort(-pulls, kind="stable")]

    def without(k: int) -> tuple[Floats, float]:
        some = (fit.pairs.n.ravel() - np.bincount(cells[:k], minlength=dropped.size)).reshape(-1, 3)
        there = _refit(fit, some, fit)
        return some, float(there.strength[up] - there.strength[low])

    enough, too_few = len(cells), 0
    best = without(enough)
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        tried = without(middle)
        if tried[1] < 0:
            enough, best = middle, tried
        else:
            too_few = middle
    return best


def _refit(fit: Fit, n: Floats, start: Fit) -> Fit:
    return Fit.of(replace(fit.pairs, n=n), start.strength)


def _rows(battles: Battles, counts: Counts, pairs: Pairs, dropped: Floats) -> NDArray[np.int64]:
    """Places of so many votes of each cell: the first ones of the log."""
    m = len(battles.models)
    number = np.full(m, -1)
    for place, name in enumerate(counts.models):
        number[battles.models.index(name)] = place
    a, b = number[battles.a], number[battles.b]
    outcome = np.minimum(battles.winner, 2)
    turned = a > b
    outcome = np.where(turned & (outcome < 2), 1 - outcome, outcome)
    cell = np.full(m * m, -1)
    cell[pairs.i * m + pairs.j] = np.arange(len(pairs.i))
    code = np.where(a == b, -1, cell[np.minimum(a, b) * m + np.maximum(a, b)] * 3 + outcome)
    found = [np.flatnonzero(code == k)[: int(dropped.flat[k])] for k in np.flatnonzero(dropped.ravel())]
    return np.sort(np.concatenate(found)).astype(np.int64)
