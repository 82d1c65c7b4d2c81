"""JSON lines, one document a line; plain, .gz or .zst."""

from __future__ import annotations

import codecs
import json
import shlex
from collections.abc import Iterator
from pathlib import Path

from camelid.data.document import Document
from camelid.data.reading.fields import FieldOptions, Malformed, check_fields, to_document
from camelid.data.reading.files import FileOptions, FilePart, cut, find_files, lines
from camelid.errors import FormatError

_ENDINGS = tuple(name + end for name in (".jsonl", ".ndjson", ".json") for end in ("", ".gz", ".zst", ".zstd"))


class Source(FileOptions, FieldOptions):
    """JSON lines."""


def file_parts(options: Source, folder: Path) -> list[FilePart]:
    """Files, the large ones cut at ends of lines.

    Raises:
        MissingError: there are no such files.
        OptionError: the first record of a file lacks a field that the recipe names.
    """
    files = find_files(options, folder, _ENDINGS)
    for path, label in files:
        _check(options, path, label)
    return [part for path, label in files for part in cut(path, label, b"\n", options.unit_bytes)]


def read(part: FilePart, options: Source) -> Iterator[Document | Malformed]:
    """Documents and what is none, in order. An id is the record's, else `FILE#OFFSET`, the line's place in bytes."""
    for offset, line in lines(part, _longest_line(options)):
        place = f"{part.label}#{offset}"
        if line is None:
            yield Malformed("line too long", place)
        elif line.strip():
            yield _document(line.removeprefix(codecs.BOM_UTF8) if not offset else line, options, place)


def _document(line: bytes, options: Source, place: str) -> Document | Malformed:
    try:
        record = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else "not JSON"
        return Malformed(reason, place, line[:300].decode("utf-8", "replace"))
    if not isinstance(record, dict):
        return Malformed("no JSON object", place, line[:300].decode("utf-8", "replace"))
    return to_document(record, options, place)


def _check(options: Source, path: str, label: str) -> None:
    """Look at the first record that can be read, and whether these are lines of JSON at all.

    Raises:
        FormatError: it is one JSON array, or an object over several lines.
        OptionError: the first record lacks a field.
    """
    seen = list[bytes]()
    for number, (_, line) in enumerate(lines(FilePart(path, label, 0, 1 << 62, 0), _longest_line(options))):
        seen += [line.strip()] if line and line.strip() else []
        if len(seen) == 2 or (seen and seen[0].startswith(b"[")):
            _check_lines(path, *seen[:2])
        if number == 100:
            return
        try:
            record = json.loads(line or b"")
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            check_fields(options, record, label)
            return


def _check_lines(path: str, first: bytes, second: bytes = b"") -> None:
    try:
        value = json.loads(first)
        one_a_line = not isinstance(value, list) or not all(isinstance(item, dict) for item in value)
    except (ValueError, RecursionError):
        one_a_line = not first.startswith(b"[") and not (first.startswith(b"{") and second[:1] not in (b"{", b""))
    if not one_a_line:
        what, jq = ("a JSON array", ".[]") if first.startswith(b"[") else ("JSON over several lines", ".")
        raise FormatError(f"{path}: is {what}, not one object a line; convert it: jq -c '{jq}' {shlex.quote(path)}")


def _longest_line(options: Source) -> int:
    """Bytes: each character may be written as an escape of six, and there are other fields."""
    return 6 * options.longest + (1 << 20)
