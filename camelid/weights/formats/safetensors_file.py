"""The safetensors container, read and written one tensor at a time.

    header length u64 | JSON: name → dtype, shape, data_offsets; "__metadata__" | the tensors' bytes, without holes

Source: the format description in the safetensors repository.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from camelid.errors import FormatError, NumericsError, UnsupportedError
from camelid.open_file import OpenFile, Region, Which
from camelid.parsing import once, parse_json
from camelid.weights.quants import QUANTS, UNQUANTISED
from camelid.weights.quants.quant import Bytes

MAX_HEADER = 100_000_000  # the format's own limit
_MAX_DIMS = 8
_ITEM = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2}
_ITEM |= {"U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "C64": 8}
_AGAIN = "fetch or convert it again"


class Readable(Protocol):
    """Bytes that are read when they are asked for, as a `Region` of a file."""

    def read(self, start: int = 0, count: int | None = None) -> Bytes:
        """All of them, or `count` from `start` on: a new array."""


@dataclass(frozen=True)
class Stored:
    """A tensor in a file of any format that keeps plain numbers: dtype as safetensors writes it, and where it lies."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    stored: Readable

    def quant(self) -> str:
        """The dtype of `rows` as a key of `QUANTS`; F64 is rounded to F32.

        Raises:
            UnsupportedError: weights are stored as something else than F32, F16 or BF16.
        """
        if self.dtype == "F64":
            return "F32"
        if self.dtype not in UNQUANTISED:
            raise UnsupportedError(
                f"{self.file}: {self.name} is stored as {self.dtype}; weights must be F32, F16 or BF16: "
                "save the model again in one of these"
            )
        return self.dtype

    @property
    def data(self) -> Bytes:
        """Its bytes, (nbytes,): a new array, read now."""
        return self.stored.read()

    def rows(self) -> Bytes:
        """The bytes as (rows, bytes per row); a vector is one row.

        Raises:
            NumericsError: a number of F64 is too large for F32.
        """
        data = self.data
        rows = data.reshape(math.prod(self.shape[:-1]), -1) if len(data) else np.empty((0, 0), np.uint8)
        return _rounded(self.file, self.name, rows) if self.dtype == "F64" else rows

    def some_rows(self, which: Which) -> Bytes:
        """Some of the rows; the others are not read where they need not be."""
        if isinstance(self.stored, Region) and self.stored.nbytes and self.dtype != "F64":
            return self.stored.rows(math.prod(self.shape[:-1]), which)
        return self.rows()[which]


def _rounded(file: Path, name: str, rows: Bytes) -> Bytes:
    """float64 as float32."""
    wide = np.ascontiguousarray(rows).view("<f8")
    with np.errstate(over="ignore"):
        narrow = wide.astype("<f4")
    if (np.isinf(narrow) & np.isfinite(wide)).any():
        raise NumericsError(f"{file}: {name} holds numbers too large for F32")
    return narrow.view(np.uint8)


def read_safetensors(path: Path) -> dict[str, Stored]:
    """The tensors of a file by name.

    Raises:
        FormatError: the header is damaged, or its offsets do not tile the file without holes.
    """
    file = OpenFile(path)
    header, start = _read_header(file)
    header.pop("__metadata__", None)
    spans = {name: _span(path, name, row) for name, row in header.items()}
    position = 0
    for name, (_, _, begin, end) in sorted(spans.items(), key=lambda item: item[1][2:]):
        if begin != position:
            raise FormatError(f"{path}: {name}: begins at byte {begin}, expected {position}; {_AGAIN}")
        position = end
    if start + position != file.size:
        raise FormatError(
            f"{path}: the tensors end at byte {start + position}, the file at {file.size}; it is incomplete, {_AGAIN}"
        )
    return {
        name: Stored(path, name, dtype, shape, Region(file, start + begin, end - begin))
        for name, (dtype, shape, begin, end) in spans.items()
    }


def _read_header(file: OpenFile) -> tuple[dict[str, Any], int]:
    path = file.path
    if file.size < 8:
        raise FormatError(f"{path}: {file.size} bytes are not a safetensors file; {_AGAIN}")
    (length,) = struct.unpack("<Q", file.read(0, 8).tobytes())
    if length > min(MAX_HEADER, file.size - 8):
        raise FormatError(f"{path}: claims a header of {length} bytes; not a safetensors file, or incomplete; {_AGAIN}")
    try:
        header = parse_json(file.read(8, length).tobytes(), pairs=once)
    except ValueError as error:
        said = f"the header is not JSON of tensors ({error})"
        raise FormatError(f"{path}: {said}; not a safetensors file, or damaged; {_AGAIN}") from None
    if not isinstance(header, dict):
        raise FormatError(f"{path}: the header is not a JSON object; {_AGAIN}")
    return header, 8 + length


def _span(path: Path, name: str, row: Any) -> tuple[str, tuple[int, ...], int, int]:
    """dtype, shape, first and last byte of one row of the header."""
    try:
        dtype, shape, (begin, end) = row["dtype"], tuple(row["shape"]), row["data_offsets"]
        whole = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
    except (TypeError, KeyError, ValueError):
        raise FormatError(f"{path}: {name}: its row in the header is damaged; {_AGAIN}") from None
    if not isinstance(dtype, str) or dtype not in _ITEM:
        raise UnsupportedError(f"{path}: {name} is stored as {str(dtype)[:40]}; weights must be F32, F16 or BF16")
    if len(shape) > _MAX_DIMS:
        raise FormatError(f"{path}: {name}: {len(shape)} dimensions; {_AGAIN}")
    if not whole or end - begin != math.prod(shape) * _ITEM[dtype]:
        raise FormatError(f"{path}: {name}: shape {shape} and bytes {begin} to {end} do not fit; {_AGAIN}")
    return dtype, shape, begin, end


def write_header(file: BinaryIO, rows: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Write the header of a file whose tensors (name → kind of `UNQUANTISED`, shape) follow in this order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, (quant, shape) in rows.items():
        end = position + math.prod(shape) * QUANTS[quant].bytes_per_block
        header[name] = {"dtype": quant, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)


def plan_shards(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Names in order, cut into shards of at most `limit` bytes; a tensor larger than that has a shard of its own."""
    shards: list[list[str]] = [[]]
    room = limit
    for name, size in sizes.items():
        if shards[-1] and size > room:
            shards.append([])
            room = limit
        shards[-1].append(name)
        room -= size
    return shards


def shard_names(count: int) -> Iterable[str]:
    """File names of a model in `count` shards, as transformers expects them."""
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{shard:05d}-of-{count:05d}.safetensors" for shard in range(1, count + 1)]
