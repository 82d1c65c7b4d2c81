"""Model against model: how often they met, and who won, as matrices for plots."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from camelid.arena.battles import BOTH_BAD, TIE, A, B

Floats = NDArray[np.float64]
Table = NDArray[np.int64]
"""(M, M, 4): votes by model on side A, model on side B, and winner; as `Counts.table`."""


def met(table: Table) -> Table:
    """(M, M), symmetric: battles of each pair, sides aside; a model with itself: 0."""
    n = table.sum(axis=2)
    both: Table = n + n.T
    np.fill_diagonal(both, 0)
    return both


def wins(table: Table) -> Table:
    """(M, M): how often the row's model was better than the column's, on whichever side."""
    both: Table = table[:, :, A] + table[:, :, B].T
    np.fill_diagonal(both, 0)
    return both


def share_of_wins(table: Table) -> Floats:
    """(M, M): of the battles that were no tie, the share that the row's model won; NaN where there was none."""
    won = wins(table).astype(np.float64)
    decided = won + won.T
    return np.divide(won, decided, out=np.full_like(won, np.nan), where=decided > 0)


def mean_win_rate(table: Table) -> Floats:
    """(M,): the mean share of wins against each other model alike, ties aside; NaN for one that has decided nothing."""
    share = share_of_wins(table)
    known = ~np.isnan(share)
    total, n = np.where(known, share, 0).sum(axis=1), known.sum(axis=1)
    return np.divide(total, n, out=np.full(len(share), np.nan), where=n > 0)


def share_of_a(table: Table) -> float:
    """Of all battles that were no tie, the share that side A won; NaN if there was none."""
    a, b = int(table[:, :, A].sum()), int(table[:, :, B].sum())
    return a / (a + b) if a + b else float("nan")


def ties(table: Table) -> int:
    """Votes for neither, of both kinds."""
    return int(table[:, :, [TIE, BOTH_BAD]].sum())
