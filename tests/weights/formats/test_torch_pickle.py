"""torch.save's files: what torch writes, and what attackers write."""

from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from camelid.errors import CamelidError, FormatError, UnsupportedError
from camelid.weights.formats.torch_pickle import read_torch
from camelid.weights.formats.torch_write import TorchWriter

torch = pytest.importorskip("torch")


def test_dtypes_views_and_shared_storage(tmp_path: Path) -> None:
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = {
        "plain": base,
        "turned": base.T,
        "cut": base[1:3, 2:4],
        "row": base[2],
        "strided": base.reshape(-1)[::5],
        "half": torch.linspace(-2, 2, 7).half(),
        "brain": torch.linspace(-2, 2, 7).bfloat16(),
        "double": torch.ones(2, dtype=torch.float64),
        "parameter": torch.nn.Parameter(torch.ones(2, 2)),
        "counts": torch.arange(3),
        "step": torch.tensor(7),
        "nothing": torch.empty(0, 2),
    }
    torch.save(OrderedDict(tensors), tmp_path / "m.pth")
    found = read_torch(tmp_path / "m.pth")
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        expected = tensor.detach().reshape(-1).contiguous().view(torch.uint8).numpy().reshape(-1)
        assert np.array_equal(found[name].data, expected), name
        assert found[name].shape == tuple(tensor.shape)
    with pytest.raises(UnsupportedError, match="counts is stored as I64"):
        found["counts"].quant()


def test_nested_state_dict(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {"w": torch.ones(2)}}, tmp_path / "m.pth")
    assert list(read_torch(tmp_path / "m.pth")) == ["w"]


@pytest.mark.parametrize("mapped", [True, False])
def test_torch_reads_what_we_write(tmp_path: Path, mapped: bool) -> None:
    rng = np.random.default_rng(0)
    rows: dict[str, tuple[str, tuple[int, ...]]] = {
        "a": ("F32", (3, 5)), "layers.0.b": ("F16", (7,)), "c": ("BF16", (2, 2)), "d": ("F32", (1, 1)),
    }  # fmt: skip
    data = {
        name: rng.integers(0, 120, np.prod(shape) * (4 if kind == "F32" else 2), dtype=np.uint8)
        for name, (kind, shape) in rows.items()
    }
    writer = TorchWriter(tmp_path / "consolidated.00.pth", rows)
    for name, values in data.items():
        writer.write(name, values)
    writer.close()
    found = torch.load(tmp_path / "consolidated.00.pth", weights_only=True, mmap=mapped)
    assert list(found) == list(rows)
    for name, (kind, shape) in rows.items():
        words = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
        assert (found[name].dtype, tuple(found[name].shape)) == (words[kind], shape)
        assert np.array_equal(found[name].contiguous().view(torch.uint8).numpy().reshape(-1), data[name])
    ours = read_torch(tmp_path / "consolidated.00.pth")
    assert all(np.array_equal(ours[name].data, data[name]) for name in rows)


def test_storages_begin_at_multiples_of_64(tmp_path: Path) -> None:
    writer = TorchWriter(tmp_path / "m.pth", {"a": ("F16", (3,)), "b": ("F16", (5,))})
    writer.write("a", np.full(6, 0xAA, np.uint8))
    writer.write("b", np.full(10, 0xBB, np.uint8))
    writer.close()
    data = (tmp_path / "m.pth").read_bytes()
    assert data.index(b"\xaa" * 6) % 64 == data.index(b"\xbb" * 10) % 64 == 0


class RunsCode:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    "evil",
    [
        {"w": RunsCode(os.system, "touch owned")},
        {"w": RunsCode(eval, "open('owned', 'w')")},
        {"w": RunsCode(getattr, OrderedDict, "fromkeys")},
        {"w": RunsCode(__import__, "os")},
        RunsCode(os.mkdir, "owned"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evil: Any, protocol: int) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(evil, tmp_path / "m.pth", pickle_protocol=max(protocol, 2))
    with pytest.raises(FormatError, match="tries to run code"):
        read_torch(tmp_path / "m.pth")
    zip_of(tmp_path / "n.pth", pickle.dumps(evil, protocol))
    with pytest.raises(FormatError, match="tries to run code"):
        read_torch(tmp_path / "n.pth")
    assert not (tmp_path / "owned").exists()


class Own:
    """An object of one's own program, as training scripts save them beside the weights."""

    def __init__(self) -> None:
        self.lr = 1e-3


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"state_dict": {"w": torch.ones(2)}, "args": argparse.Namespace(lr=1)}, "argparse.Namespace"),
        ({"state_dict": {"w": torch.ones(2)}, "own": Own()}, "Own"),
        ({"w": torch.ones(2), "where": Path("x")}, "pathlib"),
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_ones_own_objects_do_not_frighten(tmp_path: Path, content: Any, what: str, protocol: int) -> None:
    """Nobody is told not to trust a file that he saved himself, but what to save instead."""
    torch.save(content, tmp_path / "m.pth", pickle_protocol=protocol)
    with pytest.raises(FormatError, match=r"holds a Python object .*torch\.save\(model\.state_dict\(\)") as error:
        read_torch(tmp_path / "m.pth")
    assert what in str(error.value) or protocol == 4
    assert "tries to run code" not in str(error.value)


def test_data_beside_tensors_is_passed_over(tmp_path: Path) -> None:
    beside = {"dtype": torch.bfloat16, "size": torch.Size([2, 3]), "lr": 1e-3, "names": ["a"], "step": 7}
    torch.save({**beside, "model_state_dict": {"w": torch.ones(2)}}, tmp_path / "m.pth")
    assert list(read_torch(tmp_path / "m.pth")) == ["w"]


def zip_of(path: Path, program: bytes, storage: bytes = bytes(16), **more: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", program)
        archive.writestr("m/data/0", storage)
        for name, content in more.items():
            archive.writestr(f"m/{name}", content)
    return path


def program(
    shape: tuple[int, ...] = (2, 2), strides: tuple[int, ...] = (2, 1), offset: int = 0, key: str = "0"
) -> bytes:
    """The pickle of {"w": a tensor} with the storage's four floats."""

    def number(value: int) -> bytes:
        return f"I{value}\n".encode()

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = b"(Vstorage\nctorch\nFloatStorage\nV" + key.encode() + b"\nVcpu\n" + number(4) + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + numbers(shape) + numbers(strides)
    return b"}(Vw\n" + tensor + b"I00\nNtRu."


def test_the_hand_made_program_is_a_good_one(tmp_path: Path) -> None:
    assert read_torch(zip_of(tmp_path / "m", program()))["w"].shape == (2, 2)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (program(shape=(3, 2)), "reaches past its storage"),
        (program(offset=1), "reaches past its storage"),
        (program(strides=(100, 1)), "reaches past its storage"),
        (program(shape=(1 << 40,), strides=(0,)), "reaches past its storage"),
        (program(shape=(-1, 2)), "damaged pickle"),
        (program(strides=(-2, 1)), "damaged pickle"),
        (program(strides=(1,)), "damaged pickle"),
        (program(key="1"), "storage is missing"),
        (program().replace(b"FloatStorage", b"Generator"), r"Python object \(torch\.Generator\), not tensors alone"),
        (program().replace(b"Vstorage", b"Vmodule"), "unknown kind"),
        (program()[:-20], "damaged pickle"),
        (b"", "damaged pickle"),
        (b"\x80\x02]q\xff.", "damaged pickle|not a dictionary"),
        (b"\x80\x02]r\xff\xff\xff\x7f.", "memo number"),
        (pickle.dumps([1, 2], 2), "holds a list"),
        (pickle.dumps({"a": 1}, 2), "no named tensors"),
        (pickle.dumps("text", 2), "holds a str"),
    ],
)
def test_bad_programs(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        read_torch(zip_of(tmp_path / "m.pth", content))


def test_a_program_cannot_change_a_tensor_after_its_check(tmp_path: Path) -> None:
    """BUILD sets the state of an object: here it would give a checked view another shape."""
    build = program().replace(b"tRu.", b"tR}(Vshape\n(I900\nI900\ntsbu.")
    with pytest.raises(FormatError, match="damaged pickle"):
        read_torch(zip_of(tmp_path / "m.pth", build))


def test_other_files(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(UnsupportedError, match=r"before 1\.6"):
        read_torch(tmp_path / "old.pth")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(FormatError, match="not a file of torch"):
        read_torch(tmp_path / "text")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(FormatError, match=r"no data\.pkl"):
        read_torch(tmp_path / "other.zip")
    with zipfile.ZipFile(tmp_path / "packed.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", program())
    with pytest.raises(FormatError, match="compressed"):
        read_torch(tmp_path / "packed.zip")
    with pytest.raises(UnsupportedError, match="big-endian"):
        read_torch(zip_of(tmp_path / "big.pth", program(), byteorder=b"big"))


def test_truncated_anywhere(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(30)}, tmp_path / "m.pth")
    data = (tmp_path / "m.pth").read_bytes()
    for length in range(1, len(data), 11):
        (tmp_path / "cut.pth").write_bytes(data[:length])
        with pytest.raises(CamelidError):
            read_torch(tmp_path / "cut.pth")


@given(data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_flipped_bytes(tmp_path: Path, data: st.DataObject) -> None:
    good = bytearray(zip_of(tmp_path / "m.pth", program()).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "flipped.pth").write_bytes(good)
    try:
        for tensor in read_torch(tmp_path / "flipped.pth").values():
            tensor.rows()
    except CamelidError:
        pass
