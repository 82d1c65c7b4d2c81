"""MinHash: documents whose sets of word runs are nearly the same (Broder 1997), in bands (Leskovec et al., ch. 3).

Word runs, bands and rows are FineWeb's unless the recipe says otherwise. Two documents of similarity s are found with
probability 1 − (1 − s^rows)^bands. What is linked by a chain of such pairs is one group, of which the first stays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from camelid.data.dedup.options import DedupOptions
from camelid.data.word_hashes import Words, mix

_SEED = 5
_BLOCK = 2048  # runs of words at a time: a table of them stays in the cache


class MinHash:
    """Signatures of documents.

    Hash i of a run of words is (a_i · x + b_i) mod 2^32 with a_i odd, x being 32 mixed bits of the run.
    """

    def __init__(self, options: DedupOptions) -> None:
        self._words, self._bands, self._rows = options.words, options.bands, options.rows
        draw = np.random.Generator(np.random.PCG64(_SEED))
        count = options.bands * options.rows
        self._factors = draw.integers(0, 2**31, (count, 1)).astype(np.uint32) * np.uint32(2) + np.uint32(1)
        self._offsets = draw.integers(0, 2**32, (count, 1)).astype(np.uint32)

    def signature(self, words: Words) -> NDArray[np.uint32] | None:
        """(bands · rows,) the least hash of each kind; None for fewer words than a run has."""
        runs = (words.ngrams(self._words) >> np.uint64(32)).astype(np.uint32)
        if not len(runs):
            return None
        least = np.full(len(self._factors), 2**32 - 1, np.uint32)
        for start in range(0, len(runs), _BLOCK):
            hashed = self._factors * runs[start : start + _BLOCK]
            hashed += self._offsets
            np.minimum(least, hashed.min(axis=1), out=least)
        return least

    def bands(self, signatures: list[NDArray[np.uint32] | None]) -> NDArray[np.uint64]:
        """(bands, documents) a key of each band; 0 where there is no signature."""
        keys = np.zeros((self._bands, len(signatures)), np.uint64)
        signed = [(number, signature) for number, signature in enumerate(signatures) if signature is not None]
        if not signed:
            return keys
        values = np.stack([signature for _, signature in signed]).astype(np.uint64)
        values = values.reshape(len(signed), self._bands, self._rows)
        total = np.full((len(signed), self._bands), 1, np.uint64)
        for row in range(self._rows):
            total = mix(total + values[:, :, row])
        keys[:, [number for number, _ in signed]] = np.maximum(total, np.uint64(1)).T
        return keys


def unite(least: NDArray[np.int64], one: NDArray[np.int64], other: NDArray[np.int64]) -> None:
    """Join the groups of one[i] and other[i].

    Args:
        least: (N,) parents: each points to itself or to an earlier member of its group. At first 0 … N − 1.
    """
    joined = np.concatenate([one, other])
    while len(one):
        one, other = _roots(least, one), _roots(least, other)
        differ = one != other
        one, other = one[differ], other[differ]
        # Of several smaller roots the smallest wins; the pairs that lost are tried again from their new roots.
        np.minimum.at(least, np.maximum(one, other), np.minimum(one, other))
    least[joined] = _roots(least, joined)


def _roots(least: NDArray[np.int64], nodes: NDArray[np.int64]) -> NDArray[np.int64]:
    while True:
        above = least[nodes]
        if np.array_equal(above, nodes):
            return above
        nodes = above
