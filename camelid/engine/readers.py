"""What is read from a text without writing any: how likely its ids are, and its hidden states.

A reader goes along with a request. The engine gives it the rows that it wants in order, a chunk at a time, in passes
that others share; what it keeps of them is its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from camelid.engine import sampling
from camelid.engine.request import Alternative, PromptToken
from camelid.errors import NumericsError

Rows = NDArray[np.float32]


class Reader:
    """Takes logits, (V,) each, or hidden states, (D,) each, after the ids of a request.

    Attributes:
        hidden: hidden states are wanted, not logits.
        first: the place of the first id after which a row is wanted.
        last: the last one and one; nothing after it is computed.
        taken: rows taken so far.
    """

    hidden = False

    def __init__(self, ids: Sequence[int], first: int = 0, last: int | None = None) -> None:
        self.ids, self.first, self.last = ids, first, len(ids) if last is None else last
        self.taken = 0

    def take(self, rows: Rows) -> None:
        """The next rows, (n, V) or (n, D).

        Raises:
            NumericsError: they are not numbers.
        """
        if self.hidden and not np.isfinite(rows).all():
            raise NumericsError("hidden states are not finite; the weights are damaged: try float32")
        if not self.hidden:
            for row in rows:
                if not math.isfinite(row.max()):
                    sampling.checked(row)  # says what is wrong
        self.keep(self.first + self.taken, rows)
        self.taken += len(rows)

    def keep(self, start: int, rows: Rows) -> None:
        """Keep something of the rows after the ids from place `start` on."""


class AllRows(Reader):
    """The rows themselves."""

    def __init__(self, ids: Sequence[int], first: int = 0, hidden: bool = False) -> None:
        super().__init__(ids, first)
        self.hidden = hidden
        self._parts: list[Rows] = []

    def keep(self, start: int, rows: Rows) -> None:
        """Keep them all."""
        self._parts.append(rows)

    def rows(self) -> Rows:
        """The rows, (n, V) or (n, D)."""
        return np.concatenate(self._parts)


class MeanHidden(Reader):
    """The mean of the hidden states over all places."""

    hidden = True

    def __init__(self, ids: Sequence[int]) -> None:
        super().__init__(ids)
        self._sum: NDArray[np.float64] | None = None

    def keep(self, start: int, rows: Rows) -> None:
        """Keep their sum."""
        more = rows.sum(axis=0, dtype=np.float64)
        self._sum = more if self._sum is None else self._sum + more

    def mean(self) -> Rows:
        """The mean, (D,)."""
        assert self._sum is not None
        return (self._sum / len(self.ids)).astype(np.float32)


class Scores(Reader):
    """For each id from `start` on: its log-probability after those before, and whether it is the likeliest one."""

    def __init__(self, ids: Sequence[int], start: int = 1) -> None:
        super().__init__(ids, start - 1, max(start - 1, len(ids) - 1))
        self.logprobs: list[float] = []
        self.greedy: list[bool] = []

    def keep(self, start: int, rows: Rows) -> None:
        """Keep two numbers of each."""
        for row, id in zip(rows, self.ids[start + 1 : start + 1 + len(rows)], strict=True):
            self.logprobs.append(sampling.raw_logprob(row, id))
            self.greedy.append(int(row.argmax()) == id)


class PromptLogprobs(Reader):
    """How likely each id is after those before it, and the `n` likeliest in its place; None for the first id."""

    def __init__(self, ids: Sequence[int], n: int = 0) -> None:
        super().__init__(ids, 0, max(0, len(ids) - 1))
        self.tokens: list[PromptToken | None] = [None]
        self._n = n

    def keep(self, start: int, rows: Rows) -> None:
        """Keep what is told of each."""
        for row, id in zip(rows, self.ids[start + 1 : start + 1 + len(rows)], strict=True):
            log_sum = sampling.raw_log_sum(row)
            logprob = float(row[id]) - log_sum
            self.tokens.append(PromptToken(id, logprob, rank(row, id), likeliest(row, log_sum, None, self._n)))


def rank(logits: Rows, id: int) -> int:
    """1 for the likeliest id; ids as likely as each other share a rank."""
    return int(np.count_nonzero(logits > logits[id])) + 1


def likeliest(
    logits: Rows, log_sum: float, probabilities: NDArray[np.float64] | None, n: int | None
) -> tuple[Alternative, ...]:
    """The n likeliest ids, the lower id first where they are equal; without `probabilities` nothing is drawn."""
    if not n:
        return ()
    n = min(n, len(logits))
    ids = np.flatnonzero((logits >= np.partition(logits, -n)[-n]) & (logits > -np.inf))
    ranked = ids[np.argsort(-logits[ids], kind="stable")][:n].tolist()
    drawn = [0.0 if probabilities is None else probabilities[id] for id in ranked]
    return tuple(
        Alternative(id, float(logits[id]) - log_sum, math.log(p) if p else None)
        for id, p in zip(ranked, drawn, strict=True)
    )
