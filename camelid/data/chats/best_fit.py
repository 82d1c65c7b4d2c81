"""Which conversations lie in one row: best fit, the longest first, as TRL packs them too."""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np
from numpy.typing import NDArray


def best_fit(lengths: NDArray[np.int64], context: int) -> list[list[int]]:
    """Put examples into rows, the longest first, each where it leaves the least room; none is cut.

    Best fit decreasing (Johnson 1973): at most 11/9 of the fewest rows, and a few more.

    Args:
        lengths: (N,) of 1 … context; equal ones are taken in their order.
        context: tokens of a row.

    Returns:
        Numbers of the examples of each row.
    """
    rows: list[list[int]] = []
    free: list[int] = []  # the different amounts of room that rows have, ascending
    with_room: dict[int, list[int]] = {}
    for number in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[number])
        assert 0 < length <= context
        at = bisect_left(free, length)
        if at < len(free):
            room = free[at]
            row = with_room[room].pop()
            if not with_room[room]:
                del with_room[room], free[at]
        else:
            room, row = context, len(rows)
            rows.append([])
        rows[row].append(number)
        if room > length:
            if room - length not in with_room:
                with_room[room - length] = []
                insort(free, room - length)
            with_room[room - length].append(row)
    return rows
