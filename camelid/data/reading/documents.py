"""From a piece of a source to documents: what cannot be one is counted, or refused; and files of documents."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from camelid.data.document import Document
from camelid.data.reading.fields import Malformed
from camelid.data.reading.files import Piece
from camelid.data.reading.options import SourceOptions
from camelid.data.sources import source_kind
from camelid.data.stage_stats import StageReport
from camelid.errors import FormatError
from camelid.files import whole_file

LEVEL = 1  # of compression: files of documents are read a few times and then mostly rest


def read_pieces(pieces: Iterable[Piece], options: SourceOptions, report: StageReport) -> Iterator[Document]:
    """The documents of pieces of a source, in order; `report` counts them and what became none.

    Raises:
        FormatError: something malformed, and the options say that this is an error; or a file cannot be read.
        MissingError: a file is gone, or a library is not installed.
    """
    kind = source_kind(options.kind)
    started = time.perf_counter()
    for piece in pieces:
        for found in kind.read(piece, options):
            if report.documents_out == options.max_documents:
                return
            document = _checked(found, options)
            if isinstance(document, Malformed):
                if options.malformed == "error":
                    raise FormatError(
                        f"{piece.path or options.name}: {document.reason} at {document.id}; "
                        f'mend it, or say malformed = "drop" in its source'
                    )
                report.documents_in += 1
                report.refuse(document.reason, document.id, document.text)
                continue
            report.keep(document)
            report.seconds += time.perf_counter() - started
            yield document
            started = time.perf_counter()
    report.seconds += time.perf_counter() - started


def _checked(found: Document | Malformed, options: SourceOptions) -> Document | Malformed:
    if isinstance(found, Malformed):
        return found
    if not found.text or found.text.isspace():
        return Malformed("empty", found.id)
    if len(found.text) > options.longest:
        return Malformed("too long", found.id, found.text[:300])
    if not found.text.isascii():
        try:
            found.text.encode("utf-8")
        except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell
            return Malformed("not Unicode", found.id, found.text[:300].encode("utf-8", "replace").decode())
    return found


def write_documents(path: Path, documents: Iterable[Document]) -> None:
    """Write a `.jsonl.gz`, complete or not at all; the same documents give the same bytes."""
    with (
        whole_file(path) as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=LEVEL, mtime=0) as file,
    ):
        for document in documents:
            file.write(json.dumps(document.as_json(), ensure_ascii=False).encode("utf-8") + b"\n")


def read_documents(path: Path) -> Iterator[Document]:
    """What `write_documents` wrote.

    Raises:
        FormatError: the file is gone or damaged.
    """
    try:
        with gzip.open(path) as file:
            for line in file:
                yield Document.from_json(json.loads(line))
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"{path}: cannot be read ({error}); prepare the data again with --overwrite") from None
