"""What is made of a prompt's rows, a chunk at a time: log-probabilities, logits or hidden states."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from camelid.engine import sampling
from camelid.engine.choose import likeliest, rank
from camelid.engine.request import PromptToken, Request, Rows, Scored
from camelid.errors import NumericsError

Array = NDArray[np.float32]


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
    """Log-probabilities of the ids that follow and of the candidates, and the likeliest ids."""

    def __init__(self, request: Request) -> None:
        self._request, self._place = request, request.rows.start
        self._candidates = np.array(request.candidates, np.int64)
        self._logprobs: list[float] = []
        self._best: list[int] = []
        self._of_candidates: list[NDArray[np.float64]] = []
        self._tokens: list[PromptToken] = []

    def take(self, rows: Array) -> None:
        ids, top, start = self._request.ids, self._request.top, self._place + 1
        of_candidates, logprobs, tokens = [], [], []  # kept when all are known: an interrupt must not keep half
        for place, row in enumerate(rows, start):
            id = ids[place] if place < len(ids) else None
            if id is not None and top is not None:
                tokens.append(_prompt_token(row, id, top))
                logprobs.append(tokens[-1].logprob)
            if len(self._candidates) or (id is not None and top is None):
                wide = sampling.checked(row)
                log_sum = sampling.log_sum(wide)
                of_candidates.append(wide[self._candidates] - log_sum)
                if id is not None and top is None:
                    logprobs.append(float(wide[id] - log_sum))
        self._best += rows.argmax(axis=1).tolist()
        self._of_candidates += of_candidates
        self._logprobs += logprobs
        self._tokens += tokens
        self._place += len(rows)

    def result(self, number: int) -> Scored:
        of_candidates = np.array(self._of_candidates).reshape(len(self._best), len(self._candidates))
        logprobs, best = np.array(self._logprobs, np.float64), np.array(self._best, np.int64)
        return Scored(number, logprobs, best, of_candidates, tuple(self._tokens))


def _prompt_token(row: Array, id: int, top: int) -> PromptToken:
    _check(row[None], is_hidden=False)
    log_sum = sampling.raw_log_sum(row)
    return PromptToken(id, float(row[id]) - log_sum, rank(row, id), likeliest(row, log_sum, None, top))


def _check(rows: Array, is_hidden: bool) -> None:
    if is_hidden and not np.isfinite(rows).all():
        raise NumericsError("hidden states are not finite; the weights are damaged: try float32")
    if not is_hidden:
        for row in rows:
            if not math.isfinite(row.max()):
                sampling.checked(row)  # says what is wrong
