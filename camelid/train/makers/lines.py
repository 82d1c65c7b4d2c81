"""Answers as they are written: lines of JSON that are there after a kill, whoever of several ranks wrote them.

    answers/3f0c…/0.jsonl       of rank 0; a line is a prompt with its answers
    answers/3f0c…/1.jsonl       of rank 1

The folder's name says what the answers depend on, so that those of another model or of other choices are never taken
for these. Which rank wrote a line, and when, means nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from camelid.errors import FormatError
from camelid.files import whole_file, writing


class Lines:
    """What has been written by all ranks, and a file for what this one writes; a context that closes it.

    Args:
        folder: of the files.
        rank: of this process.

    Raises:
        FormatError: a line, other than a last one that a kill cut short, cannot be read.
        ResourceError: the folder cannot be written.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self._path = folder / f"{rank}.jsonl"
        self._places: dict[str, tuple[Path, int]] = {}
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(folder.glob("*.jsonl")):
                end = self._look(path)
                if path == self._path:
                    os.truncate(path, end)
            self._file: BinaryIO = self._path.open("ab")

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, key: str) -> dict[str, Any]:
        path, start = self._places[key]
        with path.open("rb") as file:
            file.seek(start)
            found: dict[str, Any] = json.loads(file.readline())
            return found

    def add(self, key: str, values: Mapping[str, Any]) -> None:
        """Write a line, which a kill of this process cannot take back.

        Raises:
            ResourceError: it cannot be written.
        """
        line = json.dumps({"key": key, **values}, ensure_ascii=False).encode() + b"\n"
        with writing(self._path):
            start = self._file.tell()
            self._file.write(line)
            self._file.flush()
        self._places[key] = (self._path, start)

    def close(self) -> None:
        """Nothing more will be written."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _look(self, path: Path) -> int:
        """Find the lines of a file; returns where the last whole one ends."""
        end = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    self._places[str(json.loads(line)["key"])] = (path, end)
                except (ValueError, KeyError, TypeError):
                    raise FormatError(f"{path}: line {number}: no answer; delete the file, to write it anew") from None
                end += len(line)
        return end


def fingerprint(*parts: Any) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of JSON values."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """A file of JSON lines, complete or not at all.

    Raises:
        ResourceError: it cannot be written.
    """
    with writing(path), whole_file(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of such a file.

    Raises:
        FormatError: a line is none.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise FormatError(f"{path}: line {number}: not an object of JSON; delete the file, to make it anew")
            yield row
