"""Votes in memory, as columns that grow as people vote: what boards, plots and lists of votes are made from.

No text is among them. A million votes take some 60 MB, and reading what is new costs what is new.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camelid.arena.battles import UNKNOWN, Battles
from camelid.arena.board.source import MOST, Source

Column = NDArray[Any]
_COLUMNS = ("a", "b", "winner", "time", "voter", "prompt", "language", "turns", "ids")
_NOT_SAID: dict[str, Any] = {"prompt": UNKNOWN, "language": UNKNOWN, "turns": 0, "ids": ""}


@dataclass(frozen=True)
class Votes:
    """The votes at one moment; columns are views, and nothing is written into them later.

    Attributes:
        number: grows with every change, so that what was made of the votes can be kept until then.
        read: when they were read, seconds since 1970.
    """

    battles: Battles
    number: int
    read: float


class Grown:
    """A column that is appended to: amortised, each value is copied a few times at most."""

    def __init__(self, values: Column) -> None:
        self._room, self.n = values.copy(), len(values)

    @property
    def values(self) -> Column:
        """What is in it; a view."""
        return self._room[: self.n]

    def append(self, values: Column) -> None:
        """Values behind; views of before keep theirs."""
        kind = np.promote_types(self._room.dtype, values.dtype)
        end = self.n + len(values)
        if end > len(self._room) or kind != self._room.dtype:
            room = np.empty((max(end, self.n + self.n // 2 + 1024), *self._room.shape[1:]), kind)
            room[: self.n] = self.values
            self._room = room
        self._room[self.n : end] = values
        self.n = end

    def map(self, numbers: Column) -> None:
        """Numbers of names that have got others; UNKNOWN stays. Views of before keep theirs."""
        if len(numbers):
            old = self.values
            self._room = np.where(old >= 0, numbers[old], old).astype(old.dtype)
            self.n = len(old)


class Following:
    """The votes of a source. Safe for threads.

    Args:
        source: where they come from.
        clock: seconds since 1970.
    """

    def __init__(self, source: Source, clock: Callable[[], float] = time.time) -> None:
        self.source = source
        self._clock, self._lock = clock, threading.Lock()
        self._state: object = None
        self._read, self._changes = 0, 0
        self._columns: dict[str, Grown] = {}
        self._numbers: dict[str, Grown] = {}
        self._votes: Votes | None = None

    def votes(self) -> Votes:
        """Everything voted until now."""
        with self._lock:
            state = self.source.state()
            if self._votes is not None and state != self._state:
                self._votes, self._read = None, 0
            self._state, before = state, -MOST
            while self._read - before >= MOST:
                before = self._read
                new, self._read = self.source.since(before)
                self._take(new, self._clock())
            assert self._votes is not None
            return self._votes

    def _take(self, new: Battles, now: float) -> None:
        if self._votes is None:
            self._votes = self._begin(new, now)
        elif len(new):
            self._votes = self._append(self._votes.battles, new, now)
        else:
            self._votes = replace(self._votes, read=now)

    def _begin(self, battles: Battles, now: float) -> Votes:
        battles = said(battles)
        self._columns = {name: Grown(getattr(battles, name)) for name in _COLUMNS}
        self._numbers = {name: Grown(column) for name, column in battles.numbers.items()}
        return self._now(battles, now)

    def _append(self, old: Battles, new: Battles, now: float) -> Votes:
        new = said(new)
        names: dict[str, tuple[str, ...]] = {}
        for kind, columns in (("models", ("a", "b")), ("voters", ("voter",)), ("languages", ("language",))):
            before, after = getattr(old, kind), getattr(new, kind)
            names[kind], olds, news = joined(before, after, in_order=kind == "models")
            for column in columns:
                if names[kind] != before:
                    self._columns[column].map(olds)
                values = getattr(new, column)
                mapped = np.where(values >= 0, news[values], values) if len(news) else values
                self._columns[column].append(mapped.astype(values.dtype))
        for name in ("winner", "time", "prompt", "turns", "ids"):
            self._columns[name].append(getattr(new, name))
        for name in {*self._numbers, *new.numbers}:
            self._append_number(name, new, len(old))
        return self._now(replace(old, **_any(names)), now)

    def _append_number(self, name: str, new: Battles, n: int) -> None:
        """A further column; where one side does not have it, it is not said."""
        column = new.numbers.get(name)
        if name not in self._numbers:
            assert column is not None
            self._numbers[name] = Grown(np.full((n, *column.shape[1:]), np.nan))
        if column is None:
            column = np.full((len(new), *self._numbers[name].values.shape[1:]), np.nan)
        self._numbers[name].append(column)

    def _now(self, names: Battles, now: float) -> Votes:
        self._changes += 1
        columns = {name: column.values for name, column in self._columns.items()}
        numbers = {name: column.values for name, column in self._numbers.items()}
        return Votes(replace(names, **_any(columns), numbers=numbers), self._changes, now)


def joined(old: tuple[str, ...], new: tuple[str, ...], *, in_order: bool) -> tuple[tuple[str, ...], Column, Column]:
    """Names of both, and the new numbers of the old and of the new ones; the old ones' only change to keep order."""
    known = set(old)
    every = [*old, *(name for name in new if name not in known)]
    names = tuple(sorted(every) if in_order else every)
    numbers = {name: number for number, name in enumerate(names)}
    olds, news = (np.array([numbers[name] for name in each], np.int64) for each in (old, new))
    return names, olds, news


def said(battles: Battles) -> Battles:
    """With all columns; what is not said is marked so. Ids are numbers of rows where there are none."""
    n = len(battles)
    empty = {
        name: np.full(n, value, np.asarray(getattr(battles, name)).dtype)
        for name, value in _NOT_SAID.items()
        if len(getattr(battles, name)) != n
    }
    return replace(battles, **_any(empty))


def _any(columns: dict[str, Any]) -> dict[str, Any]:
    """Columns of several kinds, which the checker of types cannot tell apart."""
    return columns
