"""The GGUF container: good files, and every kind of bad one."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from camelid.errors import CamelidError, FormatError, MissingError, UnsupportedError
from camelid.weights.formats.gguf_file import GGUFFile, open_parts

gguf = pytest.importorskip("gguf")


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def header(version: int = 3, fields: bytes = b"", n_fields: int = 0, table: bytes = b"", n_tensors: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_fields) + fields + table


def row(name: str = "x", dims: tuple[int, ...] = (8,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def padded(data: bytes, more: int = 0) -> bytes:
    return data + b"\0" * (-len(data) % 32 + more)


@pytest.fixture
def write(tmp_path: Path):
    def to_file(data: bytes, name: str = "m.gguf") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return to_file


@pytest.fixture
def rich(tmp_path: Path) -> Path:
    """A file with a field of every type, by the gguf package."""
    path = tmp_path / "rich.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    kinds = gguf.GGUFValueType
    for kind, value in (
        (kinds.UINT8, 200), (kinds.INT8, -3), (kinds.UINT16, 60000), (kinds.INT16, -3), (kinds.UINT32, 1 << 31),
        (kinds.INT32, -5), (kinds.UINT64, 1 << 60), (kinds.INT64, -(1 << 60)), (kinds.FLOAT32, 1e-5),
        (kinds.FLOAT64, 1e-5), (kinds.BOOL, True), (kinds.STRING, "grüße"),
    ):  # fmt: skip
        writer.add_key_value(f"t.{kind.name}", value, kind)
    writer.add_array("t.strings", ["a", "", "é"])
    writer.add_array("t.numbers", [1, -2, 3])
    writer.add_array("t.floats", [0.5, 1.5])
    writer.add_tensor("m", np.arange(12, dtype=np.float32).reshape(3, 4))
    writer.add_tensor("v", np.arange(5, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_every_type(rich: Path) -> None:
    file = GGUFFile(rich)
    values = {key.removeprefix("t."): value for key, value in file.fields.items() if key.startswith("t.")}
    assert values == {
        "UINT8": 200, "INT8": -3, "UINT16": 60000, "INT16": -3, "UINT32": 1 << 31, "INT32": -5, "UINT64": 1 << 60,
        "INT64": -(1 << 60), "FLOAT32": 1e-5, "FLOAT64": 1e-5, "BOOL": True, "STRING": "grüße",
        "strings": ["a", "", "é"], "numbers": [1, -2, 3], "floats": [0.5, 1.5],
    }  # fmt: skip
    assert file.entries["m"].shape == (3, 4)
    assert np.array_equal(file.blocks(file.entries["m"]).view("<f4"), np.arange(12).reshape(3, 4))
    assert np.array_equal(file.blocks(file.entries["v"]).view("<f2"), [[0, 1, 2, 3, 4]])


def test_version_2_is_read(write) -> None:
    assert GGUFFile(write(header(version=2))).entries == {}


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (b"", FormatError, "empty"),
        (b"GGU", FormatError, "short"),
        (b"GGML" + bytes(40), FormatError, "not a GGUF"),
        (header(version=1), UnsupportedError, "version 1"),
        (header(version=0x03000000), UnsupportedError, "big-endian"),
        (header(n_tensors=1 << 60), FormatError, "claims"),
        (header(n_fields=1 << 60), FormatError, "claims"),
        (header(fields=text("k") + struct.pack("<I", 99) + bytes(8), n_fields=1), FormatError, "unknown type 99"),
        (header(fields=text("k") + struct.pack("<IQ", 8, 1 << 62), n_fields=1), FormatError, "short"),
        (header(fields=text("k") + struct.pack("<IIQ", 9, 8, 1 << 62), n_fields=1), FormatError, "list of strings"),
        (header(fields=text("k") + struct.pack("<IIQ", 9, 4, 1 << 62), n_fields=1), FormatError, "short"),
        (header(fields=text("k") + struct.pack("<IIQ", 9, 99, 1), n_fields=1), FormatError, "array of unknown type 99"),
        (header(fields=text("k") + struct.pack("<IIQ", 9, 9, 2000) + bytes(9), n_fields=1), FormatError, "too many"),
        (
            header(fields=text("k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 9, n_fields=1),
            FormatError,
            "deep",
        ),
        (header(fields=2 * (text("k") + struct.pack("<IQ", 10, 7)), n_fields=2), FormatError, "twice"),
        (
            header(fields=text("general.alignment") + struct.pack("<II", 4, 12), n_fields=1),
            FormatError,
            "power of two",
        ),
        (padded(header(table=row(kind=77), n_tensors=1), 64), UnsupportedError, "ggml type 77; supported are F32"),
        (padded(header(table=row(dims=(1, 1, 1, 1, 1)), n_tensors=1)), FormatError, "5 dimensions"),
        (padded(header(table=row(dims=(0,)), n_tensors=1)), FormatError, "does not fit"),
        (padded(header(table=row(dims=(33,), kind=8), n_tensors=1), 64), FormatError, "blocks of 32"),
        (padded(header(table=row(offset=4), n_tensors=1), 64), FormatError, "not a multiple of 32"),
        (padded(header(table=row(), n_tensors=1), 31), FormatError, "1 bytes short"),
        (padded(header(table=row(dims=(1 << 62, 4)), n_tensors=1), 64), FormatError, "short"),
        (padded(header(table=row() + row(), n_tensors=2), 64), FormatError, "x: appears in the table twice"),
        (padded(header(table=row(dims=(9,)) + row("y", offset=32), n_tensors=2), 64), FormatError, "overlap"),
    ],
)
def test_bad_files(write, data: bytes, error: type[CamelidError], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        GGUFFile(write(data))
    assert "m.gguf" in str(caught.value)


def test_truncated_anywhere(rich: Path, write) -> None:
    data = rich.read_bytes()
    # The last tensor ends before the padding at the very end.
    for length in range(0, len(data) - 32, 7):
        with pytest.raises(CamelidError):
            GGUFFile(write(data[:length], "cut.gguf"))


@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_flipped_bytes(rich: Path, write, data: st.DataObject) -> None:
    good = bytearray(rich.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        file = GGUFFile(write(bytes(good), "flipped.gguf"))
        _ = {key: file.fields[key] for key in file.fields}
        _ = [file.blocks(entry).sum() for entry in file.entries.values()]
    except CamelidError:
        pass


def part(number: int, count: int, table: bytes = b"") -> bytes:
    fields = text("split.count") + struct.pack("<IH", 2, count) + text("split.no") + struct.pack("<IH", 2, number)
    return padded(header(fields=fields, n_fields=2, table=table, n_tensors=1 if table else 0), 64)


def test_split_files(write) -> None:
    write(part(0, 2, row("a")), "m-00001-of-00002.gguf")
    second = write(part(1, 2, row("b")), "m-00002-of-00002.gguf")
    assert [list(file.entries) for file in open_parts(second)] == [["a"], ["b"]]


def test_split_files_that_are_wrong(write) -> None:
    first = write(part(0, 2), "m-00001-of-00002.gguf")
    with pytest.raises(MissingError, match="m-00002-of-00002"):
        open_parts(first)
    write(part(0, 2), "m-00002-of-00002.gguf")
    with pytest.raises(FormatError, match="not part 2 of 2"):
        open_parts(first)
    with pytest.raises(FormatError, match="one part of 2"):
        open_parts(write(part(0, 2), "renamed.gguf"))
