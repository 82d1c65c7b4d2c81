"""The head of a GGUF file: magic, version, counts, and the typed fields; what follows them is for `weights`.

    "GGUF" | version u32 | tensors u64 | fields u64 | fields… | what follows

A string is its length (u64) and its bytes. Versions 2 and 3 share this layout; little-endian is read. Everything that
a file says about itself is checked against the file's size, and bounded, before it is used.
Source: the GGUF specification in the ggml repository (docs/gguf.md).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from camelid.errors import FormatError, UnsupportedError
from camelid.open_file import OpenFile

MAGIC = b"GGUF"
VERSIONS = (2, 3)
STRING, ARRAY, BOOL = 8, 9, 7
# Type number → how struct and NumPy write it.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", BOOL: "?", 10: "Q", 11: "q", 12: "d"}
# What a header may hold; those of the largest vocabularies have 20 MB, 600,000 merges, 2,000 tensors.
_MAX_HEADER, _MAX_ITEMS, _MAX_ROWS = 1 << 26, 1 << 20, 1 << 16
_MAX_NAME, _MAX_TEXT = (1 << 16) - 1, 1 << 24  # bytes
_FIRST_READ = 1 << 22
_MAX_DEPTH, _MAX_ARRAYS = 3, 1000  # of arrays within an array
_AGAIN = "fetch or convert it again"
SPLIT = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class Strings:
    """An array of strings in a file: passed over when the header is read, decoded when asked for."""

    data: memoryview
    start: int
    end: int
    count: int

    def decode(self) -> list[str]:
        """The strings; bytes that are no UTF-8 survive as surrogates, since vocabularies hold pieces of characters."""
        position, data, length_at, parts = 0, bytes(self.data[self.start : self.end]), _LENGTH.unpack_from, []
        for _ in range(self.count):
            start = position + 8
            position = start + length_at(data, position)[0]
            parts.append(data[start:position])
        # Decoding together is several times faster than one by one; a string that holds a zero shows in the count.
        strings = b"\0".join(parts).decode("utf-8", "surrogateescape").split("\0")
        if len(strings) == self.count:
            return strings
        return [part.decode("utf-8", "surrogateescape") for part in parts]


class LazyFields(Mapping[str, Any]):
    """The fields of a file as Python values; arrays become lists when they are asked for."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def __getitem__(self, key: str) -> Any:
        return _plain(self._values[key])

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __iter__(self) -> Any:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def length(self, key: str) -> int:
        """How many items the array of a field has; 1 for a field that is none."""
        value = self._values[key]
        return value.count if isinstance(value, Strings) else len(value) if isinstance(value, np.ndarray | list) else 1

    def is_array(self, key: str) -> bool:
        """Whether a field holds an array, without decoding it."""
        return isinstance(self._values[key], Strings | np.ndarray | list)


def read_fields(path: Path) -> LazyFields:
    """The fields of a file; of a split one those of its first part, whichever is named. Tensors are not looked at.

    Raises:
        MissingError, FormatError, UnsupportedError: as the message says.
    """
    if (named := SPLIT.fullmatch(path.name)) is not None:
        path = path.with_name(f"{named[1]}-00001-of-{named[3]}.gguf")
    return read_head(Cursor(OpenFile(path)))[1]


def read_head(cursor: Cursor) -> tuple[int, LazyFields]:
    """How many tensors a file has, and its fields; the cursor stands behind them."""
    n_tensors, n_fields = _read_start(cursor)
    return n_tensors, LazyFields(_read_fields(cursor, n_fields))


class Cursor:
    """A position in the header of a file, which is read as far as is needed."""

    def __init__(self, file: OpenFile) -> None:
        self.path, self.size, self._file = file.path, file.size, file
        self.data, self.position = file.up_to(0, _FIRST_READ).data, 0

    def _reach(self, end: int, what: str) -> None:
        """Have the bytes before `end` in `data`."""
        if end <= len(self.data):
            return
        if end > _MAX_HEADER:
            raise FormatError(f"{self.path}: {what}: a header of more than {_MAX_HEADER:,} bytes; {_AGAIN}")
        self.data = self._file.up_to(0, max(end, 2 * len(self.data))).data

    def take(self, count: int, what: str) -> int:
        """Where the next `count` bytes begin; moves past them."""
        start = self.position
        if count > self.size - start:
            have = self.size - start
            raise FormatError(f"{self.path}: {what}: {count - have} bytes short at byte {start}; {_AGAIN}")
        self._reach(start + count, what)
        self.position = start + count
        return start

    def number(self, code: str, what: str) -> Any:
        layout = "<" + code
        start = self.take(struct.calcsize(layout), what)
        return struct.unpack_from(layout, self.data, start)[0]

    def text(self, what: str, most: int = _MAX_NAME) -> str:
        length = self.number("Q", what)
        start = self.position
        if most < length <= self.size - start:
            raise FormatError(f"{self.path}: {what}: a text of {length:,} bytes; {_AGAIN}")
        self.take(length, what)
        return str(self.data[start : start + length], "utf-8", "surrogateescape")

    def skip_strings(self, count: int, what: str) -> Strings:
        """Pass over `count` strings. A vocabulary has hundreds of thousands, hence the bare loop."""
        start = position = self.position
        length_at, done = _LENGTH.unpack_from, 0
        if count > self.size // _LENGTH.size:
            raise FormatError(f"{self.path}: {what}: the file ends within a list of strings; {_AGAIN}")
        while done < count:
            data = self.data
            try:
                for done in range(done, count):  # noqa: B007, B020 - goes on where the bytes read so far ended
                    position += 8 + length_at(data, position)[0]
                done = count
            except (struct.error, OverflowError):
                if position + 8 > self.size:
                    position = self.size + 1
                    break
                self._reach(position + 8, what)
        if position > self.size:
            raise FormatError(f"{self.path}: {what}: the file ends within a list of strings; {_AGAIN}")
        self._reach(position, what)
        self.position = position
        return Strings(self.data, start, position, count)


def _read_start(cursor: Cursor) -> tuple[int, int]:
    """Magic and version; returns how many tensors and fields follow."""
    start = cursor.take(4, "header")
    if bytes(cursor.data[start : start + 4]) != MAGIC:
        raise FormatError(f"{cursor.path}: not a GGUF file: it does not begin with 'GGUF'")
    version = cursor.number("I", "version")
    if version and version & 0xFFFF == 0:
        raise UnsupportedError(f"{cursor.path}: big-endian GGUF; convert it on the machine that made it")
    if version not in VERSIONS:
        raise UnsupportedError(f"{cursor.path}: GGUF version {version}; supported are 2 and 3; convert it again")
    n_tensors, n_fields = cursor.number("Q", "tensor count"), cursor.number("Q", "field count")
    # The smallest row takes 24 bytes, the smallest field 13: a greater count cannot be true.
    room = cursor.size - cursor.position
    if n_tensors * 24 > room or n_fields * 13 > room:
        raise FormatError(f"{cursor.path}: claims {n_tensors} tensors and {n_fields} fields in {room} bytes; {_AGAIN}")
    if max(n_tensors, n_fields) > _MAX_ROWS:
        raise FormatError(
            f"{cursor.path}: {n_tensors} tensors and {n_fields} fields are more than a model has; {_AGAIN}"
        )
    return n_tensors, n_fields


def _read_fields(cursor: Cursor, count: int) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for _ in range(count):
        key = cursor.text("a field's name")
        if key in fields:
            raise FormatError(f"{cursor.path}: field {key!r} appears twice; {_AGAIN}")
        fields[key] = _read_value(cursor, cursor.number("I", key), key)
    return fields


def _read_value(cursor: Cursor, kind: int, key: str) -> Any:
    if kind == STRING:
        return cursor.text(key, _MAX_TEXT)
    if kind == ARRAY:
        return _read_array(cursor, key)
    if kind not in SCALARS:
        raise FormatError(f"{cursor.path}: field {key!r} has unknown type {kind}; {_AGAIN}")
    value = cursor.number(SCALARS[kind], key)
    # A float32 is best told by its shortest decimal: 1e-05 rather than 9.99999974e-06; both are the same float32.
    return float(str(np.float32(value))) if kind == 6 else value


def _read_array(cursor: Cursor, key: str, depth: int = 0) -> Any:
    kind, count = cursor.number("I", key), cursor.number("Q", key)
    if kind not in (*SCALARS, STRING, ARRAY):
        raise FormatError(f"{cursor.path}: field {key!r} is an array of unknown type {kind}; {_AGAIN}")
    item = np.dtype("<" + SCALARS.get(kind, "Q"))
    if _MAX_ITEMS < count <= cursor.size // item.itemsize:
        raise FormatError(f"{cursor.path}: field {key!r} lists {count:,} items; at most {_MAX_ITEMS:,} are supported")
    if kind == STRING:
        return cursor.skip_strings(count, key)
    if kind == ARRAY:  # allowed by the specification, in notes of some programs
        if depth >= _MAX_DEPTH or count > _MAX_ARRAYS:
            raise FormatError(f"{cursor.path}: field {key!r} is an array of {count} arrays, too deep or too many")
        return [_plain(_read_array(cursor, key, depth + 1)) for _ in range(count)]
    start = cursor.take(count * item.itemsize, key)
    return np.frombuffer(cursor.data[start : start + count * item.itemsize], item)


def _plain(value: Any) -> Any:
    """An array as a list."""
    if isinstance(value, Strings):
        return value.decode()
    return value.tolist() if isinstance(value, np.ndarray) else value
