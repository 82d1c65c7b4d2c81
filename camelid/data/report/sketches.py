"""Counts of more kinds of things than memory holds, with an error that is known; parts add up in any number."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from camelid.data.sorting import stable_order

CAPACITY = 1 << 18  # kinds that are counted at once: 6 MB
_PRECISION = 14  # bits of a hash that choose a register: an error of 0.8 %
_SMALL = 1 << 12

Hashes = NDArray[np.uint64]


@dataclass
class MisraGries:
    """The most frequent of many hashes (Misra and Gries 1982; mergeable: Agarwal and others 2012).

    A count is never too high, and too low by at most `error`, which is at most the total / `capacity`.

    Attributes:
        capacity: kinds that are kept.
        keys, counts, places: (K,) hash, count, and least place where it was seen.
        error: what each count may lack.
        total: of all that was added.
        waiting: what is not counted yet.
    """

    capacity: int = CAPACITY
    keys: Hashes = field(default_factory=lambda: np.zeros(0, np.uint64))
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    places: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    error: int = 0
    total: int = 0
    waiting: list[tuple[Hashes, NDArray[np.int64], NDArray[np.int64]]] = field(default_factory=list)

    def add(self, hashes: Hashes, places: NDArray[np.int64]) -> None:
        """Count each of these (N,) once, seen at `places` (N,)."""
        self.total += len(hashes)
        self._wait(hashes, np.ones(len(hashes), np.int64), places)

    def merge(self, other: MisraGries) -> None:
        """Add the counts of another part."""
        other.settle()
        self.total, self.error = self.total + other.total, self.error + other.error
        self._wait(other.keys, other.counts, other.places)

    def most(self, n: int) -> list[tuple[int, int, int]]:
        """(hash, count, place) of the n most frequent, the most frequent first; of equal ones, the first seen."""
        self.settle()
        order = np.lexsort((self.places, -self.counts))[:n]
        rows = zip(self.keys[order].tolist(), self.counts[order].tolist(), self.places[order].tolist(), strict=True)
        return list(rows)

    def settle(self) -> None:
        """Count what waits; where there are more kinds than fit, all pay with the count of the first that does not."""
        if not self.waiting:
            return
        parts = [(self.keys, self.counts, self.places), *self.waiting]
        keys, counts, places = (np.concatenate([part[field] for part in parts]) for field in range(3))
        self.waiting = []
        order = stable_order(keys)
        keys = keys[order]
        begins = np.flatnonzero(np.concatenate([np.ones(min(1, len(keys)), bool), keys[1:] != keys[:-1]]))
        if len(keys):
            keys, counts = keys[begins], np.add.reduceat(counts[order], begins)
            places = np.minimum.reduceat(places[order], begins)
        if len(keys) > self.capacity:
            cut = _nth_largest(counts, self.capacity + 1)
            stays = counts > cut
            keys, counts, places = keys[stays], counts[stays] - cut, places[stays]
            self.error += cut
        self.keys, self.counts, self.places = keys, counts, places

    def _wait(self, keys: Hashes, counts: NDArray[np.int64], places: NDArray[np.int64]) -> None:
        """Sorting is for as much as there is room for."""
        self.waiting.append((keys, counts, places))
        if sum(len(part[0]) for part in self.waiting) >= self.capacity:
            self.settle()


def _nth_largest(counts: NDArray[np.int64], n: int) -> int:
    """Most counts are small: they are counted themselves before anything is sorted."""
    small = np.bincount(np.minimum(counts, _SMALL), minlength=_SMALL + 1)
    at_least = np.cumsum(small[::-1])[::-1]
    if at_least[_SMALL] < n:
        return int(np.flatnonzero(at_least >= n)[-1])
    return int(np.partition(counts, -n)[-n])


@dataclass
class HyperLogLog:
    """How many different hashes there are, within about 0.8 % (HyperLogLog: Flajolet and others 2007)."""

    registers: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(1 << _PRECISION, np.uint8))

    def add(self, hashes: Hashes) -> None:
        """Take hashes (N,), mixed well in all bits."""
        which = (hashes >> np.uint64(64 - _PRECISION)).astype(np.int64)
        rest = hashes & np.uint64((1 << (64 - _PRECISION)) - 1)
        # Place of the first bit that is set, counted from 1: rest < 2^50 is exact in a double.
        rank = (64 - _PRECISION + 1) - np.frexp(rest.astype(np.float64))[1]
        np.maximum.at(self.registers, which, rank.astype(np.uint8))

    def merge(self, other: HyperLogLog) -> None:
        """Add what another part has seen."""
        np.maximum(self.registers, other.registers, out=self.registers)

    def estimate(self) -> int:
        """The number."""
        size = len(self.registers)
        raw = 0.7213 / (1 + 1.079 / size) * size**2 / float(np.sum(2.0 ** -self.registers.astype(np.float64)))
        empty = int(np.count_nonzero(self.registers == 0))
        return round(size * np.log(size / empty)) if raw <= 2.5 * size and empty else round(raw)


@dataclass
class Tally:
    """Documents and words by a name, such as a domain; at most `capacity` names, as in `MisraGries`.

    Attributes:
        rows: name → [documents, words].
        error: documents that each name may lack.
    """

    capacity: int = 20_000
    rows: dict[str, list[int]] = field(default_factory=dict)
    error: int = 0

    def add(self, name: str, words: int, documents: int = 1) -> None:
        """Count a document, or several."""
        row = self.rows.setdefault(name, [0, 0])
        row[0] += documents
        row[1] += words
        if len(self.rows) > 2 * self.capacity:
            self._prune()

    def merge(self, other: Tally) -> None:
        """Add the counts of another part."""
        for name, (documents, words) in other.rows.items():
            self.add(name, words, documents)
        self.error += other.error
        self._prune()

    def most(self, n: int) -> list[tuple[str, int, int]]:
        """(name, documents, words), most documents first."""
        rows: Iterable[tuple[str, list[int]]] = sorted(self.rows.items(), key=lambda row: (-row[1][0], row[0]))
        return [(name, documents, words) for name, (documents, words) in list(rows)[:n]]

    def _prune(self) -> None:
        if len(self.rows) <= self.capacity:
            return
        cut = sorted((row[0] for row in self.rows.values()), reverse=True)[self.capacity]
        self.error += cut
        self.rows = {name: [row[0] - cut, row[1]] for name, row in self.rows.items() if row[0] > cut}


@dataclass
class Histogram:
    """How large things are: least, most, mean, and a histogram by powers of two.

    Attributes:
        bins: bins[k] things of 2^(k−1) … 2^k − 1; bins[0] of 0.
    """

    count: int = 0
    total: int = 0
    least: int = 0
    most: int = 0
    bins: list[int] = field(default_factory=list)

    def add(self, size: int) -> None:
        """Take one."""
        self.merge(Histogram(1, size, size, size, [0] * size.bit_length() + [1]))

    def merge(self, other: Histogram) -> None:
        """Add another part."""
        if not other.count:
            return
        self.least = min(self.least, other.least) if self.count else other.least
        self.most = max(self.most, other.most)
        self.count, self.total = self.count + other.count, self.total + other.total
        self.bins += [0] * (len(other.bins) - len(self.bins))
        for place, more in enumerate(other.bins):
            self.bins[place] += more

    def as_json(self) -> dict[str, object]:
        """With the mean; bins as [first, last, how many]."""
        mean = self.total / self.count if self.count else 0
        bins = [[1 << k >> 1, max(0, (1 << k) - 1), count] for k, count in enumerate(self.bins)]
        about = {"count": self.count, "total": self.total, "least": self.least, "most": self.most}
        return {**about, "mean": round(mean, 2), "bins": bins}
