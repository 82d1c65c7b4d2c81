"""Messages over a file descriptor: four bytes that say how long, then the message."""

from __future__ import annotations

import os


class EndedError(Exception):
    """The other side has gone, or sends more than is read."""


def send(fd: int, message: bytes) -> None:
    """Write a whole message.

    Raises:
        EndedError: nobody reads.
    """
    data = memoryview(len(message).to_bytes(4, "big") + message)
    try:
        while data:
            data = data[os.write(fd, data) :]
    except OSError:
        raise EndedError from None


def receive(fd: int, most: int) -> bytes:
    """Read a whole message of at most `most` bytes.

    Raises:
        EndedError: nobody writes, or too much.
    """
    length = int.from_bytes(_exactly(fd, 4), "big")
    if length > most:
        raise EndedError
    return _exactly(fd, length)


def _exactly(fd: int, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        try:
            piece = os.read(fd, min(length - len(parts), 1 << 20))
        except OSError:
            raise EndedError from None
        if not piece:
            raise EndedError
        parts += piece
    return bytes(parts)
