"""A live arena's votes as a board's source: read by their numbers, so that what is new costs what is new.

Reading takes no lock that a vote would wait for. Texts are read battle by battle, when somebody looks at one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, create_engine, func, select
from sqlalchemy.orm import Session

from camelid.arena.battles import COUNTS, UNKNOWN, Battles
from camelid.arena.board.source import MOST, Facts, Text, Turn
from camelid.arena.live.tables import Answer, Battle, Vote
from camelid.arena.live.tables import Turn as Asked
from camelid.arena.ratings.covariates import STYLE
from camelid.serve.storage.database import Database, file_url

CHECK_SECONDS = 10  # between looks at whether votes that were read have changed their state


class LiveSource:
    """Votes of battles that count, of a database that people vote into.

    Args:
        facts: of models, as they are now.
        texts: whether everyone may read conversations that people have not had deleted.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        facts: Callable[[], Iterable[Facts]] = tuple,
        *,
        texts: bool = True,
        name: str = "battles here",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self._facts, self._texts, self._clock = facts, texts, clock
        self._database: Database | None = None
        self._engine: Engine | None = None
        self._lock = threading.Lock()
        self._begin_again()

    def bind(self, database: Database) -> None:
        """Read from this database, which has the arena's tables."""
        self._database, self._engine = database, None

    @property
    def engine(self) -> Engine:
        """To read with."""
        assert self._database is not None, "bind it first"
        if self._database.file is None:
            return self._database.engine
        with self._lock:
            if self._engine is None:  # the database's own takes SQLite's lock for writing
                self._engine = create_engine(file_url(self._database.file), connect_args={"check_same_thread": False})
            return self._engine

    def close(self) -> None:
        """Close what was opened here."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def _begin_again(self) -> None:
        self._people: dict[str, int] = {}
        self._prompts: dict[str, int] = {}
        self._last, self._passed, self._passed_sum = 0, 0, 0
        self._epoch: int = getattr(self, "_epoch", 0)
        self._checked = self._clock()

    def state(self) -> object:
        """Grows when a vote that was read has changed its state; looked at every few seconds."""
        now = self._clock()
        if now - self._checked >= CHECK_SECONDS and self._last:
            self._checked = now
            query = select(func.count(), func.coalesce(func.sum(Vote.number), 0)).where(
                (Vote.state != COUNTS) & (Vote.number <= self._last)
            )
            with self.reading("whether votes still count"), Session(self.engine) as session:
                n, total = session.execute(query).one()
            if (int(n), int(total)) != (self._passed, self._passed_sum):
                self._epoch += 1
        return self._epoch

    def since(self, number: int) -> tuple[Battles, int]:
        """At most `MOST` votes with larger numbers; whoever has read up to one has read all before it."""
        if number == 0:
            self._begin_again()
        columns = (Vote.number, Vote.winner, Vote.model_a, Vote.model_b, Vote.person, Vote.prompt, Vote.turn, Vote.made)
        query = select(*columns, Vote.style, Vote.state, Vote.anony).where(Vote.number > number).order_by(Vote.number)
        with self.reading("new votes"), self.engine.connect() as connection:
            rows = connection.execute(query.limit(MOST)).all()
        passed = [row.number for row in rows if row.state != COUNTS]
        self._passed, self._passed_sum = self._passed + len(passed), self._passed_sum + sum(passed)
        self._last = rows[-1].number if rows else number
        counting = [row for row in rows if row.state == COUNTS and row.anony]
        return self._battles(counting), self._last

    def reading(self, what: str) -> AbstractContextManager[None]:
        """Errors of the database in one line; what was read is named in it.

        Raises:
            ResourceError: for each of them.
        """
        assert self._database is not None, "bind it first"
        return self._database.errors(f"{what} could not be read")

    def _battles(self, rows: Sequence[Any]) -> Battles:
        """Columns. People and prompts get numbers that stay, and no names."""
        n = len(rows)
        names = np.array([row.model_a for row in rows] + [row.model_b for row in rows], dtype=str)
        models, numbers = np.unique(names, return_inverse=True)
        sides = numbers.astype(np.int32).reshape(2, n)
        return Battles(
            tuple(models.tolist()),
            sides[0],
            sides[1],
            np.array([row.winner for row in rows], np.int8),
            np.array([row.made for row in rows], np.float64),
            np.array([_number(self._people, row.person) for row in rows], np.int32),
            prompt=np.array([_number(self._prompts, row.prompt) for row in rows], np.int32),
            turns=np.array([row.turn for row in rows], np.int16),
            language=np.full(n, UNKNOWN, np.int16),
            ids=np.array([str(row.number) for row in rows], dtype=str),
            numbers=_style(rows),
        )

    def facts(self) -> Mapping[str, Facts]:
        """As they are now."""
        return {each.name: each for each in self._facts()}

    def text(self, id: str) -> Text | None:
        """The conversation up to the vote of this number; None where it was deleted, or does not count."""
        if not self._texts or not (id.isascii() and id.isdigit()) or len(id) > 18:
            return None
        with self.reading("the battle"), Session(self.engine) as session:
            vote = session.get(Vote, int(id))
            if vote is None or vote.state != COUNTS or not vote.anony:
                return None
            battle = session.get(Battle, vote.battle)
            if battle is None or battle.person is None:
                return None
            return _conversations(session, vote)


def _conversations(session: Session, vote: Vote) -> Text | None:
    """Of each turn the attempt that stayed: the newest; of the one voted on, the one that was voted on."""
    asked = select(Asked).where((Asked.battle == vote.battle) & (Asked.number <= vote.turn)).order_by(Asked.attempt)
    turns = {
        turn.number: turn for turn in session.scalars(asked) if turn.number < vote.turn or turn.attempt == vote.attempt
    }
    answered = session.scalars(select(Answer).where(Answer.battle == vote.battle))
    answers = {(answer.number, answer.attempt, answer.side.lower()): answer.text for answer in answered}
    sides: dict[str, list[Turn]] = {"a": [], "b": []}
    for number in sorted(turns):
        for side, said in sides.items():
            question, answer = turns[number].question, answers.get((number, turns[number].attempt, side))
            if question is None or answer is None:
                return None
            said += [("user", question), ("assistant", answer)]
    return Text(str(vote.number), vote.model_a, vote.model_b, sides["a"], sides["b"]) if sides["a"] else None


def _style(rows: Sequence[Any]) -> dict[str, NDArray[np.float64]]:
    """What is kept of how answers are written; NaN where a vote does not say it."""
    nothing = (np.nan, np.nan)
    told = [row.style or {} for row in rows]
    return {name: np.array([each.get(name, nothing) for each in told], np.float64).reshape(-1, 2) for name in STYLE}


def _number(numbers: dict[str, int], name: str | None) -> int:
    return UNKNOWN if name is None else numbers.setdefault(name, len(numbers))
