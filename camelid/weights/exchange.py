"""Two names exchanged in one step, so that a kill at any moment leaves each of them with something whole.

Two renames one after the other have a moment in which neither file nor folder is under the name. Linux and macOS have a
call that exchanges; Python does not offer it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
from pathlib import Path

_AT_FDCWD = -100  # Linux: paths are relative to the working folder
_RENAME_EXCHANGE = 2  # Linux, linux/fs.h
_RENAME_SWAP = 2  # macOS, sys/stdio.h
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)


def exchange(one: Path, other: Path) -> None:
    """Give each of two paths of one file system the other's content.

    Raises:
        OSError: it cannot be done; both are as they were.
    """
    library = ctypes.CDLL(None, use_errno=True)
    first, second = os.fsencode(one), os.fsencode(other)
    try:
        if sys.platform == "darwin":
            failed = library.renamex_np(first, second, _RENAME_SWAP)
        else:
            failed = library.renameat2(_AT_FDCWD, first, _AT_FDCWD, second, _RENAME_EXCHANGE)
    except AttributeError:  # neither of these systems, or a C library from before 2018
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(one)) from None
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one))


def can_exchange(trial: Path) -> bool:
    """Whether the file system exchanges names: tried out with two empty folders in a new folder `trial`.

    Raises:
        OSError: nothing can be written there.
    """
    try:
        for name in ("one", "other"):
            (trial / name).mkdir(parents=True)
        exchange(trial / "one", trial / "other")
    except OSError as error:
        if error.errno in _CANNOT:
            return False
        raise
    finally:
        shutil.rmtree(trial, ignore_errors=True)
    return True
