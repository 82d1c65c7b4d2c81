"""The GGUF container: a header of typed fields, a table of tensors, aligned data. No word about models.

    head with fields (`tokens/files/gguf_fields.py`) | tensor table… | padding | data, aligned

Everything that a file says about itself is checked against the file's size, and bounded, before it is used.
Source: the GGUF specification in the ggml repository (docs/gguf.md).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from camelid.errors import FormatError, MissingError, UnsupportedError
from camelid.open_file import OpenFile, Region, Which
from camelid.tokens.files.gguf_fields import SPLIT, Cursor, read_head
from camelid.weights.quants import BY_GGUF_TYPE, QUANTS
from camelid.weights.quants.quant import Bytes, Quant

ALIGNMENT = 32
_MAX_DIMS = 4
_AGAIN = "fetch or convert it again"


@dataclass(frozen=True)
class Entry:
    """One row of the tensor table: shape as NumPy writes it, and where the bytes begin in the file."""

    name: str
    shape: tuple[int, ...]
    quant: Quant
    start: int
    nbytes: int


class GGUFFile:
    """One opened file.

    Attributes:
        fields: key → value.
        entries: tensor name → `Entry`.

    Raises:
        FormatError: not a GGUF, or damaged.
        UnsupportedError: another version, big-endian, or a tensor of a kind that is not in `QUANTS`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = OpenFile(path)
        cursor = Cursor(self.file)
        n_tensors, self.fields = read_head(cursor)
        self.alignment = self._alignment()
        table = [_read_row(cursor) for _ in range(n_tensors)]
        data_start = -(-cursor.position // self.alignment) * self.alignment
        self.entries = _check_table(self, table, data_start)

    def _alignment(self) -> int:
        alignment = self.fields.get("general.alignment", ALIGNMENT)
        if not isinstance(alignment, int) or not 0 < alignment <= 1 << 24 or alignment & (alignment - 1):
            raise FormatError(f"{self.path}: general.alignment is {alignment!r}, not a power of two; {_AGAIN}")
        return alignment

    def blocks(self, entry: Entry) -> Bytes:
        """The bytes of a tensor, read now, uint8 (rows, bytes per row); a vector is one row."""
        return self.file.read(entry.start, entry.nbytes).reshape(math.prod(entry.shape[:-1]), -1)

    def rows(self, entry: Entry, which: Which) -> Bytes:
        """Some of these rows."""
        return Region(self.file, entry.start, entry.nbytes).rows(math.prod(entry.shape[:-1]), which)

    @cached_property
    def split_count(self) -> int:
        """Of how many files this is one."""
        count = self.fields.get("split.count", 1)
        return count if isinstance(count, int) else 1


def open_parts(path: Path) -> list[GGUFFile]:
    """The file, or all parts `name-0000i-of-0000N.gguf` of a split one, in order, whichever part was named."""
    named = SPLIT.fullmatch(path.name)
    if named is None:
        file = GGUFFile(path)
        if file.split_count > 1:
            raise FormatError(
                f"{path}: one part of {file.split_count}, but its name does not end in -00001-of-{file.split_count:05d}"
                ".gguf, so the others cannot be found; give the parts their names back"
            )
        return [file]
    stem, count = named.group(1), int(named.group(3))
    paths = [path.with_name(f"{stem}-{part:05d}-of-{count:05d}.gguf") for part in range(1, count + 1)]
    missing = [part.name for part in paths if not part.exists()]
    if missing or not paths:
        raise MissingError(f"{path}: parts are missing: {', '.join(missing[:3])}; put all {count} into one folder")
    parts = [GGUFFile(part) for part in paths]
    for number, part in enumerate(parts):
        if part.split_count != count or part.fields.get("split.no", 0) != number:
            raise FormatError(f"{part.path}: says it is not part {number + 1} of {count}; fetch the set again")
    return parts


def _read_row(cursor: Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape (slowest dimension first), type number and offset of one tensor."""
    name = cursor.text("a tensor's name")
    n_dims = cursor.number("I", name)
    if not 0 < n_dims <= _MAX_DIMS:
        raise FormatError(f"{cursor.path}: {name}: {n_dims} dimensions; {_AGAIN}")
    dims = [cursor.number("Q", name) for _ in range(n_dims)]
    return name, tuple(reversed(dims)), cursor.number("I", name), cursor.number("Q", name)


def _check_table(file: GGUFFile, table: list[tuple[str, tuple[int, ...], int, int]], start: int) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for name, shape, kind, offset in table:
        where = f"{file.path}: {name}"
        if name in entries:
            raise FormatError(f"{where}: appears in the table twice; {_AGAIN}")
        if kind not in BY_GGUF_TYPE:
            raise UnsupportedError(f"{where}: stored as ggml type {kind}; supported are {', '.join(QUANTS)}")
        quant = BY_GGUF_TYPE[kind]
        if not all(shape) or shape[-1] % quant.block:
            raise FormatError(f"{where}: shape {shape} does not fit blocks of {quant.block} weights; {_AGAIN}")
        if offset % file.alignment:
            raise FormatError(f"{where}: begins at {offset}, not a multiple of {file.alignment}; {_AGAIN}")
        entry = Entry(name, shape, quant, start + offset, math.prod(shape[:-1]) * quant.row_bytes(shape[-1]))
        short = entry.start + entry.nbytes - file.file.size
        if short > 0:
            raise FormatError(f"{where}: {short} bytes short; the file is incomplete, {_AGAIN}")
        entries[name] = entry
    in_order = sorted(entries.values(), key=lambda entry: entry.start)
    for entry, following in itertools.pairwise(in_order):
        if entry.start + entry.nbytes > following.start:
            raise FormatError(f"{file.path}: {entry.name} and {following.name} overlap; {_AGAIN}")
    return entries
