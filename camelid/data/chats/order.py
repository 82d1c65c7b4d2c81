"""In which order records are taken: arithmetic on the seed, epoch by epoch, whatever the number of ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from camelid.data.shuffle import SHUFFLE, keys, permute
from camelid.errors import OptionError


class EpochOrder:
    """Records of several sources, in epochs of which each is shuffled on its own.

    A source of n records with weight w gives ⌊(e + 1)·w·n⌋ − ⌊e·w·n⌋ of them in epoch e, going through its permutations
    one after another: with weight 1 each record once.

    Args:
        seed: of the order.
        sizes: records of each source.
        weights: how often each record is taken in an epoch.

    Raises:
        OptionError: there is nothing to take.
    """

    def __init__(self, seed: int, sizes: Sequence[int], weights: Sequence[float]) -> None:
        self._seed, self._sizes = seed, tuple(sizes)
        self._each = [Fraction(weight) * size for weight, size in zip(weights, sizes, strict=True)]
        self._first = np.cumsum([0, *sizes], dtype=np.int64)
        self._epoch = lru_cache(maxsize=2)(self._shuffled)
        if not sum(self._each):
            raise OptionError("data: there is nothing to learn from")

    @property
    def same_size(self) -> bool:
        """Whether every epoch takes the same records."""
        return all((each / max(size, 1)).denominator == 1 for each, size in zip(self._each, self._sizes, strict=True))

    def start(self, epoch: int) -> int:
        """Records that are taken before an epoch."""
        return sum(math.floor(epoch * each) for each in self._each)

    def epoch(self, epoch: int) -> NDArray[np.int64]:
        """The records of an epoch in their order, numbered through all sources."""
        return self._epoch(epoch)

    def places(self, start: int, stop: int) -> list[tuple[int, int]]:
        """(epoch, record) of the places start … stop − 1 in the order of all epochs."""
        found = []
        epoch = max(0, math.floor(start / sum(self._each)) - len(self._sizes) - 1)
        while self.start(epoch + 1) <= start:
            epoch += 1
        for place in range(start, stop):
            while place >= self.start(epoch + 1):
                epoch += 1
            found.append((epoch, int(self.epoch(epoch)[place - self.start(epoch)])))
        return found

    def source(self, record: int) -> tuple[int, int]:
        """Source of a record, and its number there."""
        source = int(np.searchsorted(self._first, record, side="right")) - 1
        return source, record - int(self._first[source])

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        parts = [np.zeros(0, np.int64)]
        for source, (size, each) in enumerate(zip(self._sizes, self._each, strict=True)):
            turns = np.arange(math.floor(epoch * each), math.floor((epoch + 1) * each), dtype=np.int64)
            if len(turns):
                rounds = turns // size
                numbers = np.full(len(turns), source, np.int64)
                taken = permute(turns % size, np.full_like(turns, size), keys(self._seed, numbers, rounds))
                parts.append(taken + self._first[source])
        return shuffled(np.concatenate(parts), self._seed, SHUFFLE, epoch)


def shuffled(values: NDArray[np.int64], seed: int, what: int, epoch: int) -> NDArray[np.int64]:
    """Values (N,) in the order that seed, a number for what they are, and the epoch choose."""
    places = np.arange(len(values), dtype=np.int64)
    full = np.full_like
    return values[permute(places, full(places, len(values)), keys(seed, full(places, what), full(places, epoch)))]
