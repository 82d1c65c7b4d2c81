"""Examples side by side in rows, none of them cut: without padding between them, and without seeing each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camelid.data.batches import IGNORED
from camelid.data.chats.examples import Example
from camelid.errors import OptionError


@dataclass(frozen=True)
class Packed:
    """N examples in R rows of T tokens; what is left of a row is filling, of which nothing is learned.

    Attributes:
        ids: (R, T) int64.
        positions: (R, T) int64, counted anew for each example.
        targets: (R, T) int64, the next token of the same example where it is learned, else IGNORED.
        owners: (R, T) int64, the number of the example, from 0; -1 in filling.
        lasts: (N,) int64, where each example's last token is, in rows put one after the other.
    """

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    targets: NDArray[np.int64]
    owners: NDArray[np.int64]
    lasts: NDArray[np.int64]


def pack(examples: Sequence[Example], context: int, filling: int = 0, rows: int | None = None) -> Packed:
    """Put examples into as few rows as first fit finds, the longest first (Johnson 1973).

    Args:
        context: tokens of a row.
        filling: the id that fills.
        rows: make so many; more are filling.

    Raises:
        OptionError: an example is longer than a row.
    """
    places, used = _places([len(each.ids) for each in examples], context)
    n_rows = max(1, len(used)) if rows is None else rows
    ids = np.full((n_rows, context), filling, np.int64)
    positions = np.tile(np.arange(context), (n_rows, 1))
    targets, owners = np.full_like(ids, IGNORED), np.full_like(ids, -1)
    lasts = np.zeros(len(examples), np.int64)
    for row, start in enumerate(used):
        positions[row, start:] -= start  # filling is an example of its own
    for number, (example, (row, start)) in enumerate(zip(examples, places, strict=True)):
        stop = start + len(example.ids)
        ids[row, start:stop], owners[row, start:stop] = example.ids, number
        positions[row, start:stop] = np.arange(stop - start)
        targets[row, start : stop - 1] = np.where(example.learned[1:], example.ids[1:], IGNORED)
        lasts[number] = row * context + stop - 1
    return Packed(ids, positions, targets, owners, lasts)


def pieces(groups: Sequence[Sequence[Example]], context: int, rows: int) -> Iterator[range]:
    """Cut groups (a pair, the answers to one prompt) into runs that fit into `rows` rows each; no group is cut.

    Raises:
        OptionError: a group alone does not fit.
    """
    start, lengths = 0, [[len(example.ids) for example in group] for group in groups]
    for stop in range(len(groups)):
        if stop > start and _n_rows(lengths[start : stop + 1], context) > rows:
            yield range(start, stop)
            start = stop
        if _n_rows(lengths[stop : stop + 1], context) > rows:
            raise OptionError(
                f"micro_rows: a group of {len(groups[stop])} answers needs more than {rows} rows of {context} tokens; "
                "raise micro_rows or context"
            )
    if start < len(groups):
        yield range(start, len(groups))


def _n_rows(groups: Sequence[Sequence[int]], context: int) -> int:
    return len(_places([length for group in groups for length in group], context)[1])


def _places(lengths: Sequence[int], context: int) -> tuple[list[tuple[int, int]], list[int]]:
    """Row and start of each, and how much of each row is used."""
    places, used = [(0, 0)] * len(lengths), list[int]()
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        length = lengths[number]
        if length > context:
            raise OptionError(f"context: an example has {length} tokens and a row {context}; raise context")
        row = next((row for row, full in enumerate(used) if full + length <= context), len(used))
        if row == len(used):
            used.append(0)
        places[number] = row, used[row]
        used[row] += length
    return places, used
