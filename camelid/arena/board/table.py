"""The rows that a page shows: a board joined with what is known of its models, filtered and sorted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from camelid.arena.board.source import Facts

SIZES: dict[str, tuple[float, float]] = {
    "": (0, math.inf),
    "up to 3 B": (0, 3),
    "3 to 10 B": (3, 10),
    "10 to 40 B": (10, 40),
    "over 40 B": (40, math.inf),
}
"""Parameters in billions: more than the first, at most the second."""


@dataclass(frozen=True)
class Line:
    """A model on the page.

    Attributes:
        moved: places up (or down, negative) since the board it is compared with; None: none, or it was not there.
        was: the rating on that board.
        figures: of the full leaderboard: task → (value, text, address of the result).
    """

    name: str
    rank: int
    rating: float
    lower: float
    upper: float
    votes: int
    facts: Facts
    moved: int | None = None
    was: float | None = None
    figures: Mapping[str, tuple[float, str, str]] = field(default_factory=dict)

    @property
    def width(self) -> float:
        """Of the interval."""
        return self.upper - self.lower

    @property
    def interval(self) -> str:
        """As `+5/−4`, the deck's form."""
        ends = (self.upper - self.rating, self.rating - self.lower)
        return f"+{_whole(ends[0])}/−{_whole(ends[1])}"


def _whole(points: float) -> str:
    return f"{points:.0f}" if math.isfinite(points) else "∞"


@dataclass(frozen=True)
class Filters:
    """Which models somebody wants to see; empty means all."""

    open_only: bool = False
    licence: str = ""
    size: str = ""
    organisation: str = ""
    text: str = ""

    def keep(self, line: Line) -> bool:
        """Whether a line is among them."""
        facts, size = line.facts, line.facts.billions
        low, high = SIZES.get(self.size, SIZES[""])
        words = self.text.casefold().split()
        told = f"{line.name} {facts.organisation} {facts.licence}".casefold()
        return (
            (not self.open_only or facts.is_open)
            and self.licence in ("", facts.licence)
            and self.organisation in ("", facts.organisation)
            and (not self.size or (size is not None and low < size <= high))
            and all(word in told for word in words)
        )

    def query(self) -> list[tuple[str, str]]:
        """As an address says it."""
        told = [
            ("open", "1" if self.open_only else ""),
            ("licence", self.licence),
            ("size", self.size),
            ("organisation", self.organisation),
            ("q", self.text),
        ]
        return [(name, value) for name, value in told if value]


Key = Callable[[Line], Any]
COLUMNS: dict[str, tuple[str, Key, bool]] = {
    "rank": ("Rank", lambda line: (line.rank, -line.rating), False),
    "model": ("Model", lambda line: line.name.casefold(), False),
    "score": ("Score", lambda line: line.rating, True),
    "interval": ("95 % CI", lambda line: line.width, False),
    "votes": ("Votes", lambda line: line.votes, True),
    "organisation": ("Organisation", lambda line: line.facts.organisation.casefold(), False),
    "licence": ("Licence", lambda line: line.facts.licence.casefold(), False),
    "cutoff": ("Knowledge cut-off", lambda line: line.facts.cutoff, True),
}
"""Name in addresses → title, what it is sorted by, whether the largest comes first at the first click."""


def ordered(lines: Sequence[Line], sort: str) -> list[Line]:
    """By a column, or by a figure of the full leaderboard; `-` before its name turns it round.

    Lines that have nothing in that column come last, either way; an unknown column is the rank.
    """
    name = sort.removeprefix("-")
    key = COLUMNS[name][1] if name in COLUMNS else _figure_key(name)
    by_rank = sorted(lines, key=COLUMNS["rank"][1])
    if name not in COLUMNS and not any(name in line.figures for line in lines):
        return by_rank
    known = [line for line in by_rank if key(line) not in ("", None)]
    unknown = [line for line in by_rank if key(line) in ("", None)]
    return sorted(known, key=key, reverse=sort.startswith("-")) + unknown


def _figure_key(name: str) -> Key:
    def key(line: Line) -> float | None:
        return line.figures[name][0] if name in line.figures else None

    return key
