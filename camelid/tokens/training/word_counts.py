"""Counting the words of documents in bounded memory: what does not fit waits on the disk, and no count is lost."""

from __future__ import annotations

import heapq
import struct
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, Protocol

import tokenizers
from tokenizers import pre_tokenizers

from camelid.tokens.choose_backend import has_bpe
from camelid.tokens.pretokenizers import stage_of

Word = tuple[bytes, int]  # a word in UTF-8 and how often it came

_HEAD = struct.Struct("<QI")
_MOST_FILES = 64


class _Held(Protocol):
    """Words that are held in memory."""

    def add(self, text: str) -> None: ...
    def take(self) -> list[Word]: ...
    def __len__(self) -> int: ...


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
        self._held, self._limit = _held(expression, longest), limit
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._runs: list[Path] = []
        self._written = 0

    def add(self, text: str) -> None:
        """Count the words of one text.

        Raises:
            UnicodeEncodeError: the text has a lone surrogate.
        """
        self._held.add(text)
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

    def _spill(self) -> None:
        """Write what is held to a new file; many files become one, since a process may open only so many."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="camelid-words-")
        files = self._runs if len(self._runs) >= _MOST_FILES else []
        words = self._all() if files else iter(self._held.take())
        self._written += 1
        path = Path(self._folder.name) / str(self._written)
        with path.open("wb") as file:
            for word, count in words:
                file.write(_HEAD.pack(count, len(word)) + word)
        for old in files:
            old.unlink()
        self._runs = [*([] if files else self._runs), path]

    def _all(self) -> Iterator[Word]:
        """Every word once, in the order of the words' bytes; nothing is held afterwards."""
        held = self._held.take()
        with ExitStack() as files:
            runs = [_read_run(files.enter_context(path.open("rb"))) for path in self._runs]
            for word, same in groupby(heapq.merge(held, *runs), key=lambda one: one[0]):
                yield word, sum(count for _, count in same)


class _LibraryHeld:
    """Words that the `tokenizers` library cuts, where our C++ loop is not built."""

    def __init__(self, expression: str, longest: int) -> None:
        self._cutter = pre_tokenizers.Split(tokenizers.Regex(expression), "isolated")
        self._counts: Counter[bytes] = Counter()
        self._longest = longest

    def add(self, text: str) -> None:
        text.encode()
        words = (word.encode() for word, _ in self._cutter.pre_tokenize_str(text))
        self._counts.update(word for word in words if len(word) <= self._longest)

    def take(self) -> list[Word]:
        words = sorted(self._counts.items())
        self._counts.clear()
        return words

    def __len__(self) -> int:
        return len(self._counts)


def _held(expression: str, longest: int) -> _Held:
    stage = stage_of(expression)
    if stage is None or not has_bpe():
        return _LibraryHeld(expression, longest)
    from camelid.tokens._bpe import WordCounter

    return WordCounter([stage], longest)


def _read_run(file: BinaryIO) -> Iterator[Word]:
    while head := file.read(_HEAD.size):
        count, length = _HEAD.unpack(head)
        yield file.read(length), count
