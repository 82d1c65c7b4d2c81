"""Files that are complete or absent, one writer at a time, their hashes, and the room on a disk.

A file is complete or absent whenever the process is killed or the power fails.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from camelid.errors import ResourceError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF)
_LOOK = 0.2  # seconds that one attempt at a lock takes
_UNITS = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def _open(path: Path) -> BinaryIO:
    return path.open("rb")


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write beside `path`; once it is on the disk it takes the name. After an error `path` is as it was."""
    beside = path.with_name(f".{path.name}.part")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


@contextmanager
def lock(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock on the file `path`, waiting for it as long as it takes; the system frees it when its holder dies.

    A file system that has no locks is used without one: what two pulls did to each other's bytes, the hashes find.

    Args:
        path: the lock's own file; it is made, and stays.
        waiting: called after each attempt that found the lock held; what it raises ends the wait.
    """
    from filelock import FileLock, Timeout  # late: most commands take no lock

    held = FileLock(path, thread_local=False, fallback_to_soft=False)
    while True:
        try:
            held.acquire(timeout=_LOOK)
            break
        except Timeout:
            waiting()
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            break
    try:
        yield
    finally:
        held.release()


def sha256(path: Path, opener: Callable[[Path], Any] = _open) -> str:
    """SHA-256 of a file, or of what `opener` reads out of it (as `gzip.open`), in hexadecimal digits."""
    with opener(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def free_bytes(path: Path) -> int:
    """Room on the disk of a file or folder that is there or is to be made."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def check_space(folder: Path, n_bytes: int, elsewhere: str = "write elsewhere") -> None:
    """Refuse to begin what cannot fit.

    Args:
        elsewhere: how to have it on another disk, for the message.

    Raises:
        ResourceError: fewer than `n_bytes` are free on the disk of `folder`.
    """
    free = free_bytes(folder)
    if free < n_bytes:
        raise ResourceError(
            f"{folder}: needs {size_text(n_bytes)} of disk, {size_text(free)} free; free some, or {elsewhere}"
        )


def size_text(n_bytes: float) -> str:
    """Bytes in words, three digits in units of a thousand: `812 bytes`, `9.5 kB`, `98.5 MB`, `3.25 GB`."""
    for unit, name in _UNITS:
        if n_bytes >= 0.9995 * unit:
            return f"{n_bytes / unit:.3g} {name}"
    return f"{n_bytes:.0f} bytes"


def cannot_write(path: Path, error: OSError) -> ResourceError:
    """The one line for a user about a file or folder that the system did not let be written; the system's own word for
    where, if it has one, stands before `path`."""
    where = error.filename if isinstance(error.filename, str) else path
    if error.errno in _FULL:
        return ResourceError(f"{where}: the disk or quota is full; free some and repeat, or write elsewhere")
    return ResourceError(f"{where}: cannot be written ({error.strerror or error}); check the place, or write elsewhere")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Work that writes below `path`.

    Raises:
        ResourceError: instead of the system's OSError.
    """
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from None
