"""Boards of other days: what was published then, a file a day."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from camelid.arena.ratings import Board, Row
from camelid.errors import FormatError, NotFoundError
from camelid.files import whole_file

_NAME = re.compile(r"\d{4}-\d{2}-\d{2}\.json")
_DAMAGE = (OSError, ValueError, KeyError, TypeError)


@dataclass(frozen=True)
class Snapshot:
    """The board of a day, over all votes and without style control."""

    day: date
    board: Board


class Snapshots:
    """The boards of a folder; each file is what `camelid arena rate --json` prints.

    Args:
        folder: it need not be there yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def days(self) -> list[date]:
        """The newest first."""
        try:
            names = [path.name for path in self.folder.iterdir() if _NAME.fullmatch(path.name)]
        except OSError:
            return []
        return sorted((day for name in names if (day := _day(name)) is not None), reverse=True)

    def open(self, day: date) -> Snapshot:
        """The board of a day.

        Raises:
            NotFoundError: none was kept.
            FormatError: it cannot be read.
        """
        path = self.folder / f"{day}.json"
        if not path.exists():
            raise NotFoundError(f"{path}: no board of that day was kept")
        try:
            return Snapshot(day, board_of(json.loads(path.read_bytes())))
        except _DAMAGE as error:
            raise FormatError(f"{path}: is no board: {error}") from None

    def keep(self, board: Board, seconds: float) -> bool:
        """Write the board of this moment's day (UTC), unless that day has one; whether it was written."""
        day = datetime.fromtimestamp(seconds, UTC).date()
        path = self.folder / f"{day}.json"
        if path.exists() or not board.rows:
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            file.write(json.dumps(board.as_json(), ensure_ascii=False, indent=1).encode() + b"\n")
        return True


def board_of(record: Mapping[str, Any]) -> Board:
    """A board from its JSON.

    Raises:
        KeyError, TypeError, ValueError: the record is not that of a board.
    """
    rows = tuple(
        Row(
            str(each["name"]),
            float(each["rating"]),
            float(each["lower"]),
            float(each["upper"]),
            int(each["rank"]),
            int(each["votes"]),
        )
        for each in record["models"]
    )
    return Board(str(record["method"]), int(record["n_votes"]), rows, warnings=tuple(record.get("warnings", ())))


@dataclass(frozen=True)
class Move:
    """What changed for a model between two boards; None where it was not on one of them."""

    name: str
    rank: tuple[int | None, int | None]
    rating: tuple[float | None, float | None]

    @property
    def places(self) -> int:
        """Places won; negative: lost."""
        before, after = self.rank
        return before - after if before is not None and after is not None else 0

    @property
    def points(self) -> float | None:
        """Points won."""
        before, after = self.rating
        return after - before if before is not None and after is not None else None


def moves(before: Board, after: Board) -> list[Move]:
    """Models whose rank changed, that came or went; in the order of the new board, those gone last."""
    old, new = ({row.name: row for row in board.rows} for board in (before, after))
    found = []
    for name in [*new, *(name for name in old if name not in new)]:
        was, now = old.get(name), new.get(name)
        if was is None or now is None or was.rank != now.rank:
            ranks = (was.rank if was else None, now.rank if now else None)
            found.append(Move(name, ranks, (was.rating if was else None, now.rating if now else None)))
    return found


def _day(name: str) -> date | None:
    try:
        return date.fromisoformat(name.removesuffix(".json"))
    except ValueError:
        return None
