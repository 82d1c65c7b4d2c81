"""What is made of a prompt's rows, a chunk at a time: log-probabilities, logits or hidden states."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from camelid.engine.request import PromptToken, Request, Rows, Scored
from camelid.engine.sampling import steps as sampling
from camelid.engine.sampling.choose import likeliest
from camelid.errors import NumericsError

Array = NDArray[np.float32]
_cpu = import_module("camelid.engine._cpu") if find_spec("camelid.engine._cpu") else None  # no compiler, no module


class Collector(Protocol):
    """Takes a request's wanted rows in order, and keeps no more of them than is asked for."""

    def take(self, rows: Array) -> None:
        """The next rows, (n, V) or (n, D).

        Raises:
            NumericsError: they are not numbers.
        """

    def result(self, number: int) -> Scored | Rows:
        """What came of all rows of request `number`."""


def collector(request: Request) -> Collector:
    """What a request that writes nothing needs."""
    if request.wants == "logprobs":
        return _Logprobs(request)
    return _Mean() if request.pooled else _AllRows(request)


class _AllRows:
    """The rows themselves."""

    def __init__(self, request: Request) -> None:
        self._is_hidden = request.wants == "hidden"
        self._parts: list[Array] = []

    def take(self, rows: Array) -> None:
        _check(rows, self._is_hidden)
        self._parts.append(rows)

    def result(self, number: int) -> Rows:
        return Rows(number, np.concatenate(self._parts))


class _Mean:
    """The mean of hidden states."""

    def __init__(self) -> None:
        self._sum: NDArray[np.float64] | None = None
        self._n_rows = 0

    def take(self, rows: Array) -> None:
        _check(rows, is_hidden=True)
        more = rows.sum(axis=0, dtype=np.float64)
        self._sum = more if self._sum is None else self._sum + more
        self._n_rows += len(rows)

    def result(self, number: int) -> Rows:
        assert self._sum is not None
        return Rows(number, (self._sum / self._n_rows).astype(np.float32)[None])


class _Logprobs:
    """Log-probabilities of the ids that follow, of the candidates and of those asked for, and the likeliest ids."""

    def __init__(self, request: Request) -> None:
        self._request, self._place = request, request.rows.start
        self._candidates = np.array(request.candidates, np.int64)
        self._logprobs: list[NDArray[np.float64]] = []
        self._best: list[NDArray[np.int64]] = []
        self._of_candidates: list[NDArray[np.float64]] = []
        self._log_sums: list[NDArray[np.float64]] = []
        self._asked_logits = np.zeros(len(request.asked), np.float64)
        self._tokens: list[PromptToken] = []

    def take(self, rows: Array) -> None:
        request, start = self._request, self._place
        sums, best = log_sums(rows)
        following = request.ids[start + 1 : start + 1 + len(rows)]
        tokens: list[PromptToken] = []
        if request.top is not None:
            ranks = ranks_of(rows, following)
            for row, id, log_sum, rank in zip(rows, following, sums.tolist(), ranks.tolist(), strict=False):
                tokens.append(
                    PromptToken(id, float(row[id]) - log_sum, rank, likeliest(row, log_sum, None, request.top))
                )
        at = np.arange(len(following))
        logprobs = rows[at, list(following)] - sums[: len(following)]
        for number, (place, id) in enumerate(request.asked):
            if start <= place < start + len(rows):
                self._asked_logits[number] = rows[place - start, id]
        # Kept when all are known: an interrupt must not keep half.
        self._of_candidates.append(rows[:, self._candidates] - sums[:, None])
        self._best.append(best)
        self._logprobs.append(logprobs)
        self._log_sums.append(sums)
        self._tokens += tokens
        self._place += len(rows)

    def result(self, number: int) -> Scored:
        request, width = self._request, len(self._candidates)
        of_candidates = np.concatenate([np.empty((0, width)), *self._of_candidates])
        best = np.concatenate([np.empty(0, np.int64), *self._best])
        sums = np.concatenate([np.empty(0), *self._log_sums])
        asked = self._asked_logits - sums[[place - request.rows.start for place, _ in request.asked]]
        logprobs = np.concatenate([np.empty(0), *self._logprobs])
        return Scored(number, logprobs, best, of_candidates, asked, tuple(self._tokens))


def log_sums(rows: Array) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """What each row of logits exceeds its log-probabilities by, good to 1e-7, and its likeliest id; (n,) each.

    Raises:
        NumericsError: a row is not of numbers.
    """
    if _cpu is None:
        sums, best = numpy_log_sums(rows)
    else:
        from camelid.engine.backend_cpu import chosen_isa

        sums, best = np.empty(len(rows)), np.empty(len(rows), np.int64)
        _cpu.log_sums(chosen_isa(None), np.ascontiguousarray(rows), sums, best)
    for place in np.flatnonzero(~np.isfinite(sums)):
        sampling.checked(rows[place])  # says what is wrong
    return sums, best


def numpy_log_sums(rows: Array) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The same, where there is no C++; not finite where a row is not of numbers."""
    with np.errstate(invalid="ignore"):
        return np.array([sampling.raw_log_sum(row) for row in rows]), rows.argmax(axis=1)


def ranks_of(rows: Array, ids: Sequence[int]) -> NDArray[np.int64]:
    """Ranks of ids in the first rows, one for each; see `choose.rank`."""
    own = rows[: len(ids)]
    return np.count_nonzero(own > own[np.arange(len(ids)), list(ids)][:, None], axis=1) + 1


def _check(rows: Array, is_hidden: bool) -> None:
    if is_hidden and not np.isfinite(rows).all():
        raise NumericsError("hidden states are not finite; the weights are damaged: try float32")
    if not is_hidden:
        for row in rows:
            if not math.isfinite(row.max()):
                sampling.checked(row)  # says what is wrong
