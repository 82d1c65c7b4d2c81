"""Files of torch.save, read without torch and without running what is in them.

Such a file is a zip: `NAME/data.pkl` is a pickle of the dictionary, in which tensors name storages; `NAME/data/KEY`
are the storages' bytes, stored uncompressed. `torch_program.py` runs the pickle.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from camelid.errors import FormatError, UnsupportedError
from camelid.open_file import OpenFile, Region
from camelid.weights.formats.safetensors_file import Stored
from camelid.weights.formats.torch_program import MAX_BYTES, View, run_program
from camelid.weights.quants.quant import Bytes

_MAX_DIRECTORY = 1 << 22  # bytes of a zip's list of members; a member takes about a hundred
_AGAIN = "fetch or convert it again"


def read_torch(path: Path) -> dict[str, Stored]:
    """The tensors of a file of torch.save by name; nothing of them is read yet.

    Raises:
        FormatError: damaged, or a pickle that asks for anything but tensors.
        UnsupportedError: torch's format from before version 1.6.
    """
    file = OpenFile(path)
    start = file.read(0, min(2, file.size)).tobytes()
    if start != b"PK":
        raise _not_a_zip(path, start)
    members = _members(file)
    pickles = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise FormatError(f"{path}: a zip, but not one of torch.save (no data.pkl in it); {_AGAIN}")
    prefix = pickles[0].removesuffix("data.pkl")
    order = members.get(prefix + "byteorder")
    if order is not None and order.read(0, min(order.nbytes, 8)).tobytes() != b"little":
        raise UnsupportedError(f"{path}: saved on a big-endian machine; save it again on a little-endian one")
    views = _named_views(path, members[pickles[0]])
    return {name: _stored(path, name, view, members, f"{prefix}data/") for name, view in views.items()}


def _not_a_zip(path: Path, start: bytes) -> Exception:
    if start[:1] == b"\x80":
        return UnsupportedError(
            f"{path}: saved by torch before 1.6 or by plain pickle; convert it where you trust it: "
            "torch.save(torch.load(f, weights_only=True), f)"
        )
    return FormatError(f"{path}: not a file of torch.save: it begins with {start!r}; {_AGAIN}")


class _Bounded(io.FileIO):
    """A file of which no part is read at once that is larger than a zip's list of members can be."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Like a file's."""
        size = _MAX_DIRECTORY + 1 if size is None or size < 0 else size
        if size > _MAX_DIRECTORY + 1 or len(data := super().read(size)) > _MAX_DIRECTORY:
            raise ValueError("too long a list of members")
        return data


def _members(file: OpenFile) -> dict[str, Region]:
    """Members of the zip by name, each a region of the file."""
    path = file.path
    try:
        with _Bounded(path) as bounded, zipfile.ZipFile(bounded) as archive:
            infos = archive.infolist()
    except Exception as error:  # zipfile raises many kinds on damaged files
        raise FormatError(f"{path}: damaged or incomplete zip ({error}); {_AGAIN}") from None
    members = {}
    for info in infos:
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise FormatError(f"{path}: {info.filename} is compressed or encrypted, which torch.save never does")
        local = file.up_to(info.header_offset, 30).tobytes()
        if len(local) < 30 or local[:4] != b"PK\x03\x04" or info.filename in members:
            raise FormatError(f"{path}: the zip's entry for {info.filename} is damaged; {_AGAIN}")
        name_length, extra_length = struct.unpack("<HH", local[26:30])
        start = info.header_offset + 30 + name_length + extra_length
        if info.file_size != info.compress_size or start + info.file_size > file.size:
            raise FormatError(f"{path}: {info.filename} reaches past the end; the file is incomplete, {_AGAIN}")
        members[info.filename] = Region(file, start, info.file_size)
    return members


def _named_views(path: Path, program: Region) -> dict[str, View]:
    """The tensors of the dictionary that the pickle makes."""
    if program.nbytes > MAX_BYTES:
        raise FormatError(f"{path}: a pickle of {program.nbytes} bytes is not a list of tensors; {_AGAIN}")
    result = run_program(path, program.read().tobytes())
    for key in ("state_dict", "model", "module", "model_state_dict"):
        if isinstance(result, Mapping) and isinstance(result.get(key), Mapping):
            result = result[key]
    if not isinstance(result, Mapping):
        raise FormatError(f"{path}: holds a {type(result).__name__}, not a dictionary of tensors; save its state_dict")
    views = {name: value for name, value in result.items() if isinstance(value, View)}
    if not views or not all(isinstance(name, str) for name in views):
        raise FormatError(f"{path}: holds no named tensors; save the model's state_dict")
    return views


def _stored(path: Path, name: str, view: View, members: Mapping[str, Region], folder: str) -> Stored:
    """The bytes a view names, checked against the storage that really is there."""
    storage, where = view.storage, f"{path}: {name}"
    member = members.get(folder + storage.key)
    if member is None or member.nbytes < storage.n_items * storage.item:
        raise FormatError(f"{where}: its storage is missing or too short; the file is incomplete, {_AGAIN}")
    items, size = member.nbytes // storage.item, math.prod(view.shape)
    if size == 0:
        return Stored(path, name, storage.dtype, view.shape, member.part(0, 0))
    last = view.offset + sum((n - 1) * stride for n, stride in zip(view.shape, view.strides, strict=True))
    if last >= items or size > items:
        raise FormatError(f"{where}: reaches past its storage; {_AGAIN}")
    if view.strides == _plain_strides(view.shape):
        data: Region | _Gathered = member.part(view.offset * storage.item, size * storage.item)
    else:
        data = _Gathered(member, view)
    return Stored(path, name, storage.dtype, view.shape, data)


def _plain_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


@dataclass(frozen=True)
class _Gathered:
    """A transposed or cut view, put in order when it is read."""

    member: Region
    view: View

    def read(self, start: int = 0, count: int | None = None) -> Bytes:
        """Like a `Region`'s."""
        item, view = self.view.storage.item, self.view
        whole = np.ndarray(
            shape=(*view.shape, item),
            dtype=np.uint8,
            buffer=self.member.read(),
            offset=view.offset * item,
            strides=(*(stride * item for stride in view.strides), 1),
        )
        data = np.ascontiguousarray(whole).reshape(-1)
        return data[start:] if count is None else data[start : start + count]
