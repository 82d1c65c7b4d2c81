"""Counting the words of documents in bounded memory: what does not fit waits on the disk, and no count is lost."""

from __future__ import annotations

import heapq
import struct
import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

import tokenizers
from tokenizers import pre_tokenizers

Word = tuple[bytes, int]  # a word in UTF-8 and how often it came

_HEAD = struct.Struct("<QI")


class WordCounts:
    """How often each word came; the sums are exact, whatever the order of the texts and however little fits.

    Words are cut by a regular expression. When more than `limit` different ones are held, they go to a temporary file
    in the order of their bytes; in the end the files are read side by side.

    Args:
        expression: cuts text into words; what it does not match is a word too.
        limit: different words that are held at once; a word takes about 100 bytes.
        longest: bytes of a word that is still counted. Longer ones are no language, and would take long to learn from.
    """

    def __init__(self, expression: str, limit: int, longest: int) -> None:
        self._cutter = pre_tokenizers.Split(tokenizers.Regex(expression), "isolated")
        self._limit, self._longest = limit, longest
        self._held: Counter[str] = Counter()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._runs: list[Path] = []

    def add(self, text: str) -> None:
        """Count the words of one text, which holds no lone surrogates."""
        self._held.update(word for word, _ in self._cutter.pre_tokenize_str(text))
        if len(self._held) > self._limit:
            self._spill()

    def most_frequent(self, most: int, least: int) -> list[Word]:
        """The words that came `least` times or more, at most `most` of them: the most frequent first, of equally
        frequent ones the one with the lower bytes. The counts are gone afterwards."""
        frequent = ((-count, word) for word, count in self._all() if count >= least)
        best = [(word, -negative) for negative, word in heapq.nsmallest(most, frequent)]
        if self._folder is not None:
            self._folder.cleanup()
        self._folder, self._runs = None, []
        return best

    def _take(self) -> list[Word]:
        """What is held, in the order of the words' bytes; nothing is held afterwards."""
        words = sorted((word.encode(), count) for word, count in self._held.items())
        self._held.clear()
        return [(word, count) for word, count in words if len(word) <= self._longest]

    def _spill(self) -> None:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="camelid-words-")
        path = Path(self._folder.name) / str(len(self._runs))
        with path.open("wb") as file:
            for word, count in self._take():
                file.write(_HEAD.pack(count, len(word)) + word)
        self._runs.append(path)

    def _all(self) -> Iterator[Word]:
        """Every word once, in the order of the words' bytes."""
        held = self._take()
        files = [path.open("rb") for path in self._runs]
        try:
            merged = heapq.merge(held, *map(_read_run, files))
            for word, same in groupby(merged, key=lambda one: one[0]):
                yield word, sum(count for _, count in same)
        finally:
            for file in files:
                file.close()


def _read_run(file: BinaryIO) -> Iterator[Word]:
    while head := file.read(_HEAD.size):
        count, length = _HEAD.unpack(head)
        yield file.read(length), count
