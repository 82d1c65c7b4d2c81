"""Who met whom, and who beat whom: what ratings can be known from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Edges = NDArray[np.bool_]  # (M, M)


def reached(edges: Edges, start: int) -> NDArray[np.bool_]:
    """(M,) what can be reached from a model along edges; itself, too."""
    seen = np.zeros(len(edges), dtype=bool)
    seen[start] = True
    while True:
        further = seen | edges[seen].any(axis=0)
        if (further == seen).all():
            return seen
        seen = further


def all_reach(edges: Edges) -> bool:
    """Every model reaches every other: likeliest strengths exist (Ford 1957)."""
    return len(edges) == 0 or bool(reached(edges, 0).all() and reached(edges.T, 0).all())


def parts(edges: Edges, *, one_way: bool = False) -> list[NDArray[np.int64]]:
    """Models in groups that are connected, largest first.

    Args:
        edges: (M, M).
        one_way: only models that reach each other, along the edges' direction, are of one group.
    """
    if not one_way:
        edges = edges | edges.T
    left = np.ones(len(edges), dtype=bool)
    found = []
    while left.any():
        start = int(np.argmax(left))
        group = reached(edges, start) & reached(edges.T, start)
        found.append(np.flatnonzero(group))
        left &= ~group
    return sorted(found, key=len, reverse=True)
