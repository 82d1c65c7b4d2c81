"""Files that are complete or absent, whenever the process is killed or the power fails."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from camelid.errors import ResourceError

_FULL = (errno.ENOSPC, errno.EDQUOT)


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
