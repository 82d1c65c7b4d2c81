"""The safetensors container against the library, and damaged files."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from camelid.errors import CamelidError, FormatError, NumericsError, UnsupportedError
from camelid.weights.formats.safetensors_file import plan_shards, read_safetensors, shard_names, write_header

safetensors_numpy = pytest.importorskip("safetensors.numpy")


def file_of(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def row(begin: int, end: int, shape: tuple[int, ...] = (2,), dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_reads_what_the_library_writes(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(5, dtype=np.float16)}
    safetensors_numpy.save_file(arrays, tmp_path / "m.safetensors", metadata={"format": "pt"})
    found = read_safetensors(tmp_path / "m.safetensors")
    assert set(found) == {"a", "b"}
    assert np.array_equal(found["a"].rows().view("<f4"), arrays["a"])
    assert np.array_equal(found["b"].rows().view("<f2")[0], arrays["b"])


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    values = np.arange(6, dtype=np.float32)
    with path.open("wb") as file:
        write_header(file, {"a": ("F32", (2, 3)), "b": ("F16", (6,))})
        file.write(values.tobytes() + values.astype(np.float16).tobytes())
    found = safetensors_numpy.load_file(path)
    assert np.array_equal(found["a"], values.reshape(2, 3))
    assert np.array_equal(found["b"], values.astype(np.float16))


@pytest.mark.parametrize(
    ("header", "data", "error", "says"),
    [
        (b"{", b"", FormatError, "not JSON"),
        (b"\xff\xfe", b"", FormatError, "not JSON"),
        (b"[]", b"", FormatError, "not a JSON object"),
        (b"[" * 100_000, b"", FormatError, "not JSON"),
        ({"a": row(0, 8)}, bytes(7), FormatError, "incomplete"),
        ({"a": row(0, 8)}, bytes(9), FormatError, "incomplete"),
        ({"a": row(4, 12)}, bytes(12), FormatError, "expected 0"),
        ({"a": row(0, 8), "b": row(4, 12)}, bytes(12), FormatError, "expected 8"),
        ({"a": row(0, 8), "b": row(12, 20)}, bytes(20), FormatError, "expected 8"),
        ({"a": row(0, 8, (3,))}, bytes(8), FormatError, "do not fit"),
        ({"a": row(0, 8, (-2,))}, bytes(8), FormatError, "do not fit"),
        ({"a": row(8, 0)}, bytes(8), FormatError, "do not fit"),
        ({"a": row(0, 8, (1 << 62, 1 << 62))}, bytes(8), FormatError, "do not fit"),
        ({"a": {"dtype": "F32"}}, b"", FormatError, "damaged"),
        ({"a": 5}, b"", FormatError, "damaged"),
        ({"a": row(0, 8, dtype="Q9")}, bytes(8), UnsupportedError, "Q9"),
    ],
)
def test_bad_files(tmp_path: Path, header: object, data: bytes, error: type[CamelidError], says: str) -> None:
    with pytest.raises(error, match=says):
        read_safetensors(file_of(tmp_path / "m.safetensors", header, data))


def test_absurd_header_length(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(struct.pack("<Q", 1 << 63) + b"{}")
    with pytest.raises(FormatError, match="claims a header"):
        read_safetensors(tmp_path / "m")
    (tmp_path / "m").write_bytes(b"abc")
    with pytest.raises(FormatError, match="3 bytes"):
        read_safetensors(tmp_path / "m")


def test_a_dtype_that_is_no_weight_is_told_when_used(tmp_path: Path) -> None:
    found = read_safetensors(file_of(tmp_path / "m", {"a": row(0, 16, dtype="I64")}, bytes(16)))
    with pytest.raises(UnsupportedError, match="a is stored as I64"):
        found["a"].quant()


def test_float64_is_rounded_to_float32(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((3, 5))
    found = read_safetensors(file_of(tmp_path / "m", {"a": row(0, 120, (3, 5), "F64")}, values.tobytes()))["a"]
    assert found.quant() == "F32"
    np.testing.assert_array_equal(found.rows().view("<f4"), values.astype(np.float32))
    values[1, 2] = 1e60
    found = read_safetensors(file_of(tmp_path / "n", {"a": row(0, 120, (3, 5), "F64")}, values.tobytes()))["a"]
    with pytest.raises(NumericsError, match="a holds numbers too large for F32"):
        found.rows()


def test_single_numbers_and_empty_tensors_are_read(tmp_path: Path) -> None:
    rows = {"step": row(0, 4, ()), "nothing": row(4, 4, (0, 2)), "w": row(4, 12)}
    found = read_safetensors(file_of(tmp_path / "m", rows, bytes(12)))
    assert {name: (stored.shape, stored.rows().size) for name, stored in found.items()} == {
        "step": ((), 4),
        "nothing": ((0, 2), 0),
        "w": ((2,), 8),
    }


@given(data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_flipped_bytes(tmp_path: Path, data: st.DataObject) -> None:
    path = file_of(tmp_path / "m", {"a": row(0, 8), "bc": row(8, 16, (1, 2))}, bytes(16))
    good = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(good)
    try:
        for tensor in read_safetensors(path).values():
            tensor.rows()
    except CamelidError:
        pass


def test_plan_shards() -> None:
    assert plan_shards({"a": 3, "b": 3, "c": 9, "d": 1}, 6) == [["a", "b"], ["c"], ["d"]]
    assert list(shard_names(2)) == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
