"""A file mapped into memory: read where it is used, never copied as a whole."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np

from camelid.errors import FormatError, MissingError
from camelid.weights.quant import Bytes

LFS_POINTER = b"version https://git-lfs"


def map_file(path: Path) -> Bytes:
    """The bytes of a file as a read-only array that the system reads on use, uint8 (size,).

    Raises:
        MissingError: there is no such file, it may not be read, or it is a pointer of Git LFS.
        FormatError: it is empty or not a file.
    """
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        raise FormatError(f"{path}: the file is empty; fetch or convert it again") from None
    except IsADirectoryError:
        raise FormatError(f"{path}: a folder stands where a file should be") from None
    except OSError as error:
        raise MissingError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None
    refuse_pointer(path, data[: len(LFS_POINTER)])
    return np.frombuffer(data, np.uint8)


def refuse_pointer(path: Path, start: bytes) -> None:
    """Refuse what Git LFS leaves in a file's place where its content was not fetched.

    Raises:
        MissingError: `start` is the beginning of such a pointer.
    """
    if start.startswith(LFS_POINTER):
        raise MissingError(f"{path}: a pointer of Git LFS, not the file itself; fetch it: git lfs pull")
