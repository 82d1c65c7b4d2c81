"""What every writer needs: room on the disk, a name to write under, and the tensors one at a time."""

from __future__ import annotations

import errno
import glob
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from camelid.errors import OptionError, ResourceError
from camelid.files import check_space, lock, size_text
from camelid.pedigree import pedigree_path
from camelid.weights.exchange import can_exchange, exchange
from camelid.weights.quants.quant import Bytes
from camelid.weights.tensor import Tensor

Progress = Callable[[int, int, str], None]  # bytes done, bytes in all, name of the tensor just written

_BEGUN = re.compile(r"\.(partial|trial|old)-\d+")  # after the target's name; `old` is of versions before exchanging
# A folder is replaced only if it holds nothing but what a model folder holds.
_MODEL_FILES = ("config.json", "params.json", "model.safetensors.index.json")


@contextmanager
def replacing(target: Path, n_bytes: int, overwrite: bool) -> Iterator[Path]:
    """A free name beside `target` to write a file or folder under; it takes the target's name when all went well.

    Whatever goes wrong, an interrupt included, what was begun is removed and the target is as it was. What a killed
    process began is removed by the next one that writes the same target. A kill leaves the old or the new target,
    never neither.

    Raises:
        OptionError: the target exists (and `overwrite` is false), is a folder without a model, or is being written.
        ResourceError: fewer than `n_bytes` are free, the disk fills up, or a folder cannot be exchanged here.
    """
    try:
        _check_target(target, overwrite)
        target.parent.mkdir(parents=True, exist_ok=True)
        check_space(target.parent, n_bytes)
        with _alone(target):
            _sweep(target)
            if target.is_dir() and not can_exchange(_beside(target, "trial")):
                raise ResourceError(
                    f"{target}: this file system cannot exchange two folders in one step; write under another name, "
                    "then remove the old one"
                )
            partial = _beside(target, "partial")
            try:
                yield partial
                _check_target(target, overwrite)
                _swap(partial, target)
            finally:
                _remove(partial)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(f"{target}: the disk or quota is full; free {size_text(n_bytes)} and repeat") from None
        raise ResourceError(f"{target}: cannot be written ({error.strerror}); check the folder's permissions") from None


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Hold the lock of a target; it is gone with its holder.

    Raises:
        OptionError: another process holds it.
    """

    def refuse() -> None:
        raise OptionError(f"{target}: another camelid is writing it; wait for that one, or choose another name")

    path = target.with_name(f".{target.name}.lock")
    with lock(path, refuse):
        try:
            yield
        finally:
            with suppress(OSError):
                path.unlink()


def _beside(target: Path, what: str) -> Path:
    return target.with_name(f".{target.name}.{what}-{os.getpid()}")


def _sweep(target: Path) -> None:
    """Remove what killed processes began; ours holds the lock, so nobody else is at it."""
    for begun in target.parent.glob(f".{glob.escape(target.name)}.*-*"):
        if _BEGUN.fullmatch(begun.name.removeprefix(f".{target.name}")):
            _remove(begun)


def each(tensors: Mapping[str, Tensor], names: Iterable[str], progress: Progress | None) -> Iterator[tuple[str, Bytes]]:
    """Name and rows of each tensor in turn; tells `progress` when the consumer has done with it."""
    total, done = sum(tensor.nbytes for tensor in tensors.values()), 0
    for name in names:
        yield name, tensors[name].blocks()
        done += tensors[name].nbytes
        if progress is not None:
            progress(done, total, name)


def _check_target(target: Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if not overwrite:
        raise OptionError(f"{target}: exists already; choose another name or allow overwriting")
    if target.is_dir() and any(target.iterdir()) and not any((target / name).exists() for name in _MODEL_FILES):
        raise OptionError(f"{target}: a folder that holds no model will not be replaced; choose another name")


def _swap(partial: Path, target: Path) -> None:
    """Give the finished file or folder its name; what had it is removed by the caller as `partial`."""
    if target.is_dir():
        exchange(partial, target)
    else:
        pedigree_path(target).unlink(missing_ok=True)  # the old one's: it must not stand beside the new file
        partial.replace(target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
