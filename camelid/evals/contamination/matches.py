"""Which tokens of texts also stand in training data: Llama 2's rule (Touvron et al. 2023, arXiv:2307.09288, A.6).

A token is contaminated if it lies in a match of more than ten tokens. The first ten of a match are equal; behind them
up to four may differ; the last one is equal.

Runs of ten ids are found by a rolling hash, looked up in a table of bits first: most of the training data is passed
over there. What is found is compared id by id, so that no two hashes are taken for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

FIRST = 10  # ids of a match that must be equal
MAY_DIFFER = 4  # of those behind
_CHUNK = 1 << 20  # ids of the training data that are looked at together
_PAIRS = 1 << 20  # places in texts and training data that are compared together
_BITS = 27  # of the table: 16 MB
_FACTOR = 0x9E3779B97F4A7C15
_NO_ID = -1  # between texts

Ids = NDArray[np.int64]


class TrainingIds(Protocol):
    """The ids of one source, as `Tokens` has them."""

    def __len__(self) -> int: ...

    def slice(self, start: int, stop: int) -> NDArray[np.unsignedinteger]: ...


def contaminated(texts: Sequence[Sequence[int]], training: Iterable[TrainingIds]) -> Iterator[tuple[int, int]]:
    """How many tokens of each text are contaminated, and of how many.

    Args:
        texts: ids, without those that begin or end a text.
        training: ids with whatever stands between documents, which no text holds.
    """
    search = _Search(texts)
    for source in training:
        search.read(source)
    return search.counts()


class _Search:
    """Texts one behind the other, the hashes of their runs, and how far the best match from each place goes."""

    def __init__(self, texts: Sequence[Sequence[int]]) -> None:
        sizes = np.array([len(text) for text in texts], np.int64)
        self._starts = np.cumsum([0, *(sizes + 1)])[:-1]
        self._sizes = sizes
        self._longest = int(sizes.max(initial=0))
        self._ids = np.full(int(sizes.sum()) + len(texts), _NO_ID, np.int64)
        for start, text in zip(self._starts, texts, strict=True):
            self._ids[start : start + len(text)] = text
        runs = np.flatnonzero(_windows(self._ids).min(1, initial=0) >= 0) if len(self._ids) >= FIRST else np.array([])
        hashes = _hashes(self._ids)[runs.astype(np.int64)]
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._runs = hashes[order], runs.astype(np.int64)[order]
        self._table = np.zeros(1 << _BITS, bool)
        self._table[_slot(self._hashes)] = True
        self._reach = np.zeros(len(self._ids), np.int64)  # ids of the longest match that begins there

    def read(self, source: TrainingIds) -> None:
        """Look through all ids of a source."""
        room = self._longest + FIRST
        for start in range(0, len(source), _CHUNK):
            ids = source.slice(start, min(start + _CHUNK + room, len(source))).astype(np.int64)
            hashes = _hashes(ids)[:_CHUNK]
            found = np.flatnonzero(self._table[_slot(hashes)])
            first = np.searchsorted(self._hashes, hashes[found], "left")
            last = np.searchsorted(self._hashes, hashes[found], "right")
            for ours, theirs in _pairs(first, last, found):
                self._compare(self._runs[ours], ids, theirs)

    def _compare(self, ours: Ids, ids: Ids, theirs: Ids) -> None:
        """Follow pairs of places as far as they match, all of them a step at a time."""
        begin, matched = ours, np.zeros(len(ours), np.int64)
        left = np.full(len(ours), MAY_DIFFER)
        alive = np.arange(len(ours))
        for step in range(self._longest):
            at, there = begin[alive] + step, theirs[alive] + step
            inside = (at < len(self._ids)) & (there < len(ids))
            own = np.where(inside, self._ids[np.minimum(at, len(self._ids) - 1)], _NO_ID)
            equal = inside & (own == ids[np.minimum(there, len(ids) - 1)])
            matched[alive[equal]] = step + 1
            left[alive[~equal]] -= 1
            alive = alive[(own != _NO_ID) & (equal | ((step >= FIRST) & (left[alive] >= 0)))]
            if not len(alive):
                break
        matched[matched <= FIRST] = 0
        np.maximum.at(self._reach, begin, matched)

    def counts(self) -> Iterator[tuple[int, int]]:
        """Of each text."""
        ends = np.arange(len(self._reach)) + self._reach
        covered = np.maximum.accumulate(ends) > np.arange(len(self._reach))
        for start, size in zip(self._starts.tolist(), self._sizes.tolist(), strict=True):
            yield int(covered[start : start + size].sum()), size


def _windows(ids: Ids) -> NDArray[np.int64]:
    return np.lib.stride_tricks.sliding_window_view(ids, FIRST)


def _hashes(ids: Ids) -> NDArray[np.uint64]:
    """Of each run of `FIRST` ids, by the place where it begins."""
    n = len(ids) - FIRST + 1
    total = np.zeros(max(0, n), np.uint64)
    for step in range(FIRST if n > 0 else 0):
        total = total * np.uint64(_FACTOR) + ids[step : step + n].astype(np.uint64) + np.uint64(1)
    return total


def _slot(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    return ((hashes * np.uint64(_FACTOR)) >> np.uint64(64 - _BITS)).astype(np.int64)


def _pairs(first: Ids, last: Ids, found: Ids) -> Iterator[tuple[Ids, Ids]]:
    """Places of equal hashes, in sorted runs and in the training data, some at a time."""
    counts = last - first
    ends = np.cumsum(counts)
    begin = 0
    while begin < len(counts):
        used = ends[begin - 1] if begin else 0
        stop = max(begin + 1, int(np.searchsorted(ends, used + _PAIRS, "right")))
        own = counts[begin:stop]
        offsets = np.arange(own.sum()) - np.repeat(np.cumsum(own) - own, own)
        yield np.repeat(first[begin:stop], own) + offsets, np.repeat(found[begin:stop], own)
        begin = stop
