"""Byte-pair encoding, learned (Gage 1994; Sennrich et al. 2016, arXiv:1508.07909): which pairs to merge, in order."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from camelid.tokens.choose_backend import has_bpe

Pair = tuple[int, int]


class Words(NamedTuple):
    """Different words, and how often each came.

    Attributes:
        symbols: of all words, one after another; uint32.
        starts: where each word begins and the last one ends, (words + 1,); uint64.
        counts: (words,); int64.
    """

    symbols: NDArray[np.uint32]
    starts: NDArray[np.uint64]
    counts: NDArray[np.int64]


def learn_merges(
    words: Words,
    lengths: Sequence[int],
    wanted: int,
    longest: int,
    least: int,
    progress: Callable[[int], None] | None = None,
) -> list[Pair]:
    """Merge the most frequent pair of neighbours again and again; each merge makes the next symbol.

    A pair counts as often as its two symbols stand side by side, in "aaa" twice. Of pairs that are equally frequent the
    one with the lower numbers is taken, so the result depends on the counts alone. The C++ loop and `plainly` agree.

    Args:
        words: what to learn from; its symbols are 0 to `len(lengths) - 1`.
        lengths: characters or bytes of each symbol.
        wanted: most merges.
        longest: longest symbol that is made.
        least: rarest pair that is merged.
        progress: is told the number of merges now and then.

    Returns:
        The pairs; the merge at place n made symbol `len(lengths) + n`.
    """
    if not has_bpe():
        return plainly(words, lengths, wanted, longest, least, progress)
    from camelid.tokens import _bpe

    return _bpe.learn_merges(*words, np.array(lengths, np.uint32), wanted, longest, least, progress)


def plainly(
    words: Words,
    lengths: Sequence[int],
    wanted: int,
    longest: int,
    least: int,
    progress: Callable[[int], None] | None = None,
) -> list[Pair]:
    """`learn_merges` in plain Python: what the C++ loop must do, and does where that is not built."""
    parts = [part.tolist() for part in np.split(words.symbols, words.starts[1:-1].astype(np.int64))]
    counts, size = words.counts.tolist(), list(lengths)
    totals: defaultdict[Pair, int] = defaultdict(int)
    places: defaultdict[Pair, set[int]] = defaultdict(set)
    for place, part in enumerate(parts):
        for pair in pairwise(part):
            totals[pair] += counts[place]
            places[pair].add(place)
    waiting = [(-total, pair) for pair, total in totals.items() if size[pair[0]] + size[pair[1]] <= longest]
    heapq.heapify(waiting)
    merges: list[Pair] = []
    while waiting and len(merges) < wanted:
        negative, pair = heapq.heappop(waiting)
        total = totals[pair]
        if total != -negative:  # it has become rarer since, so it waits at its new place
            if total >= least:
                heapq.heappush(waiting, (-total, pair))
            continue
        if total < least:
            break
        new = len(size)
        size.append(size[pair[0]] + size[pair[1]])
        merges.append(pair)
        made: set[Pair] = set()
        for place in places.pop(pair):
            for neighbours in pairwise(parts[place]):
                totals[neighbours] -= counts[place]
            parts[place] = _merge(parts[place], pair, new)
            for neighbours in pairwise(parts[place]):
                totals[neighbours] += counts[place]
                if new in neighbours:
                    places[neighbours].add(place)
                    made.add(neighbours)
        for left, right in made:
            if size[left] + size[right] <= longest:
                heapq.heappush(waiting, (-totals[left, right], (left, right)))
        if progress is not None and len(merges) % 100 == 0:
            progress(len(merges))
    return merges


def _merge(part: list[int], pair: Pair, new: int) -> list[int]:
    """`part` with each `pair`, from the left, made one symbol."""
    merged: list[int] = []
    at = 0
    while at < len(part):
        if part[at] == pair[0] and part[at + 1 : at + 2] == [pair[1]]:
            merged.append(new)
            at += 2
        else:
            merged.append(part[at])
            at += 1
    return merged
