"""Which of many keys were there before: sorted in parts that fit into memory, the rest on disk."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from camelid.data.sorting import stable_order

# A key is 128 bits of a hash; `at` numbers the things that have one, in the order in which the first shall win.
RECORD = np.dtype([("high", "<u8"), ("low", "<u8"), ("at", "<i8")])
_WORKING = 4  # bytes in use for one byte of records that are sorted
_MOST_PARTS = 512  # files open at once

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


def digest(key: bytes | None) -> bytes:
    """128 bits of a key; zeros for None, which equals nothing."""
    return bytes(16) if key is None else hashlib.blake2b(key, digest_size=16).digest()


def records(keys: NDArray[np.uint64], at: NDArray[np.int64]) -> NDArray[np.void]:
    """(N,) records of keys (N, 2), or (N,) for keys of 64 bits; keys that are all zero are left out."""
    keys = keys if keys.ndim == 2 else np.stack([keys, np.zeros_like(keys)], axis=1)
    made = np.empty(len(keys), RECORD)
    made["high"], made["low"], made["at"] = keys[:, 0], keys[:, 1], at
    return made[(keys[:, 0] | keys[:, 1]) != 0]


def repeats(blocks: Iterable[NDArray[np.void]], total: int, scratch: Path, memory: int) -> Iterator[Pairs]:
    """Find keys that were there before.

    Args:
        blocks: records, `at` ascending.
        total: number of records, at most.
        scratch: a folder for parts that memory does not hold; they are removed again.
        memory: bytes to use, about.

    Yields:
        numbers of the repeated, and for each the number of the first with its key.
    """
    parts = 1
    while total * RECORD.itemsize * _WORKING > memory * parts and parts < _MOST_PARTS:
        parts *= 2
    if parts == 1:
        whole = list(blocks)
        if whole:
            yield _repeats_of(np.concatenate(whole))[0]
        return
    names = [scratch / f"part-{number:03d}" for number in range(parts)]
    try:
        _divide(blocks, names)
        for name in names:
            yield from _repeats_in(name, max(1, memory // _WORKING // RECORD.itemsize))
            name.unlink()
    finally:
        for name in names:
            name.unlink(missing_ok=True)


def _divide(blocks: Iterable[NDArray[np.void]], names: list[Path]) -> None:
    """Records by the first bits of their key, in order, into files."""
    shift = np.uint64(64 - (len(names) - 1).bit_length())
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(name.open("wb")) for name in names]
        for block in blocks:
            part = (block["high"] >> shift).astype(np.int64)
            order = np.argsort(part, kind="stable")
            ends = np.cumsum(np.bincount(part, minlength=len(names)))
            for file, some in zip(files, np.split(block[order], ends[:-1]), strict=True):
                file.write(some.data)


def _repeats_in(name: Path, most: int) -> Iterator[Pairs]:
    """As many records at a time as memory holds; of what was read stays the first of each key."""
    firsts = np.zeros(0, RECORD)
    with name.open("rb") as file:
        while len(some := np.frombuffer(file.read(most * RECORD.itemsize), RECORD)):
            pairs, firsts = _repeats_of(np.concatenate([firsts, some]))
            yield pairs


def _repeats_of(some: NDArray[np.void]) -> tuple[Pairs, NDArray[np.void]]:
    """Repeated ones with their first, and the firsts. `at` ascends within equal keys."""
    some = some[stable_order(some["high"])]
    same = some["high"][1:] == some["high"][:-1]
    if not np.array_equal(same, same & (some["low"][1:] == some["low"][:-1])):
        some = some[np.lexsort((some["low"], some["high"]))]  # stable
        same = (some["high"][1:] == some["high"][:-1]) & (some["low"][1:] == some["low"][:-1])
    again = np.concatenate([np.zeros(min(1, len(some)), bool), same])
    first = some["at"][~again][np.cumsum(~again) - 1]
    return (some["at"][again], first[again]), some[~again]
