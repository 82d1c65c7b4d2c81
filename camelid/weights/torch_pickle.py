"""Files of torch.save, read without torch and without running what is in them.

Such a file is a zip: `NAME/data.pkl` is a pickle of the dictionary, in which tensors name storages; `NAME/data/KEY`
are the storages' bytes, stored uncompressed, so that they can be mapped. A pickle is a program: only the few functions
that rebuild a tensor are let in, and each is replaced by our own; anything else is refused before it can run.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from camelid.errors import FormatError, UnsupportedError
from camelid.weights.mapped import map_file
from camelid.weights.quant import Bytes
from camelid.weights.safetensors_file import Stored

# torch's storage classes → dtype as safetensors writes it, bytes of an item.
STORAGES = {
    "FloatStorage": ("F32", 4),
    "HalfStorage": ("F16", 2),
    "BFloat16Storage": ("BF16", 2),
    "DoubleStorage": ("F64", 8),
    "LongStorage": ("I64", 8),
    "IntStorage": ("I32", 4),
    "ShortStorage": ("I16", 2),
    "CharStorage": ("I8", 1),
    "ByteStorage": ("U8", 1),
    "BoolStorage": ("BOOL", 1),
}
_MAX_PICKLE = 1 << 28
_AGAIN = "fetch or convert it again"
# Python's own modules through which a pickle could do something; nobody's model is made of them.
_RUN_PROGRAMS = frozenset(
    """builtins __builtin__ os posix nt subprocess sys shutil socket runpy importlib ctypes pty code codeop pickle
    _pickle operator webbrowser tempfile multiprocessing threading signal asyncio timeit pdb bdb pip
    setuptools""".split()  # noqa: SIM905
)
_ONLY_DATA = frozenset(("set", "frozenset", "slice", "range", "complex", "bytearray", "object"))  # of `builtins`
_DTYPES = frozenset(("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"))
_MAKES_CODE_RUN = {"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "BUFFER", "NEXT_BUFFER"}


class _Storage(NamedTuple):  # a tuple, since a pickle could write into any other object
    """A storage named by the pickle: which member of the zip, and what its items are."""

    key: str
    dtype: str
    item: int
    n_items: int


class _View(NamedTuple):
    """A tensor named by the pickle: a strided view of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch(path: Path) -> dict[str, Stored]:
    """The tensors of a file of torch.save by name; a view of the mapped file each.

    Raises:
        FormatError: damaged, or a pickle that asks for anything but tensors.
        UnsupportedError: torch's format from before version 1.6.
    """
    data = map_file(path)
    if data[:2].tobytes() != b"PK":
        raise _not_a_zip(path, data)
    members = _members(path, data)
    pickles = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise FormatError(f"{path}: a zip, but not one of torch.save (no data.pkl in it); {_AGAIN}")
    prefix = pickles[0].removesuffix("data.pkl")
    order = members.get(prefix + "byteorder")
    if order is not None and order.tobytes() != b"little":
        raise UnsupportedError(f"{path}: saved on a big-endian machine; save it again on a little-endian one")
    views = _named_views(path, members[pickles[0]])
    return {name: _stored(path, name, view, members, f"{prefix}data/") for name, view in views.items()}


def _not_a_zip(path: Path, data: Bytes) -> Exception:
    start = data[:2].tobytes()
    if start[:1] == b"\x80":
        return UnsupportedError(
            f"{path}: saved by torch before 1.6 or by plain pickle; convert it where you trust it: "
            "torch.save(torch.load(f, weights_only=True), f)"
        )
    return FormatError(f"{path}: not a file of torch.save: it begins with {start!r}; {_AGAIN}")


def _members(path: Path, data: Bytes) -> dict[str, Bytes]:
    """Members of the zip by name, each a view of the mapped file."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except Exception as error:  # zipfile raises many kinds on damaged files
        raise FormatError(f"{path}: damaged or incomplete zip ({error}); {_AGAIN}") from None
    members = {}
    for info in infos:
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise FormatError(f"{path}: {info.filename} is compressed or encrypted, which torch.save never does")
        local = data[info.header_offset : info.header_offset + 30].tobytes()
        if len(local) < 30 or local[:4] != b"PK\x03\x04" or info.filename in members:
            raise FormatError(f"{path}: the zip's entry for {info.filename} is damaged; {_AGAIN}")
        name_length, extra_length = struct.unpack("<HH", local[26:30])
        start = info.header_offset + 30 + name_length + extra_length
        if info.file_size != info.compress_size or start + info.file_size > len(data):
            raise FormatError(f"{path}: {info.filename} reaches past the end; the file is incomplete, {_AGAIN}")
        members[info.filename] = data[start : start + info.file_size]
    return members


def _named_views(path: Path, program: Bytes) -> dict[str, _View]:
    """Run the pickle with our own functions in place of torch's; the tensors of the dictionary it makes."""
    if len(program) > _MAX_PICKLE:
        raise FormatError(f"{path}: a pickle of {len(program)} bytes is no list of tensors; {_AGAIN}")
    text = program.tobytes()
    try:
        _check_opcodes(path, text)
        result = _Reader(path, io.BytesIO(text)).load()
    except (FormatError, UnsupportedError):
        raise
    except Exception as error:  # a damaged pickle may fail in any way
        raise FormatError(f"{path}: damaged pickle ({type(error).__name__}: {str(error)[:80]}); {_AGAIN}") from None
    for key in ("state_dict", "model", "module", "model_state_dict"):
        if isinstance(result, Mapping) and isinstance(result.get(key), Mapping):
            result = result[key]
    if not isinstance(result, Mapping):
        raise FormatError(f"{path}: holds a {type(result).__name__}, not a dictionary of tensors; save its state_dict")
    views = {name: value for name, value in result.items() if isinstance(value, _View)}
    if not views or not all(isinstance(name, str) for name in views):
        raise FormatError(f"{path}: holds no named tensors; save the model's state_dict")
    return views


def _check_opcodes(path: Path, text: bytes) -> None:
    """Refuse instructions that make objects of arbitrary classes, and memo numbers that only serve to eat memory."""
    argument: Any
    named: list[str] = []  # what it has called by name so far
    for count, (opcode, argument, _) in enumerate(pickletools.genops(text)):
        if opcode.name in ("GLOBAL", "INST"):
            named.append(str(argument).replace(" ", "."))
        if opcode.name in _MAKES_CODE_RUN:
            raise _not_tensors(path, [*named, opcode.name])
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > 2 * count + 1000:
            raise FormatError(f"{path}: damaged pickle (memo number {argument}); {_AGAIN}")


def _not_tensors(path: Path, named: list[str]) -> FormatError:
    """What to say of a file that asks for `named`, functions and classes, in the order in which it does."""
    unknown = [name for name in named if _stand_in(*name.rpartition(".")[::2]) is None]
    parts = [(name, name.partition(".")[0], name.rpartition(".")[2]) for name in unknown]
    evil = next((name for name, root, own in parts if root in _RUN_PROGRAMS and own not in _ONLY_DATA), None)
    if evil is not None:
        return FormatError(
            f"{path}: the file tries to run code ({evil[:80]}); do not open it with torch either: "
            "fetch the model from a source you trust, as safetensors if there is one"
        )
    what = next((name for name in unknown if "." in name), unknown[-1])
    return FormatError(
        f"{path}: holds a Python object ({what[:80]}), not tensors alone; such objects are not opened, as that would "
        "run their code; save the tensors: torch.save(model.state_dict(), FILE)"
    )


class _Reader(pickle.Unpickler):
    """An unpickler that knows tensors, storages and OrderedDict only."""

    def __init__(self, path: Path, file: io.BytesIO) -> None:
        super().__init__(file)
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        known = _stand_in(module, name)
        if known is None:
            raise _not_tensors(self._path, [f"{module}.{name}"])
        return known

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage, key, _location, count = pid
        if kind != "storage" or storage not in STORAGES or type(key) is not str or type(count) is not int:
            raise FormatError(f"{self._path}: names a storage of an unknown kind ({str(pid)[:60]}); {_AGAIN}")
        dtype, item = STORAGES[storage]
        return _Storage(key, dtype, item, count)


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _View:
    """Stands in for torch._utils._rebuild_tensor_v2; gradients and hooks that follow are of no use here."""
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or any(type(value) is not int or value < 0 for value in numbers):
        raise ValueError("a tensor with negative or odd sizes")
    if len(shape) != len(strides):
        raise ValueError("a tensor whose shape and strides differ in length")
    return _View(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}


def _stand_in(module: str, name: str) -> Any:
    """What a pickle gets for a name that it may call; None for every other name."""
    if module in ("torch", "torch.storage") and (name in STORAGES or name in _DTYPES):
        return name
    return _KNOWN.get((module, name))


def _stored(path: Path, name: str, view: _View, members: Mapping[str, Bytes], folder: str) -> Stored:
    """The bytes a view names, checked against the storage that really is there."""
    storage, where = view.storage, f"{path}: {name}"
    member = members.get(folder + storage.key)
    if member is None or len(member) < storage.n_items * storage.item:
        raise FormatError(f"{where}: its storage is missing or too short; the file is incomplete, {_AGAIN}")
    items, size = len(member) // storage.item, math.prod(view.shape)
    if size == 0:
        return Stored(path, name, storage.dtype, view.shape, member[:0])
    last = view.offset + sum((n - 1) * stride for n, stride in zip(view.shape, view.strides, strict=True))
    if last >= items or size > items:
        raise FormatError(f"{where}: reaches past its storage; {_AGAIN}")
    start = view.offset * storage.item
    if view.strides == _plain_strides(view.shape):
        data = member[start : start + size * storage.item]
    else:
        data = _gather(member[: items * storage.item], view)
    return Stored(path, name, storage.dtype, view.shape, data)


def _plain_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _gather(member: Bytes, view: _View) -> Bytes:
    """A transposed or cut view, copied in order."""
    item = view.storage.item
    whole = np.ndarray(
        shape=(*view.shape, item),
        dtype=np.uint8,
        buffer=member,
        offset=view.offset * item,
        strides=(*(stride * item for stride in view.strides), 1),
    )
    return np.ascontiguousarray(whole).reshape(-1)
