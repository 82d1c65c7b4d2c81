"""Plain text: a document a file, or one a line, or what is between blank lines or marks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from camelid.data.document import Document
from camelid.data.reading.fields import Malformed
from camelid.data.reading.files import FileOptions, FilePart, cut, find_files, is_utf16, lines, opened, whole_part


class Source(FileOptions):
    """Text files in UTF-8; plain, .gz or .zst."""

    split: Literal["file", "blank-line", "line", "mark"] = Field("file", description="What ends a document.")
    mark: str = Field("<|endoftext|>", min_length=1, description="With split = mark: a line of its own that ends one.")


def file_parts(options: Source, folder: Path) -> list[FilePart]:
    """Files; the large ones cut where documents end, if that is not only where files do.

    Raises:
        MissingError: there are no such files.
    """
    files = find_files(options, folder)
    if options.split == "file":
        return [whole_part(path, label) for path, label in files]
    endings = {"line": b"\n", "blank-line": b"\n\n", "mark": f"\n{options.mark}\n".encode()}
    ending = endings[options.split]
    return [part for path, label in files for part in cut(path, label, ending, options.unit_bytes)]


def read(part: FilePart, options: Source) -> Iterator[Document | Malformed]:
    """Documents and what is none, in order. An id is `FILE`, or `FILE#OFFSET` with the document's place in bytes."""
    if options.split == "file":
        with opened(part.path) as file:
            data = file.read(4 * options.longest + 1)
        yield _document([data if len(data) <= 4 * options.longest else None], options, part.label)
        return
    for offset, parts in _documents(part, options):
        yield _document(parts, options, f"{part.label}#{offset}")


def _documents(part: FilePart, options: Source) -> Iterator[tuple[int, list[bytes | None]]]:
    """Offset and lines of each document; what is too long already is held no further."""
    begin, held, size = 0, list[bytes | None](), 0
    ending = options.mark.encode() if options.split == "mark" else b""
    for offset, line in lines(part, 4 * options.longest):
        if line is not None and line.strip() == ending:
            if held:
                yield begin, held
            held, size = [], 0
            continue
        if not held:
            begin = offset
        size += len(line or b"")
        held = [None] if line is None or size > 4 * options.longest or held == [None] else [*held, line]
        if options.split == "line":
            yield begin, held
            held, size = [], 0
    if held:
        yield begin, held


def _document(parts: list[bytes | None], options: Source, id: str) -> Document | Malformed:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return Malformed("too long", id)
    data = b"\n".join(known)
    try:
        if is_utf16(data):
            return Malformed("UTF-16", id, data[:300].decode("utf-16", "replace"))
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return Malformed("not UTF-8", id, data[:300].decode("utf-8", "replace"))
    return Document(text.replace("\r\n", "\n"), id, options.name, licence=options.licence)
