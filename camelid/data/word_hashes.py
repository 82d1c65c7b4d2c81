"""The words of a document, found once for filters, MinHash and decontamination; arrays, no Python per word.

A word is a run of characters that are no white space, as in `str.split`. Its hash is a polynomial over random
64-bit values of its characters, modulo 2^64, from running sums: any stretch of a text is hashed in O(1).
"""

from __future__ import annotations

import functools
import unicodedata
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Hashes: TypeAlias = npt.NDArray[np.uint64]
Positions: TypeAlias = npt.NDArray[np.int64]
Flags: TypeAlias = npt.NDArray[np.bool_]
Codes: TypeAlias = npt.NDArray[Any]  # uint8 for ASCII, else uint32

_BASE = 0x9E3779B97F4A7C15 | 1
WORD_FACTOR = np.uint64(0xD1342543DE82EF95)  # between the words of a run
_UNICODE = 0x32400  # beyond are no letters and no spaces, save for marks that choose a variant
_LARGEST_KEPT = 1 << 18  # numbers in a table of powers that is kept: 4 MB
_NO_SPACE = "no space"
_SEED = 20  # of the characters' values: hashes are stored, so it never changes


class Words:
    """Where the words of a text are, and what they are.

    Attributes:
        text: as given.
        starts, ends: (N,) places in `text`, in characters: word i is `text[starts[i]:ends[i]]`.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._codes = _codes(text)
        inside = np.empty(len(self._codes) + 2, np.bool_)
        inside[0] = inside[-1] = False
        inside[1:-1] = self._is(_NO_SPACE)
        edges = np.flatnonzero(inside[1:] != inside[:-1])
        self.starts: Positions = edges[0::2]
        self.ends: Positions = edges[1::2]

    def __len__(self) -> int:
        return len(self.starts)

    @functools.cached_property
    def lengths(self) -> Positions:
        """(N,) characters of each word."""
        return self.ends - self.starts

    @functools.cached_property
    def length_sums(self) -> Positions:
        """(N + 1,) characters of the words before each, without what is between them."""
        sums = np.zeros(len(self) + 1, np.int64)
        np.cumsum(self.lengths, out=sums[1:])
        return sums

    @functools.cached_property
    def lettered(self) -> Flags:
        """(N,) has the word a letter, mark or digit, or is it of signs only?"""
        return self._any("LMN")

    @functools.cached_property
    def alphabetic(self) -> Flags:
        """(N,) has the word a letter?"""
        return self._any("L")

    @functools.cached_property
    def hashes(self) -> Hashes:
        """(N,) of each word in lower case and without what is no letter, mark or digit.

        A word that has none of these ("—") has the hash of the empty word, 0.
        """
        codes = self._codes if self._codes.dtype == np.uint8 else _codes(_lower(self.text))
        counted = _look_up(_table(codes.dtype == np.uint8, "LMN"), codes)
        values = np.take(_values(codes.dtype == np.uint8, True), codes)
        places = np.zeros(len(codes) + 1, np.int64)
        np.cumsum(counted, out=places[1:])
        return _stretches(values, self.starts, self.ends, places)

    @functools.cached_property
    def exact(self) -> Hashes:
        """(N,) of each word as it is written."""
        values = _values(self._codes.dtype == np.uint8, False)[self._codes]
        return _stretches(values, self.starts, self.ends)

    def ngrams(self, n: int, exact: bool = False) -> Hashes:
        """(max(0, N - n + 1),) hashes of n words in a row: of `hashes`, or of `exact` ones."""
        return ngrams(self.exact if exact else self.hashes, n)

    def _any(self, categories: str) -> Flags:
        """(N,) has the word a character of these categories? What follows it up to the next word is none."""
        return np.logical_or.reduceat(self._is(categories), self.starts) if len(self) else np.zeros(0, np.bool_)

    def _is(self, categories: str) -> Flags:
        return _look_up(_table(self._codes.dtype == np.uint8, categories), self._codes)

    def __getitem__(self, i: int) -> str:
        return self.text[self.starts[i] : self.ends[i]]


def ngrams(hashes: Hashes, n: int) -> Hashes:
    """(max(0, N - n + 1),) hashes of n items in a row, well mixed in all bits.

    Raises:
        ValueError: n is not positive.
    """
    if n < 1:
        raise ValueError(f"n: must be at least 1, got {n}")
    count = len(hashes) - n + 1
    if count <= 0:
        return np.zeros(0, np.uint64)
    total = hashes[:count].copy()
    for i in range(1, n):
        total *= WORD_FACTOR
        total += hashes[i : i + count]
    return mix(total)


def mix(hashes: Hashes) -> Hashes:
    """splitmix64's last step (Steele, Lea and Flood 2014): a bijection that spreads every bit over all bits."""
    x = hashes ^ (hashes >> np.uint64(30))
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def _codes(text: str) -> Codes:
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _lower(text: str) -> str:
    """Lower case, character by character, so that places stay: İ, which would become two, stays as it is."""
    lowered = text.lower()
    if len(lowered) == len(text):
        return lowered
    return "".join(small if len(small := letter.lower()) == 1 else letter for letter in text)


@functools.cache
def _table(ascii_only: bool, categories: str) -> Flags:
    """For each code point: is it of these categories of Unicode (by their first letters)?"""
    letters = [chr(code) for code in range(128 if ascii_only else _UNICODE)]
    if categories == _NO_SPACE:
        return np.fromiter((not letter.isspace() for letter in letters), np.bool_, len(letters))
    return np.fromiter((unicodedata.category(letter)[0] in categories for letter in letters), np.bool_, len(letters))


def _look_up(table: Flags, codes: Codes) -> Flags:
    """Flags of code points; the last of the table stands for all beyond."""
    return table[codes] if codes.dtype == np.uint8 else np.take(table, codes, mode="clip")


@functools.cache
def _values(ascii_only: bool, lower: bool) -> Hashes:
    """A random value for each code point; if `lower`, A–Z have those of a–z, and what is no letter, mark or digit 0."""
    values = np.random.Generator(np.random.PCG64(_SEED)).integers(1, 2**64, 128, np.uint64, endpoint=False)
    if not ascii_only:
        codes = np.arange(0x110000, dtype=np.uint64)
        values = np.concatenate([values, mix(codes[128:] * np.uint64(_BASE))])
    if lower:
        values[ord("A") : ord("Z") + 1] = values[ord("a") : ord("z") + 1]
        counted = _table(ascii_only, "LMN")
        values[: len(counted)][~counted] = 0
        values[len(counted) :] = 0
    return values


@functools.cache
def _powers(size: int) -> tuple[Hashes, Hashes]:
    """Powers 0 … size - 1 of the base, and of its inverse, modulo 2^64."""
    inverse = pow(_BASE, -1, 2**64)
    up, down = np.full(size, _BASE, np.uint64), np.full(size, inverse, np.uint64)
    up[0] = down[0] = 1
    return np.cumprod(up, dtype=np.uint64), np.cumprod(down, dtype=np.uint64)


def _stretches(values: Hashes, starts: Positions, ends: Positions, places: Positions | None = None) -> Hashes:
    """Hashes of values[start:end], each as if it stood at the beginning.

    Args:
        values: (L,) zero where nothing counts.
        starts, ends: (N,).
        places: (L + 1,) how many count before each; all do if left out.
    """
    size = 1 << max(12, (len(values) + 1).bit_length())  # few sizes, so that tables are few
    up, down = _powers(size) if size <= _LARGEST_KEPT else _powers.__wrapped__(size)
    sums = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values * (up[: len(values)] if places is None else up[places[:-1]]), out=sums[1:])
    return (sums[ends] - sums[starts]) * down[starts if places is None else places[starts]]
