"""Rows of a file as mappings, whatever it is written in: JSON, JSON lines, CSV or Parquet; plain, .gz or .zst."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from camelid.data.reading.files import opened
from camelid.errors import FormatError, MissingError, UnsupportedError

Row = dict[str, Any]
_CELL = 1 << 27  # characters of a cell: a whole conversation
_ENDINGS = (".gz", ".zst", ".zstd")


def rows_of(path: Path) -> Iterator[tuple[str, Row]]:
    """Where each row stands, as `FILE:LINE`, and what it says.

    Raises:
        MissingError: there is no such file, or what reads Parquet is not installed.
        FormatError: a row is cut, or is none; the message says which.
    """
    if not path.exists():
        raise MissingError(f"{path}: no such file; give the log of an arena")
    name = path.name
    for ending in _ENDINGS:
        name = name.removesuffix(ending)
    if name.endswith(".parquet"):
        return _parquet(path)
    return _text(path, csv_like=name.endswith((".csv", ".tsv")), tab=name.endswith(".tsv"))


def _text(path: Path, csv_like: bool, tab: bool) -> Iterator[tuple[str, Row]]:
    with opened(str(path)) as file:
        if csv_like:
            yield from _csv(path, file, "\t" if tab else ",")
            return
        begin = file.read(512).lstrip(codecs.BOM_UTF8).lstrip()
        file.seek(0)
        yield from _array(path, file) if begin.startswith(b"[") else _lines(path, file)


def _csv(path: Path, file: IO[bytes], mark: str) -> Iterator[tuple[str, Row]]:
    csv.field_size_limit(_CELL)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    reader = csv.DictReader(text, delimiter=mark, strict=True)
    try:
        for row in reader:
            place = f"{path}:{reader.line_num}"
            if None in row or None in row.values():
                raise FormatError(f"{place}: has not as many cells as the first line; mend the line")
            yield place, row
    except UnicodeDecodeError:
        raise FormatError(f"{path}:{reader.line_num + 1}: is not UTF-8; convert it") from None
    except csv.Error as error:
        raise FormatError(f"{path}:{reader.line_num}: {error}; mend the line") from None
    finally:
        text.detach()  # who opened the file closes it


def _lines(path: Path, file: IO[bytes]) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(file, 1):
        if line.strip():
            yield f"{path}:{number}", _object(line.removeprefix(codecs.BOM_UTF8), f"{path}:{number}")


def _object(line: bytes, place: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        what = "is no whole line" if not line.endswith(b"\n") else "is not JSON"
        raise FormatError(f"{place}: {what}; take it out, or fetch the log again") from None
    if not isinstance(row, dict):
        raise FormatError(f"{place}: is JSON, but no object with fields")
    return row


def _array(path: Path, file: IO[bytes]) -> Iterator[tuple[str, Row]]:
    try:
        rows = json.loads(file.read())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: is not JSON ({error}); fetch it again") from None
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise FormatError(f"{path}: entry {number} is no object with fields")
        yield f"{path}: entry {number}", row


def _parquet(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UnsupportedError(f"{path}: Parquet needs pyarrow: pip install 'camelid[data]'") from None
    try:
        number = 0
        for batch in parquet.ParquetFile(path).iter_batches(4096):
            for row in batch.to_pylist():
                number += 1
                yield f"{path}: row {number}", row
    except (pyarrow.ArrowException, OSError, ValueError) as error:  # ValueError: a text that is not UTF-8
        raise FormatError(f"{path}: cannot be read as Parquet ({error}); fetch it again") from None
