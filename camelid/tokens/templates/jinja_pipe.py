"""Messages between this process and the one that runs templates: a length, and so many bytes."""

from __future__ import annotations

import struct
from typing import IO

_LENGTH = struct.Struct("<I")


def read_message(stream: IO[bytes]) -> bytes | None:
    """The next message; None if there is no whole one any more."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (size,) = _LENGTH.unpack(head)
    body = stream.read(size)
    return body if len(body) == size else None


def write_message(stream: IO[bytes], body: bytes) -> None:
    """Send a message."""
    stream.write(_LENGTH.pack(len(body)) + body)
    stream.flush()
