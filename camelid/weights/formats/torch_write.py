"""Files of torch.save, written without torch and one tensor at a time.

The pickle is made by hand: a dictionary whose values call torch's own tensor rebuilder, the only kind of program that
torch.load(weights_only=True) accepts. Storages are zip members without compression that begin at multiples of 64
bytes, as torch writes them, so that they can be mapped.
"""

from __future__ import annotations

import contextlib
import math
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

from camelid.weights.quants.quant import Bytes

_STORAGES = {"F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage"}
_ALIGNMENT = 64
_LOCAL_HEADER = 30  # bytes of a zip entry's header before its name
_ZIP64_EXTRA = 20  # what zipfile adds to an entry whose size may pass 4 GB
_PADDING_ID = 0x4246  # "FB": the extra field that torch fills to align


class TorchWriter:
    """One file of torch.save; `write` takes the tensors in the order of `rows`.

    Args:
        path: the new file.
        rows: name → kind of `UNQUANTISED` and shape.
    """

    def __init__(self, path: Path, rows: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
        self._file = path.open("wb")
        self._zip = zipfile.ZipFile(self._file, "w", allowZip64=True)
        self._folder = path.name.removesuffix(".pth")
        self._keys = {name: str(number) for number, name in enumerate(rows)}
        self._member("data.pkl", _pickle(rows, self._keys))
        self._member("byteorder", b"little")

    def write(self, name: str, data: Bytes) -> None:
        """Add a tensor's bytes in row order."""
        self._member(f"data/{self._keys[name]}", data.reshape(-1).data)

    def close(self) -> None:
        """Finish the file."""
        self._member("version", b"3\n")
        self._zip.close()
        self._file.close()

    def abandon(self) -> None:
        """Let go of a file that will be thrown away; nothing happens to a finished one."""
        with contextlib.suppress(OSError, ValueError):
            self._zip.close()
        with contextlib.suppress(OSError):
            self._file.close()

    def _member(self, name: str, data: bytes | memoryview) -> None:
        info = zipfile.ZipInfo(f"{self._folder}/{name}")
        info.file_size = len(data)
        large = len(data) * 1.05 > zipfile.ZIP64_LIMIT  # zipfile's own rule
        start = self._file.tell() + _LOCAL_HEADER + len(info.filename) + (_ZIP64_EXTRA if large else 0) + 4
        padding = -start % _ALIGNMENT
        info.extra = struct.pack("<HH", _PADDING_ID, padding) + b"Z" * padding
        with self._zip.open(info, "w") as member:
            member.write(data)


def _pickle(rows: Mapping[str, tuple[str, tuple[int, ...]]], keys: Mapping[str, str]) -> bytes:
    """A dictionary of tensors as the program that torch.save would write."""
    items = b"".join(_text(name) + _tensor(keys[name], quant, shape) for name, (quant, shape) in rows.items())
    return pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS + pickle.STOP


def _tensor(key: str, quant: str, shape: tuple[int, ...]) -> bytes:
    """_rebuild_tensor_v2(storage, 0, shape, strides, requires_grad=False, backward_hooks=OrderedDict())"""
    storage = _tuple(
        _text("storage"), _global("torch", _STORAGES[quant]), _text(key), _text("cpu"), _int(math.prod(shape))
    )
    strides = (math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    hooks = _global("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
    arguments = _tuple(
        storage + pickle.BINPERSID,
        _int(0),
        _tuple(*map(_int, shape)),
        _tuple(*map(_int, strides)),
        pickle.NEWFALSE,
        hooks,
    )
    return _global("torch._utils", "_rebuild_tensor_v2") + arguments + pickle.REDUCE


def _tuple(*items: bytes) -> bytes:
    return pickle.MARK + b"".join(items) + pickle.TUPLE


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    data = text.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(data)) + data


def _int(value: int) -> bytes:
    if value < 1 << 31:
        return pickle.BININT + struct.pack("<i", value)
    data = pickle.encode_long(value)
    return pickle.LONG1 + bytes([len(data)]) + data
