"""Which row of which source is sample number i: arithmetic on the seed, nothing stored, the same for any machine.

docs/formats.md has the specification. Sources get their shares exactly, block by block; within a source each epoch
is a permutation of its rows by a Feistel network (Luby & Rackoff 1988), walked until it lands inside (Black & Rogaway
2002).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from camelid.data.word_hashes import mix
from camelid.errors import OptionError

BLOCK = 1024  # samples in which shares are exact, at least
SMALLEST_SHARE = Fraction(1, 2**20)
_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_ROUNDS = 8
SHUFFLE = 2**32  # stands for the source's number where a block is shuffled


@dataclass(frozen=True)
class Rows:
    """Where samples come from, each (N,) int64.

    Attributes:
        source: number of the source.
        epoch: how often the source was through before.
        row: number of the row in its source.
    """

    source: NDArray[np.int64]
    epoch: NDArray[np.int64]
    row: NDArray[np.int64]


class Shuffle:
    """The samples of a run, from the first to whichever is asked for.

    Args:
        seed: 0 … 2^63 − 1.
        sources: number of rows and weight of each; weights are relative, 0 means never.

    Raises:
        OptionError: no source, a weight that is no share, or a source that should give rows and has none.
    """

    def __init__(self, seed: int, sources: Sequence[tuple[int, float]]) -> None:
        self._n_rows = np.array([n_rows for n_rows, _ in sources], np.int64)
        self._seed = seed
        for number, (n_rows, weight) in enumerate(sources):
            if not (math.isfinite(weight) and weight >= 0):
                raise OptionError(f"weight of source {number}: must be a number from 0 on, got {weight}")
            if weight and n_rows < 1:
                raise OptionError(f"source {number}: has no rows to train on; give it more text or weight 0")
        weights = [Fraction(weight) for _, weight in sources]
        total = sum(weights)
        if not total:
            raise OptionError("weights: at least one source must have a weight above 0")
        self.shares = tuple(weight / total for weight in weights)
        smallest = min(share for share in self.shares if share)
        if smallest < SMALLEST_SHARE:
            raise OptionError(f"weights: the smallest share is {float(smallest):.1e}; at least {2**-20:.1e}, or 0")
        # With a share of at least one sample a block, shares rounded at the ends of blocks never run backwards.
        self.block = BLOCK
        while self.block * smallest < 1:
            self.block *= 2
        self._block_rows = lru_cache(maxsize=4)(self._shuffle_block)

    def rows(self, start: int, stop: int) -> Rows:
        """Samples start … stop − 1."""
        if not 0 <= start <= stop:
            raise OptionError(f"samples {start} to {stop}: must be 0 or more, and in order")
        blocks = range(start // self.block, -(-stop // self.block)) if stop > start else range(0)
        parts = [self._block_rows(block) for block in blocks]
        first = start - (blocks.start * self.block if parts else start)
        empty = np.zeros(0, np.int64)
        source, turn = (
            np.concatenate([empty, *(part[field] for part in parts)])[first : first + stop - start] for field in (0, 1)
        )
        size = self._n_rows[source]
        epoch = turn // size
        return Rows(source, epoch, permute(turn % size, size, keys(self._seed, source, epoch)))

    def counts(self, block: int) -> tuple[int, ...]:
        """Samples of each source in the blocks before `block`: exact shares, rounded by largest remainder."""
        quotas = [share * block * self.block for share in self.shares]
        counts = [math.floor(quota) for quota in quotas]
        left = block * self.block - sum(counts)
        by_remainder = sorted(range(len(quotas)), key=lambda source: (counts[source] - quotas[source], source))
        for source in by_remainder[:left]:
            counts[source] += 1
        return tuple(counts)

    def _shuffle_block(self, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Source of each sample of a block, and how many samples that source gave before it."""
        before, after = self.counts(block), self.counts(block + 1)
        places = np.arange(self.block, dtype=np.int64)
        if len(before) == 1:
            return np.zeros_like(places), places + before[0]
        zeros = np.zeros_like(places)
        places = permute(places, zeros + self.block, keys(self._seed, zeros + SHUFFLE, zeros + block))
        ends = np.cumsum(np.array(after) - np.array(before))
        source = np.searchsorted(ends, places, side="right").astype(np.int64)
        by_source = np.argsort(source, kind="stable")
        begins = np.array(before, np.int64) - np.concatenate([[0], ends[:-1]])
        turn = np.empty_like(source)
        turn[by_source] = np.arange(self.block) + begins[source[by_source]]
        return source, turn


def permute(index: NDArray[np.int64], size: NDArray[np.int64], keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Where each index (N,) of 0 … size − 1 goes in the permutation of its size that its key chooses.

    Eight rounds of a balanced Feistel network on the fewest even number of bits that hold `size`; a result outside
    goes through again.
    """
    half = np.maximum((_bits(size) + 1) // 2, 1).astype(np.uint64)
    mask = (np.uint64(1) << half) - np.uint64(1)
    value, size_ = index.astype(np.uint64), size.astype(np.uint64)
    todo = np.arange(len(value))
    while len(todo):
        at, low = half[todo], mask[todo]
        left, right = value[todo] >> at, value[todo] & low
        for number in range(1, _ROUNDS + 1):
            left, right = right, left ^ (mix(right + keys[todo] + np.uint64(number * _GOLDEN & _MASK)) & low)
        value[todo] = left << at | right
        todo = todo[value[todo] >= size_[todo]]
    return value.astype(np.int64)


def keys(seed: int, source: NDArray[np.int64], epoch: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The key of each source (N,) in each epoch (N,), for `permute`."""
    key = mix(np.full(len(source), (seed + _GOLDEN) & _MASK, np.uint64))
    key = mix(key + source.astype(np.uint64) + np.uint64(_GOLDEN))
    return mix(key + epoch.astype(np.uint64) + np.uint64(_GOLDEN))


def _bits(size: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bits that hold 0 … size − 1, without the rounding of logarithms."""
    powers = np.int64(1) << np.arange(62, dtype=np.int64)
    return np.searchsorted(powers, size, side="left").astype(np.int64)
