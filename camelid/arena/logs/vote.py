"""A vote as a reader gives it, and votes gathered into columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camelid.arena.battles import UNKNOWN, WINNERS, Battles
from camelid.errors import OptionError

Conversation = Sequence[Mapping[str, Any]]
"""Messages, each with role and content."""


@dataclass(slots=True)
class Vote:
    """One vote; what is not said is None.

    Attributes:
        winner: one of `WINNERS`.
        time: seconds since 1970.
        prompt: what says which question it was; equal ones are equal.
        turns: questions of the battle; 0: not said.
        anony: whether the names were hidden until the vote.
        numbers: further columns: a number, or one for each side.
    """

    model_a: str
    model_b: str
    winner: str
    id: str | None = None
    time: float | None = None
    voter: str | None = None
    prompt: str | None = None
    language: str | None = None
    turns: int = 0
    anony: bool = True
    numbers: Mapping[str, float | tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BattleText:
    """Both conversations of a battle."""

    id: str
    model_a: str
    model_b: str
    conversation_a: Conversation
    conversation_b: Conversation


def gather(votes: Iterable[Vote]) -> Battles:
    """Votes as columns, in their order. A number that some votes lack is NaN there.

    Raises:
        OptionError: an id stands twice; there are no votes.
    """
    rows = list(votes)
    if not rows:
        raise OptionError("votes: there are none in this log")
    voter, voters = _numbered([vote.voter for vote in rows])
    language, languages = _numbered([vote.language for vote in rows])
    ids = [vote.id for vote in rows if vote.id is not None]
    if len(ids) == len(rows) and len(set(ids)) < len(ids):
        seen: set[str] = set()
        twice = next(each for each in ids if each in seen or seen.add(each))  # type: ignore[func-returns-value]
        raise OptionError(f"votes: {twice} stands twice in this log; keep one of them")
    winners = [vote.winner for vote in rows]
    return Battles.of(
        [vote.model_a for vote in rows],
        [vote.model_b for vote in rows],
        winners,
        time=np.array([np.nan if vote.time is None else vote.time for vote in rows]),
        voter=voter,
        voters=voters,
        prompt=_numbered([vote.prompt for vote in rows])[0],
        language=language.astype(np.int16),
        languages=languages,
        turns=np.array([min(vote.turns, 2**15 - 1) for vote in rows], np.int16),
        ids=np.array(ids) if len(ids) == len(rows) else np.zeros(0, "U1"),
        numbers=_columns(rows),
    )


def votes_of(battles: Battles) -> Iterable[Vote]:
    """The columns as votes again; questions are known by their numbers."""
    named = len(battles.ids) == len(battles)
    for row in range(len(battles)):
        yield Vote(
            battles.models[battles.a[row]],
            battles.models[battles.b[row]],
            WINNERS[battles.winner[row]],
            str(battles.ids[row]) if named else None,
            None if np.isnan(battles.time[row]) else float(battles.time[row]),
            _named(battles.voter, battles.voters, row),
            str(battles.prompt[row]) if len(battles.prompt) and battles.prompt[row] != UNKNOWN else None,
            _named(battles.language, battles.languages, row),
            int(battles.turns[row]) if len(battles.turns) else 0,
            numbers={
                name: _value(column[row]) for name, column in battles.numbers.items() if not _missing(column[row])
            },
        )


def _named(codes: NDArray[Any], names: tuple[str, ...], row: int) -> str | None:
    return names[codes[row]] if len(codes) and codes[row] != UNKNOWN else None


def _missing(value: Any) -> bool:
    return bool(np.isnan(value).all())


def _value(value: Any) -> float | tuple[float, float]:
    return (float(value[0]), float(value[1])) if np.ndim(value) else float(value)


def _numbered(names: list[str | None]) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Numbers in the order of the names; UNKNOWN where nothing is said."""
    known = sorted({name for name in names if name is not None})
    codes = {name: number for number, name in enumerate(known)}
    return np.array([UNKNOWN if name is None else codes[name] for name in names], np.int32), tuple(known)


def _columns(rows: list[Vote]) -> dict[str, NDArray[np.float64]]:
    columns: dict[str, NDArray[np.float64]] = {}
    for place, vote in enumerate(rows):
        for name, value in vote.numbers.items():
            sides = (2,) if isinstance(value, tuple) else ()
            if name not in columns:
                columns[name] = np.full((len(rows), *sides), np.nan)
            if columns[name].shape[1:] != sides:
                raise OptionError(f"votes: {name} is a number for each side in some votes, and one for both in others")
            columns[name][place] = value
    return columns
