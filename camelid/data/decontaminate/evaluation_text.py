"""Text that a model will be tested on, read from files, and found again in documents."""

from __future__ import annotations

import functools
import json
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camelid.data.options import DecontaminateOptions
from camelid.data.reading.files import opened
from camelid.data.word_hashes import Hashes, Words, ngrams
from camelid.errors import FormatError, MissingError, OptionError


@dataclass(frozen=True)
class NormalizedText:
    """Words as they are compared, in lower case and of letters and digits only, with their hashes (N,)."""

    spelled: tuple[str, ...]
    hashes: Hashes


@dataclass(frozen=True)
class TestItem:
    """One test item.

    Attributes:
        name: of its file, and number: its place there, from 1.
        fields: the longest first.
    """

    name: str
    number: int
    fields: tuple[NormalizedText, ...]


@dataclass(frozen=True)
class Match:
    """An item found in a document: characters start … stop − 1."""

    item: TestItem
    start: int
    stop: int


class EvaluationText:
    """All items of some files.

    Attributes:
        counts: by name, how many items are looked for; skipped: how many are too short to be told from chance.

    Raises:
        MissingError, FormatError: a file is not there or cannot be read.
        OptionError: a field that an item does not have; JSON without any field named; no item that is long enough.
    """

    def __init__(self, options: DecontaminateOptions, folder: Path) -> None:
        self._length = options.words
        self.counts: dict[str, int] = {}
        self.skipped: dict[str, int] = {}
        self._items: list[TestItem] = []
        for file in options.against:
            before = len(self._items)
            name = file.name or Path(file.path).name
            for number, texts in enumerate(_read(folder / Path(file.path).expanduser(), file.fields), 1):
                runs = [_NormalizedWords(Words(text)).run() for text in texts]
                runs.sort(key=lambda run: len(run.spelled), reverse=True)
                if len(runs[0].spelled) < options.shortest:
                    self.skipped[name] = self.skipped.get(name, 0) + 1
                    continue
                self._items.append(TestItem(name, number, tuple(run for run in runs if run.spelled)))
            self.counts[name] = self.counts.get(name, 0) + len(self._items) - before
            if len(self._items) == before:
                raise OptionError(
                    f"decontaminate: {file.path}: no item of {options.shortest} words or more; check its fields"
                )
        self._tables = [_NgramTable(self._items, length, options.words) for length in range(1, options.words + 1)]
        self._tables = [table for table in self._tables if len(table.hashes)]

    def __len__(self) -> int:
        return len(self._items)

    def find(self, words: Words) -> Iterator[Match]:
        """Items of which all fields occur, in the order of `words`; each place once, compared word for word."""
        document = _NormalizedWords(words)
        occurs: dict[int, bool] = {}
        for table in self._tables:
            for place, row in table.candidates(ngrams(document.hashes, table.length)):
                for number, offset in table.rows(row):
                    item = self._items[number]
                    if document.has_at(place, item.fields[0].spelled[offset : offset + table.length]):
                        if number not in occurs:
                            occurs[number] = all(document.has(field, self._length) for field in item.fields[1:])
                        if occurs[number]:
                            yield Match(item, *document.characters(place, table.length))
                            break


def evaluation_text(options: DecontaminateOptions, folder: Path) -> EvaluationText:
    """An `EvaluationText` that is kept for the next call, as long as its files do not change."""
    paths = [folder / Path(file.path).expanduser() for file in options.against]
    states = tuple((path.stat().st_mtime_ns, path.stat().st_size) if path.exists() else None for path in paths)
    return _cached(options, folder, states)


@functools.lru_cache(maxsize=1)
def _cached(options: DecontaminateOptions, folder: Path, states: tuple[object, ...]) -> EvaluationText:
    return EvaluationText(options, folder)


class _NormalizedWords:
    """The words of a text that have a letter or digit, in lower case."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self._places = np.flatnonzero(words.hashes)
        self.hashes: Hashes = words.hashes[self._places]

    def run(self) -> NormalizedText:
        return NormalizedText(tuple(spelled(self._words[place]) for place in self._places.tolist()), self.hashes)

    def has_at(self, place: int, run: Sequence[str]) -> bool:
        places = self._places[place : place + len(run)].tolist()
        return len(places) == len(run) and all(
            spelled(self._words[at]) == word for at, word in zip(places, run, strict=True)
        )

    def has(self, field: NormalizedText, length: int) -> bool:
        """Are `length` words in a row of a field here, or the whole field if it is shorter."""
        length = min(length, len(field.spelled))
        wanted = ngrams(field.hashes, length)
        present = ngrams(self.hashes, length)
        return any(
            self.has_at(place, field.spelled[offset : offset + length])
            for offset in np.flatnonzero(np.isin(wanted, present)).tolist()
            for place in np.flatnonzero(present == wanted[offset]).tolist()
        )

    def characters(self, place: int, length: int) -> tuple[int, int]:
        first, last = self._places[place], self._places[place + length - 1]
        return int(self._words.starts[first]), int(self._words.ends[last])


class _NgramTable:
    """Runs of `length` words of the items' longest fields: a field of fewer than `most` words is one whole run."""

    def __init__(self, items: Sequence[TestItem], length: int, most: int) -> None:
        self.length = length
        numbers = [number for number, item in enumerate(items) if min(len(item.fields[0].hashes), most) == length]
        runs = [ngrams(items[number].fields[0].hashes, length) for number in numbers]
        hashes = np.concatenate([np.zeros(0, np.uint64), *runs])
        order = np.argsort(hashes, kind="stable")
        self.hashes = hashes[order]
        counts = [len(run) for run in runs]
        self._numbers = np.repeat(np.array(numbers, np.int64), counts)[order]
        self._offsets = np.concatenate([np.zeros(0, np.int64), *map(np.arange, counts)])[order]
        # Most runs of a document are in no test: a table of bits by the first bits of the hash says so at once.
        bits = min(28, max(12, (16 * len(hashes)).bit_length()))
        self._shift = np.uint64(64 - bits)
        self._maybe = np.zeros(1 << bits, bool)
        self._maybe[(self.hashes >> self._shift).astype(np.int64)] = True

    def candidates(self, runs: Hashes) -> Iterator[tuple[int, int]]:
        """Place in a document and first row of this table, where hashes agree."""
        places = np.flatnonzero(self._maybe[(runs >> self._shift).astype(np.int64)])
        rows = np.searchsorted(self.hashes, runs[places])
        same: NDArray[np.bool_] = self.hashes[np.minimum(rows, len(self.hashes) - 1)] == runs[places]
        yield from zip(places[same].tolist(), rows[same].tolist(), strict=True)

    def rows(self, row: int) -> Iterator[tuple[int, int]]:
        """TestItem and place in its field of all rows with the hash of `row`."""
        key = self.hashes[row]
        while row < len(self.hashes) and self.hashes[row] == key:
            yield int(self._numbers[row]), int(self._offsets[row])
            row += 1


def spelled(word: str) -> str:
    """A word as it is compared: in lower case, its letters, marks and digits."""
    return "".join(letter for letter in word.lower() if unicodedata.category(letter)[0] in "LMN")


def _read(path: Path, fields: tuple[str, ...]) -> Iterator[list[str]]:
    """The texts of each item."""
    if not path.is_file():
        raise MissingError(f"decontaminate: {path}: no such file; check the path")
    with opened(str(path)) as file:
        data = file.read()
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise FormatError(f"decontaminate: {path}: not UTF-8 at byte {error.start}; convert it") from None
    if ".json" not in path.name:
        if fields:
            raise OptionError(f"decontaminate: {path}: plain text has no fields; leave them out")
        yield from ([part] for part in text.split("\n\n") if part.strip())
        return
    for number, record in enumerate(_records(path, text), 1):
        yield [_field(record, name, f"{path}: item {number}") for name in fields or ("",)]


def _records(path: Path, text: str) -> Iterator[Any]:
    try:
        if text.lstrip().startswith("["):
            yield from json.loads(text)
        else:
            yield from (json.loads(line) for line in text.split("\n") if line.strip())
    except ValueError as error:
        raise FormatError(f"decontaminate: {path}: not JSON ({error}); fix it") from None


def _field(record: Any, name: str, where: str) -> str:
    if not isinstance(record, dict):
        raise FormatError(f"decontaminate: {where}: is not a JSON object; fix the file")
    if name not in record:
        there = ", ".join(sorted(map(str, record)))
        raise OptionError(f"decontaminate: {where}: no field {name!r}; let `fields` name some of: {there}")
    value = record[name]
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
