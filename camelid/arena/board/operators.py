"""What operators look at: traffic, failures, drift, what became of votes. No text is read for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Engine, Integer, case, cast, func, select
from sqlalchemy.orm import Session

from camelid.arena.battles import A, B, Battles
from camelid.arena.live.tables import Answer, Battle, Turn, Vote
from camelid.evals.agreement import wilson

HOUR, DAY = 3600, 86400


@dataclass(frozen=True)
class Hour:
    """What happened in an hour that begins at `start`, seconds since 1970."""

    start: float
    battles: int
    votes: int


@dataclass(frozen=True)
class Health:
    """How a model has answered.

    Attributes:
        failed: answers that did not come to their end.
        named_maker: answers that said who made the model.
        first_seconds, seconds: means, until the first text and in all; None if nothing came.
        reasons: why answers failed, with counts, the most frequent first.
    """

    model: str
    answers: int
    failed: int
    named_maker: int
    first_seconds: float | None
    seconds: float | None
    reasons: tuple[tuple[str, int], ...]

    @property
    def share_failed(self) -> float:
        """Of all answers."""
        return self.failed / self.answers if self.answers else 0.0


@dataclass(frozen=True)
class Drift:
    """Of a day's votes that were no tie, the share that side A won, with a 95 % interval (Wilson 1927).

    Both sides are drawn by a coin, so the share is near one half; where the interval leaves that out, something is
    wrong: with the draw, with the page, or with who votes.
    """

    day: float
    decided: int
    ties: int
    share: float
    low: float
    high: float

    @property
    def is_odd(self) -> bool:
        """Whether one half lies outside."""
        return self.decided > 0 and not self.low <= 0.5 <= self.high


def traffic(engine: Engine, now: float, hours: int = 168) -> list[Hour]:
    """Battles begun and votes given in each of the last hours, the oldest first; hours of nothing too."""
    last = int(now // HOUR)
    first = last - hours + 1
    with Session(engine) as session:
        found = []
        for made in (Battle.made, Vote.made):
            hour = _whole(engine, made / HOUR)
            rows = session.execute(select(hour, func.count()).where(made >= first * HOUR).group_by(hour))
            found.append({int(number): int(n) for number, n in rows})
    battles, votes = found
    return [Hour(each * HOUR, battles.get(each, 0), votes.get(each, 0)) for each in range(first, last + 1)]


def _whole(engine: Engine, value: ColumnElement[float]) -> ColumnElement[int]:
    """Rounded down; casts round up in PostgreSQL, and SQLite may lack floor."""
    return cast(value, Integer) if engine.dialect.name == "sqlite" else cast(func.floor(value), Integer)


def health(engine: Engine, since: float) -> list[Health]:
    """How models have answered in battles begun since then; those that failed most come first."""
    recent = (Battle.made >= since) & (Battle.id == Answer.battle)
    failed = case((Answer.reason.is_not(None), 1), else_=0)
    named = case((Answer.names_maker, 1), else_=0)
    columns = (
        func.count(),
        func.sum(failed),
        func.sum(named),
        func.avg(Answer.first_seconds),
        func.avg(Answer.seconds),
    )
    query = select(Answer.model, *columns).where(recent).group_by(Answer.model)
    why = select(Answer.model, Answer.reason, func.count()).where(recent & Answer.reason.is_not(None))
    with Session(engine) as session:
        rows = session.execute(query).all()
        reasons: dict[str, list[tuple[str, int]]] = {}
        for model, reason, n in session.execute(why.group_by(Answer.model, Answer.reason)):
            reasons.setdefault(model, []).append((str(reason), n))
    found = [
        Health(
            model,
            n,
            int(bad),
            int(names),
            first,
            whole,
            tuple(sorted(reasons.get(model, ()), key=lambda each: -each[1])),
        )
        for model, n, bad, names, first, whole in rows
    ]
    return sorted(found, key=lambda each: (-each.share_failed, each.model))


def failed_turns(engine: Engine, since: float) -> list[tuple[str, int]]:
    """Why turns failed in battles begun since then, with counts, the most frequent first."""
    query = (
        select(func.coalesce(Turn.reason, "not said"), func.count())
        .where((Battle.made >= since) & (Battle.id == Turn.battle) & (Turn.state == "failed"))
        .group_by(Turn.reason)
    )
    with Session(engine) as session:
        return sorted(((str(reason), int(n)) for reason, n in session.execute(query)), key=lambda each: -each[1])


def states(engine: Engine) -> list[tuple[str, str, bool, int]]:
    """State, reason, whether of a battle (else side by side), and how many votes; the most frequent first."""
    query = select(Vote.state, func.coalesce(Vote.reason, ""), Vote.anony, func.count())
    with Session(engine) as session:
        rows = session.execute(query.group_by(Vote.state, Vote.reason, Vote.anony))
        return sorted(((state, why, bool(anony), int(n)) for state, why, anony, n in rows), key=lambda each: -each[3])


def drift(battles: Battles, days: int = 30) -> list[Drift]:
    """The share of side A by day (UTC), of the last days that have votes; the newest first."""
    timed = ~np.isnan(battles.time)
    number = np.floor(battles.time[timed] / DAY).astype(np.int64)
    winner = battles.winner[timed]
    found = []
    for day in np.unique(number)[::-1][:days]:
        of_day = winner[number == day]
        a, b = int((of_day == A).sum()), int((of_day == B).sum())
        low, high = wilson(a, a + b)
        share = a / (a + b) if a + b else math.nan
        found.append(Drift(float(day) * DAY, a + b, len(of_day) - a - b, share, low, high))
    return found


def columns_of(hours: Sequence[Hour], width: float, height: float) -> list[dict[str, Any]]:
    """Hours as columns of a picture: votes before battles."""
    most = max([1, *(max(hour.battles, hour.votes) for hour in hours)])
    step = width / max(1, len(hours))
    return [
        {
            "x": round(at * step, 2),
            "width": round(step * 0.8, 2),
            "battles": round(height * hour.battles / most, 2),
            "votes": round(height * hour.votes / most, 2),
            "hour": hour,
        }
        for at, hour in enumerate(hours)
    ]
