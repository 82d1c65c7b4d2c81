"""Duplicate keys by external sorting: partitions that fit into memory, the rest on disk."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from camelid.data.sorting import stable_order

# A key is 128 bits of a hash; `index` numbers the documents or paragraphs, of which the first with a key wins.
KEYED_ROW = np.dtype([("high", "<u8"), ("low", "<u8"), ("index", "<i8")])
_WORKING = 4  # bytes in use for one byte of rows that are sorted
_MAX_PARTITIONS = 512  # files open at once

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


def digest(key: bytes | None) -> bytes:
    """128 bits of a key; zeros for None, which equals nothing."""
    return bytes(16) if key is None else hashlib.blake2b(key, digest_size=16).digest()


def keyed_rows(keys: NDArray[np.uint64], at: NDArray[np.int64]) -> NDArray[np.void]:
    """(N,) rows of keys (N, 2), or (N,) for keys of 64 bits; keys that are all zero are left out."""
    keys = keys if keys.ndim == 2 else np.stack([keys, np.zeros_like(keys)], axis=1)
    rows = np.empty(len(keys), KEYED_ROW)
    rows["high"], rows["low"], rows["index"] = keys[:, 0], keys[:, 1], at
    return rows[(keys[:, 0] | keys[:, 1]) != 0]


def find_duplicates(blocks: Iterable[NDArray[np.void]], total: int, scratch: Path, memory: int) -> Iterator[Pairs]:
    """Find rows whose key an earlier row has.

    Args:
        blocks: rows, `index` ascending.
        total: number of rows, at most.
        scratch: a folder for partitions that memory does not hold; they are removed again.
        memory: bytes to use, about.

    Yields:
        numbers of the duplicates, and for each the number of the first with its key.
    """
    n_partitions = 1
    while total * KEYED_ROW.itemsize * _WORKING > memory * n_partitions and n_partitions < _MAX_PARTITIONS:
        n_partitions *= 2
    if n_partitions == 1:
        rows = list(blocks)
        if rows:
            yield _duplicates_of(np.concatenate(rows))[0]
        return
    names = [scratch / f"part-{number:03d}" for number in range(n_partitions)]
    try:
        _partition(blocks, names)
        for name in names:
            yield from _duplicates_in(name, max(1, memory // _WORKING // KEYED_ROW.itemsize))
            name.unlink()
    finally:
        for name in names:
            name.unlink(missing_ok=True)


def _partition(blocks: Iterable[NDArray[np.void]], names: list[Path]) -> None:
    """Rows by the first bits of their key, in order, into files."""
    shift = np.uint64(64 - (len(names) - 1).bit_length())
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(name.open("wb")) for name in names]
        for block in blocks:
            partition = (block["high"] >> shift).astype(np.int64)
            order = np.argsort(partition, kind="stable")
            ends = np.cumsum(np.bincount(partition, minlength=len(names)))
            for file, rows in zip(files, np.split(block[order], ends[:-1]), strict=True):
                file.write(rows.data)


def _duplicates_in(name: Path, max_rows: int) -> Iterator[Pairs]:
    """As many rows at a time as memory holds; of those that were read the first of each key stays."""
    firsts = np.zeros(0, KEYED_ROW)
    with name.open("rb") as file:
        while len(rows := np.frombuffer(file.read(max_rows * KEYED_ROW.itemsize), KEYED_ROW)):
            pairs, firsts = _duplicates_of(np.concatenate([firsts, rows]))
            yield pairs


def _duplicates_of(rows: NDArray[np.void]) -> tuple[Pairs, NDArray[np.void]]:
    """Duplicates with their first, and the firsts. `index` ascends within equal keys."""
    rows = rows[stable_order(rows["high"])]
    same = rows["high"][1:] == rows["high"][:-1]
    if not np.array_equal(same, same & (rows["low"][1:] == rows["low"][:-1])):
        rows = rows[np.lexsort((rows["low"], rows["high"]))]  # stable
        same = (rows["high"][1:] == rows["high"][:-1]) & (rows["low"][1:] == rows["low"][:-1])
    repeated = np.concatenate([np.zeros(min(1, len(rows)), bool), same])
    first = rows["index"][~repeated][np.cumsum(~repeated) - 1]
    return (rows["index"][repeated], first[repeated]), rows[~repeated]
