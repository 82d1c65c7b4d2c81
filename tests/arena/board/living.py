"""A database of the live arena, with battles that tests put in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import delete, insert, update

from camelid.arena.live.tables import MIGRATIONS, VERSIONS, Answer, Battle, Turn, Vote
from camelid.serve.storage.database import Database

START = 1_793_500_000.0


def opened(url: Any) -> Database:
    """With the arena's tables."""
    database = Database(url)
    database.open()
    database.migrate(MIGRATIONS, VERSIONS)
    return database


def put(database: Database, number: int, a: str = "x", b: str = "y", winner: int = 0, **values: Any) -> None:
    """A battle of one turn with its vote, half a minute after the one before."""
    battle, made = f"{number:032x}", START + 30 * number
    told = {"person": f"person {number % 5}", "state": "counts", "anony": True, **values}
    with database.engine.begin() as connection:
        mode = "battle" if told["anony"] else "side-by-side"
        row = {"id": battle, "mode": mode, "person": told["person"], "model_a": a, "model_b": b, "made": made}
        connection.execute(insert(Battle), [{**row, "turn": 1, "attempt": 2, "shared": False}])
        for attempt, state in ((1, "failed"), (2, "complete")):
            turn = {"battle": battle, "number": 1, "attempt": attempt, "question": f"question {number}"}
            turn |= {"state": state, "held": 0.0, "made": made}
            connection.execute(insert(Turn), [{**turn, "reason": "502" if state == "failed" else None}])
            for side, model in (("a", a), ("b", b)):
                failed = state == "failed" and side == "b"
                answer = {"battle": battle, "number": 1, "attempt": attempt, "side": side, "model": model}
                answer |= {"text": None if failed else f"answer {side}{attempt} to {number}", "seed": 1, "sampling": {}}
                answer |= {"made_with": {}, "names_maker": False, "reason": "upstream: 502" if failed else None}
                connection.execute(insert(Answer), [{**answer, "first_seconds": 0.2, "seconds": 1.5}])
        vote = {"number": number, "battle": battle, "turn": 1, "attempt": 2, "winner": winner, "model_a": a}
        vote |= {"model_b": b, "names_maker": False, "made": made, "prompt": f"{number % 3:064x}"}
        connection.execute(insert(Vote), [vote | told])


def change(database: Database, number: int, **values: Any) -> None:
    """Values of a vote."""
    with database.engine.begin() as connection:
        connection.execute(update(Vote).where(Vote.number == number).values(**values))


def forget(database: Database, person: str) -> None:
    """As the arena does when a person wants their conversations deleted."""
    with database.engine.begin() as connection:
        connection.execute(update(Battle).where(Battle.person == person).values(person=None))
        connection.execute(update(Vote).where(Vote.person == person).values(person=None))


def sqlite(folder: Path) -> str:
    return f"sqlite:///{folder / 'arena.db'}"


def emptied(database: Database) -> None:
    """Without rows."""
    with database.engine.begin() as connection:
        for table in (Vote, Answer, Turn, Battle):
            connection.execute(delete(table))
