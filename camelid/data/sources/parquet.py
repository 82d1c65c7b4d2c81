"""Parquet files, a document a row, read batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from camelid.data.document import Document
from camelid.data.reading.fields import FieldOptions, Malformed, check_fields, fields, to_document
from camelid.data.reading.files import FileOptions, FilePart, find_files
from camelid.errors import CamelidError, FormatError, MissingError

_BATCH = 256  # rows in memory at once


class Source(FileOptions, FieldOptions):
    """Parquet files."""


def file_parts(options: Source, folder: Path) -> list[FilePart]:
    """Files, the large ones cut between row groups.

    Raises:
        MissingError: there are no such files, or pyarrow is not installed.
        FormatError: a file is no Parquet file.
        OptionError: a file lacks a field that the recipe names.
    """
    return [part for path, label in find_files(options, folder, (".parquet",)) for part in _cut(options, path, label)]


def read(part: FilePart, options: Source) -> Iterator[Document | Malformed]:
    """Documents and what is none, in order. An id is the record's, else `FILE#ROW` with the row's number."""
    with _open(part.path) as file:
        row = sum(file.metadata.row_group(group).num_rows for group in range(part.start))
        columns = fields(options, file.schema_arrow.names)
        groups = list(range(part.start, part.stop))
        for batch in file.iter_batches(_BATCH, row_groups=groups, columns=columns, use_threads=False):
            for record in batch.to_pylist():
                yield to_document(record, options, f"{part.label}#{row}")
                row += 1


def _cut(options: Source, path: str, label: str) -> Iterator[FilePart]:
    with _open(path) as file:
        check_fields(options, file.schema_arrow.names, label)
        sizes = [file.metadata.row_group(group).total_byte_size for group in range(file.metadata.num_row_groups)]
    start = size = 0
    for group, n_bytes in enumerate(sizes):
        if size and size + n_bytes > options.unit_bytes:
            yield FilePart(path, label, start, group, size)
            start, size = group, 0
        size += n_bytes
    yield FilePart(path, label, start, len(sizes), size)


@contextmanager
def _open(path: str) -> Iterator[Any]:
    """A file, and what pyarrow says of a damaged one: system, arrow and value errors, wherever it is read."""
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError:
        raise MissingError(f"{path}: needs pyarrow; pip install 'camelid[data]'") from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield file
    except FileNotFoundError:
        raise MissingError(f"{path}: has disappeared since the work began; put it back") from None
    except CamelidError:
        raise
    except (OSError, ValueError, OverflowError, MemoryError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise FormatError(f"{path}: not a readable Parquet file ({reason}); fetch it again") from None
