"""How many ids are guessed: as many as let a pass write the most in its time.

A pass takes its time for reading the weights, and for each position little more. One more guess is worth its position
if its chance to come true is more than what the pass writes in that time without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace

MOST = 32  # guesses of an answer in a pass
FIXED = (
    10.0  # positions that a pass takes the time of beside its own, until it is measured: benchmarks/prompt_lookup.py
)
FEWEST_FIXED, MOST_FIXED = 1.0, 30.0
MOST_POSITIONS = 256  # of passes that are measured
MEMORY = 128  # passes that are remembered, those long ago less
SPREAD = 0.5  # variance of the positions for which what is measured counts as much as `FIXED`


class PassCost:
    """Measures what a pass takes, as a line over its positions.

    Only how fast things come depends on it, never what.

    Attributes:
        fixed: seconds ≈ each · (fixed + positions).
        each: seconds.
    """

    def __init__(self) -> None:
        self.fixed, self.each = FIXED, 0.0
        self._n = 0
        self._positions = self._seconds = self._variance = self._covariance = 0.0  # weighted means

    def note(self, n_positions: int, seconds: float) -> None:
        """A pass over so many positions, in which no prompt was read, has taken so long."""
        if n_positions > MOST_POSITIONS:
            return
        self._n = min(self._n + 1, MEMORY)
        if self._n > 8:  # the machine was busy with something else
            seconds = min(seconds, 2 * self.each * (self.fixed + n_positions))
        share = 1 / self._n
        over, longer = n_positions - self._positions, seconds - self._seconds
        self._positions += share * over
        self._seconds += share * longer
        self._variance = (1 - share) * (self._variance + share * over * over)
        self._covariance = (1 - share) * (self._covariance + share * over * longer)
        supposed = self._seconds / (FIXED + self._positions)
        each = (self._covariance + SPREAD * supposed) / (self._variance + SPREAD)
        least, most = (self._seconds / (fixed + self._positions) for fixed in (MOST_FIXED, FEWEST_FIXED))
        self.each = max(least, min(each, most))
        self.fixed = self._seconds / self.each - self._positions


@dataclass(frozen=True)
class Wish:
    """What an answer could have guessed.

    Attributes:
        chance: that a guess comes true, after so many before it that have.
        most: guesses.
        cost: positions whose time a guess takes.
    """

    chance: Callable[[int], float]
    most: int
    cost: float = 1.0


def lengths(wishes: Sequence[Wish], n_writing: int, fixed: float, room: int) -> list[int]:
    """How many guesses of each wish a pass verifies, `room` at most in all.

    Args:
        n_writing: answers that get an id from this pass anyway.
        fixed: positions that a pass takes the time of beside its own.
    """
    chosen = [0] * len(wishes)
    written, time = float(n_writing), fixed + n_writing  # ids to be expected; positions
    best = [(-wish.chance(0), place) for place, wish in enumerate(wishes) if wish.most > 0]
    heapify(best)
    while best and room > 0:
        chance, place = -best[0][0], best[0][1]
        wish = wishes[place]
        if chance * time <= written * wish.cost:
            heappop(best)
            continue
        chosen[place] += 1
        room -= 1
        written, time = written + chance, time + wish.cost
        if chosen[place] < min(wish.most, MOST):
            heapreplace(best, (-chance * wish.chance(chosen[place]), place))
        else:
            heappop(best)
    return chosen
