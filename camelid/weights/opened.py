"""A file held open: what is read of it is what was opened, or an error.

Nothing is mapped into memory. A mapped file that somebody cuts short kills the process that looks at it (SIGBUS), and
one that is written over in place changes under a running model without a word. Reading says so, and is as fast.
"""

from __future__ import annotations

import os
import stat
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from camelid.errors import FormatError, MissingError, ResourceError
from camelid.weights.quants.quant import Bytes

LFS_POINTER = b"version https://git-lfs"
_AT_ONCE = 1 << 30  # bytes; systems read at most 2 GiB in one call
_RUNS = 64  # rows apart that are read one by one; more are cut from all that lies between them
Which = slice | NDArray[np.int64]


class OpenFile:
    """A file that is read at any place, by any thread; it stays what it was if its name is given to another.

    Attributes:
        path: where it was.
        size: bytes.

    Raises:
        MissingError: there is no such file, it may not be read, or it is a pointer of Git LFS.
        FormatError: it is empty or not a file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                what = "a folder" if path.is_dir() else "something else"
                raise FormatError(f"{path}: {what} stands where a file should be")
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise cannot_read(path, error) from None
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()
        self.size, self._time = self._state()
        if not self.size:
            raise FormatError(f"{path}: an empty file; fetch or convert it again")
        if self.up_to(0, len(LFS_POINTER)).tobytes() == LFS_POINTER:
            raise MissingError(f"{path}: a pointer of Git LFS, not the file itself; fetch it: git lfs pull")

    def read(self, start: int, count: int) -> Bytes:
        """`count` bytes from `start` on, uint8 (count,): a new array.

        Raises:
            ResourceError: the file was changed, or cut short, after it was opened.
        """
        data = np.empty(count, np.uint8)
        view, done = data.data, 0
        while done < count:
            n = self._read_at(start + done, view[done : done + _AT_ONCE])
            if not n:
                break
            done += n
        if done < count or self._state() != (self.size, self._time):
            raise ResourceError(
                f"{self.path}: was changed after it was opened; put the whole file in place and load the model again"
            )
        return data

    def up_to(self, start: int, count: int) -> Bytes:
        """The same, but fewer bytes where the file ends."""
        return self.read(start, max(0, min(count, self.size - start)) if start >= 0 else 0)

    def _read_at(self, start: int, view: memoryview) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [view], start)
        with self._lock:
            self._file.seek(start)
            return self._file.readinto(view) or 0

    def _state(self) -> tuple[int, int]:
        found = os.fstat(self._file.fileno())
        return found.st_size, found.st_mtime_ns


@dataclass(frozen=True)
class Region:
    """Some bytes of a file, read when they are asked for."""

    file: OpenFile
    start: int
    nbytes: int

    def part(self, start: int, nbytes: int) -> Region:
        """A region within this one."""
        assert 0 <= start <= start + nbytes <= self.nbytes
        return Region(self.file, self.start + start, nbytes)

    def read(self, start: int = 0, count: int | None = None) -> Bytes:
        """Its bytes, or `count` of them from `start` on: a new array.

        Raises:
            ResourceError: the file was changed after it was opened.
        """
        return self.file.read(self.start + start, self.nbytes - start if count is None else count)

    def rows(self, n_rows: int, which: Which) -> Bytes:
        """Some of its rows, (rows, bytes per row): no more is read than lies between the first and the last of them."""
        width = self.nbytes // n_rows
        wanted = np.arange(n_rows, dtype=np.int64)[which]
        if not len(wanted):
            return np.empty((0, width), np.uint8)
        if isinstance(which, slice) or len(wanted) > _RUNS:
            first, last = int(wanted.min()), int(wanted.max())
            between = self.read(first * width, (last + 1 - first) * width).reshape(-1, width)
            in_line = isinstance(which, slice) and which.step in (None, 1)
            return between if in_line else between[wanted - first]
        return np.stack(list(self._each(wanted, width)))

    def _each(self, wanted: NDArray[np.int64], width: int) -> Iterator[Bytes]:
        return (self.read(int(row) * width, width) for row in wanted)


def cannot_read(path: Path, error: OSError) -> MissingError:
    """What to say where the system lets no file be opened or looked at."""
    return MissingError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions")
