"""Parts of files become documents: what cannot be one is counted, or refused; and files of documents."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from camelid.data.document import Document
from camelid.data.reading.fields import Malformed
from camelid.data.reading.files import FilePart
from camelid.data.reading.options import SourceOptions
from camelid.data.sources import source_kind
from camelid.data.stage_stats import StageStats
from camelid.errors import FormatError
from camelid.files import whole_file

LEVEL = 1  # of compression: files of documents are read a few times and then mostly rest


def read_parts(parts: Iterable[FilePart], options: SourceOptions, stats: StageStats) -> Iterator[Document]:
    """The documents of parts of a source, in order; `stats` counts them and what became none.

    Raises:
        FormatError: something malformed, and the options say that this is an error; or a file cannot be read.
        MissingError: a file is gone, or a library is not installed.
    """
    kind = source_kind(options.kind)
    started = time.perf_counter()
    for part in parts:
        for item in kind.read(part, options):
            if stats.documents_out == options.max_documents:
                return
            document = _checked(item, options)
            if isinstance(document, Malformed):
                if options.malformed == "error":
                    raise FormatError(
                        f"{part.path or options.name}: {document.reason} at {document.id}; "
                        f'fix it, or set malformed = "drop" in its source'
                    )
                stats.documents_in += 1
                stats.refuse(document.reason, document.id, document.text)
                continue
            stats.keep(document)
            stats.seconds += time.perf_counter() - started
            yield document
            started = time.perf_counter()
    stats.seconds += time.perf_counter() - started


def _checked(item: Document | Malformed, options: SourceOptions) -> Document | Malformed:
    if isinstance(item, Malformed):
        return item
    if not item.text or item.text.isspace():
        return Malformed("empty", item.id)
    if len(item.text) > options.longest:
        return Malformed("too long", item.id, item.text[:300])
    if not item.text.isascii():
        try:
            item.text.encode("utf-8")
        except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell
            return Malformed("not Unicode", item.id, item.text[:300].encode("utf-8", "replace").decode())
    return item


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
