"""Votes as columns: what ratings, cleaning, plots and the search for fraud read, whatever form a log has."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from camelid.errors import OptionError

A, B, TIE, BOTH_BAD = range(4)
WINNERS = ("model_a", "model_b", "tie", "tie (bothbad)")  # by number, as LMSYS's files write them
COUNTS = "counts"  # the state of a vote that counts; each other one has a reason
UNKNOWN = -1  # a voter, a language … that is not said


@dataclass(frozen=True)
class Battles:
    """N votes between two of M models.

    Attributes:
        models: (M,) names, sorted.
        a, b: (N,) int32, which models answered on side A and B.
        winner: (N,) int8, number into `WINNERS`.
        time: (N,) float64, seconds since 1970; NaN: not said.
        voter: (N,) int32 into `voters`; UNKNOWN: not said.
        voters: names of voters.
        prompt: (N,) int32, number of the question: equal questions have equal numbers; UNKNOWN: not said.
        language: (N,) int16 into `languages`; UNKNOWN: not said.
        languages: names, as English.
        turns: (N,) int16, questions of the battle; 0: not said.
        ids: (N,) names of the battles, unique; empty array: not said.
        numbers: further columns by name, (N,) float64 or (N, 2) for sides A and B, as answer tokens; NaN: not said.
    """

    models: tuple[str, ...]
    a: NDArray[np.int32]
    b: NDArray[np.int32]
    winner: NDArray[np.int8]
    time: NDArray[np.float64]
    voter: NDArray[np.int32]
    voters: tuple[str, ...] = ()
    prompt: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    language: NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, np.int16))
    languages: tuple[str, ...] = ()
    turns: NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, np.int16))
    ids: NDArray[np.str_] = field(default_factory=lambda: np.zeros(0, "U1"))
    numbers: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.a)

    @classmethod
    def of(cls, a: list[str], b: list[str], winner: list[str], **columns: Any) -> Self:
        """From names; columns that are not given are not said.

        Raises:
            OptionError: a winner that is none of `WINNERS`; columns of other lengths.
        """
        models = sorted({*a, *b})
        place = {name: number for number, name in enumerate(models)}
        codes = {name: number for number, name in enumerate(WINNERS)}
        if unknown := next((name for name in winner if name not in codes), None):
            raise OptionError(f"winner: {unknown!r} is none of {', '.join(WINNERS)}")
        n, sides = len(winner), [np.array([place[name] for name in side], np.int32) for side in (a, b)]
        given = {"time": np.full(n, np.nan), "voter": np.full(n, UNKNOWN, np.int32), **columns}
        if len(a) != n or len(b) != n or any(len(given[name]) != n for name in ("time", "voter")):
            raise OptionError("battles: columns are not of one length")
        winners = np.array([codes[name] for name in winner], np.int8)
        return cls(tuple(models), sides[0], sides[1], winners, **given)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Self:
        """The battles at these places, or where true; models and voters keep their numbers."""
        n = len(self)
        columns = {each.name: getattr(self, each.name) for each in fields(self)}
        taken: dict[str, Any] = {}
        for name, column in columns.items():
            if isinstance(column, np.ndarray) and len(column) == n:
                taken[name] = column[rows]
        taken["numbers"] = {name: column[rows] for name, column in self.numbers.items()}
        return replace(self, **taken)
