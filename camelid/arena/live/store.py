"""What the arena keeps, in transactions: battles, turns, votes, keys and counts. All its processes share it.

A turn is kept before its ticket is given out, and a vote is one transaction. Where the answer to a vote was lost, the
same ticket asks again, and finds the vote there.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import CursorResult, delete, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from camelid.arena.battles import COUNTS
from camelid.arena.live.clock import DAY, Clock
from camelid.arena.live.limits import Limited, Limits
from camelid.arena.live.tables import MIGRATIONS, VERSIONS, Answer, Battle, Mode, Secret, Turn, Use, Vote
from camelid.arena.live.tickets import Ticket
from camelid.arena.ratings.covariates import STYLE
from camelid.arena.ratings.style import style_of_answers
from camelid.errors import NotFoundError, OptionError
from camelid.serve.storage.database import Database

T = TypeVar("T")
Pair = tuple[str, str, float | None]
_COUNTING = 0x6172656E  # the lock of PostgreSQL under which votes get their numbers
GONE = "battle: there is none of this name; it may have been deleted"


class Refused(OptionError):  # noqa: N818 - what happens to a vote, or a question
    """The battle is not where this could be done; the message is for the person."""


@dataclass(frozen=True)
class Begun:
    """A turn that is to be answered: `past` has question, answer A and answer B of each turn before."""

    battle: str
    number: int
    attempt: int
    question: str
    past: Sequence[tuple[str, str, str]]
    models: tuple[str, str]

    @property
    def ticket(self) -> Ticket:
        """What a vote on it names."""
        return Ticket(self.battle, self.number, self.attempt)


@dataclass(frozen=True)
class Whole:
    """A battle with its newest turns, their answers by side, and its vote."""

    battle: Battle
    turns: Sequence[tuple[Turn, Mapping[str, Answer]]]
    vote: Vote | None

    @property
    def ticket(self) -> Ticket | None:
        """For the newest turn, if a vote can be given on it."""
        last = self.turns[-1][0] if self.turns else None
        if last is None or last.state != "complete" or self.vote is not None:
            return None
        return Ticket(self.battle.id, last.number, last.attempt)


class Store:
    """The tables; `open` before anything else is asked of it.

    Args:
        database: where they are.
        clock: the time.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self.database, self.clock = database, clock
        self._keys: dict[str, str] = {}

    def open(self) -> None:
        """Bring the tables up to date.

        Raises:
            OptionError: a newer camelid has written them.
            ResourceError: the database cannot be written.
        """
        with self.database.errors("the arena cannot be kept there"):
            self.database.open()
            self.database.migrate(MIGRATIONS, VERSIONS)

    async def secret(self, name: str) -> str:
        """A key of 32 bytes in hexadecimal digits, made by whoever asks first."""
        if name not in self._keys:
            values = {"name": name, "value": secrets.token_hex(32), "made": self.clock.now()}

            def work(session: Session) -> str:
                session.execute(_insert(session, Secret).values(**values).on_conflict_do_nothing())
                return session.scalars(select(Secret.value).where(Secret.name == name)).one()

            self._keys[name] = await self.database.run(work)
        return self._keys[name]

    async def address_key(self) -> str:
        """Of today; those of days before yesterday are deleted."""
        day = self.clock.day()
        name = f"address-{day:06d}"
        if name not in self._keys:
            old = delete(Secret).where(Secret.name.like("address-%"), Secret.made < self.clock.now() - 2 * DAY)
            await self.database.run(lambda session: session.execute(old))
        return await self.secret(name)

    async def begin(self, mode: Mode, person: str, address: str, models: tuple[str, str] | None) -> str:
        """A new battle's name; the models of one side by side are known."""
        made = Battle(id=secrets.token_hex(16), mode=mode, person=person, address=address, made=self.clock.now())
        if models is not None:
            made.model_a, made.model_b = models
        id = made.id
        await self.database.run(lambda session: session.add(made))
        return id

    async def begin_turn(
        self, id: str, person: str, question: str | None, draw: Callable[[], Pair], limits: Limits
    ) -> Begun:
        """The next turn, or a further attempt at the newest one where `question` is None.

        A turn that has not become complete gives way to the next question.

        Args:
            draw: the pair, if the battle has none yet.
            limits: what is counted, and how much of it there may be.

        Raises:
            NotFoundError: no such battle of this person.
            Refused: it has a vote, nothing to be written anew, or too many turns.
            Limited: a limit.
        """

        def work(session: Session) -> Begun:
            battle = _own(session, id, person)
            if session.scalars(select(Vote.number).where(Vote.battle == id)).first() is not None:
                raise Refused("This battle has its vote. Begin a new round.")
            newest = session.get(Turn, (id, battle.turn, battle.attempt)) if battle.turn else None
            if question is None and (newest is None or newest.question is None):
                raise Refused("There is no question yet that could be answered again.")
            number = 1 if newest is None else newest.number
            goes_on = question is not None and newest is not None and newest.state == "complete"
            attempt = 1 if newest is None or goes_on else newest.attempt + 1
            number += goes_on
            if number > limits.turns:
                raise Refused(f"A conversation has {limits.turns} questions here. Begin a new round.")
            if battle.model_a is None or battle.model_b is None:
                battle.model_a, battle.model_b, battle.chance = draw()
            names = (battle.model_a, battle.model_b)
            count(session, limits.of(person, battle.address, names, self.clock))
            asked = question if question is not None else (newest.question if newest is not None else None) or ""
            battle.turn, battle.attempt = number, attempt
            made = self.clock.now()
            session.add(Turn(battle=id, number=number, attempt=attempt, question=asked, made=made))
            return Begun(id, number, attempt, asked, _past(session, id, number), names)

        return await self.database.run(work)

    async def end_turn(self, begun: Begun, answers: Sequence[Answer], reason: str | None, held: float) -> bool:
        """Keep both answers, and whether the turn is complete (`reason` is None); False if it was given up meanwhile,
        for another attempt, another question or because the person had it deleted."""
        state = "complete" if reason is None else "failed"
        values = {"state": state, "reason": reason, "held": held}

        def work(session: Session) -> bool:
            battle = session.get(Battle, begun.battle, with_for_update=True)
            newest = battle is not None and (battle.turn, battle.attempt) == (begun.number, begun.attempt)
            if battle is None or battle.person is None or not newest:
                return False
            key = (Turn.battle == begun.battle, Turn.number == begun.number, Turn.attempt == begun.attempt)
            change: CursorResult[Any] = session.execute(  # type: ignore[assignment]
                update(Turn).where(*key, Turn.state == "answering").values(**values)
            )
            if change.rowcount:
                session.add_all(answers)
                return True
            kept = session.scalars(select(Turn.state).where(*key)).first()
            return kept == state  # an attempt to keep it before this one was lost on the way back

        return await self.database.run(work)

    async def read(self, id: str, person: str | None = None) -> Whole:
        """A battle; of this person, if one is named.

        Raises:
            NotFoundError: no battle has this id.
        """

        def work(session: Session) -> Whole:
            battle = session.get(Battle, id) if person is None else _own(session, id, person)
            if battle is None:
                raise NotFoundError(GONE, param="battle")
            turns = _newest_turns(session, id)
            answers: dict[tuple[int, int], dict[str, Answer]] = {}
            for answer in session.scalars(select(Answer).where(Answer.battle == id)):
                answers.setdefault((answer.number, answer.attempt), {})[answer.side] = answer
            shown = [(turn, answers.get((turn.number, turn.attempt), {})) for turn in turns]
            return Whole(battle, shown, session.scalars(select(Vote).where(Vote.battle == id)).first())

        return await self.database.run(work)

    async def share(self, id: str, person: str) -> None:
        """Let others see it.

        Raises:
            NotFoundError: no such battle of this person.
        """

        def work(session: Session) -> None:
            _own(session, id, person).shared = True

        await self.database.run(work)

    async def vote(self, ticket: Ticket, person: str, winner: int) -> Vote:
        """Keep a vote, once; asked again with the same vote, the one that is there.

        Raises:
            NotFoundError: no such battle of this person.
            Refused: the ticket's turn is not the newest, or not complete; there is another vote.
        """

        def work(session: Session) -> Vote:
            battle = _own(session, ticket.battle, person)
            there = session.scalars(select(Vote).where(Vote.battle == battle.id)).first()
            if there is not None:
                if (there.turn, there.attempt, there.winner) == (ticket.turn, ticket.attempt, winner):
                    return there
                raise Refused("This battle has its vote already; a vote is not changed.")
            if (battle.turn, battle.attempt) != (ticket.turn, ticket.attempt):
                raise Refused("The conversation went on; vote on its newest answers.")
            turn = session.get(Turn, (ticket.battle, ticket.turn, ticket.attempt))
            if turn is None or turn.state != "complete":
                what = "have failed" if turn is not None and turn.state == "failed" else "have not ended"
                raise Refused(f"The answers {what}; a vote needs two whole ones.")
            made = _vote_of(session, battle, ticket, person, winner)
            made.made = self.clock.now()
            made.number = _next_number(session)
            session.add(made)
            return made

        return await self.database.run(work, "the vote was not kept")

    async def forget(self, person: str) -> int:
        """Delete a person's conversations, and their link to votes, which stay; how many conversations it were."""

        def work(session: Session) -> int:
            ids = list(session.scalars(select(Battle.id).where(Battle.person == person)))
            voted = set(session.scalars(select(Vote.battle).where(Vote.person == person)))
            for id in ids:
                if id not in voted:
                    session.execute(delete(Battle).where(Battle.id == id))
                    continue
                session.execute(update(Turn).where(Turn.battle == id).values(question=None))
                session.execute(update(Answer).where(Answer.battle == id).values(text=None, prompt_hash=None))
                nobody = {"person": None, "address": None}
                session.execute(update(Battle).where(Battle.id == id).values(**nobody, shared=False))
                session.execute(update(Vote).where(Vote.battle == id).values(**nobody, prompt=None))
            return len(ids)

        return await self.database.run(work, "nothing was deleted")

    async def over_limit(self, models: Mapping[str, tuple[int, int]]) -> frozenset[str]:
        """Models that have answered as often as they may, by name → (hourly, daily)."""
        limited = {name: each for name, each in models.items() if any(each)}
        if not limited:
            return frozenset()
        wanted = {}
        for name, (hourly, daily) in limited.items():
            for use in Limits.model_uses(name, hourly, daily, self.clock):
                wanted[use.name, use.period] = (name, use.most)

        def work(session: Session) -> frozenset[str]:
            rows = session.execute(select(Use.name, Use.period, Use.n).where(Use.name.in_({key[0] for key in wanted})))
            out = set()
            for use, period, n in rows:
                name, most = wanted.get((use, period), ("", n + 1))
                if n >= most:
                    out.add(name)
            return frozenset(out)

        return await self.database.run(work)


def count(session: Session, uses: Sequence[Any]) -> None:
    """Count each use once more.

    Raises:
        Limited: one is used up; its transaction then counts none.
    """
    for use in uses:
        row = {"name": use.name, "period": use.period, "n": 1}
        insert = _insert(session, Use).values(**row)
        insert = insert.on_conflict_do_update(index_elements=["name", "period"], set_={"n": Use.n + 1})
        n = session.scalars(insert.returning(Use.n), execution_options={"populate_existing": True}).one()
        if use.most and n > use.most and use.refuses:
            raise Limited(use.message, use.seconds)


def _insert(session: Session, table: type[Any]) -> Any:
    """With ON CONFLICT, which both databases have."""
    dialect = session.get_bind().dialect.name
    return (postgresql if dialect == "postgresql" else sqlite).insert(table)


def _own(session: Session, id: str, person: str) -> Battle:
    battle = session.get(Battle, id, with_for_update=True)
    if battle is None or battle.person != person:
        raise NotFoundError(GONE, param="battle")
    return battle


def _newest_turns(session: Session, id: str) -> list[Turn]:
    """The newest attempt at each turn, in order."""
    rows = session.scalars(select(Turn).where(Turn.battle == id).order_by(Turn.number, Turn.attempt))
    return list({turn.number: turn for turn in rows}.values())


def _past(session: Session, id: str, before: int) -> list[tuple[str, str, str]]:
    past = []
    for turn in _newest_turns(session, id):
        if turn.number >= before:
            break
        key = (Answer.battle == id, Answer.number == turn.number, Answer.attempt == turn.attempt)
        texts = {answer.side: answer.text or "" for answer in session.scalars(select(Answer).where(*key))}
        past.append((turn.question or "", texts["a"], texts["b"]))
    return past


def _vote_of(session: Session, battle: Battle, ticket: Ticket, person: str, winner: int) -> Vote:
    first = select(Turn.question).where(Turn.battle == battle.id, Turn.number == 1).order_by(Turn.attempt.desc())
    question = session.scalars(first).first() or ""
    newest = {(turn.number, turn.attempt) for turn in _newest_turns(session, battle.id)}
    rows = session.scalars(select(Answer).where(Answer.battle == battle.id))
    answers = [each for each in rows if (each.number, each.attempt) in newest]
    sides = [style_of_answers([each.text or "" for each in answers if each.side == side]) for side in "ab"]
    return Vote(
        battle=battle.id,
        turn=ticket.turn,
        attempt=ticket.attempt,
        winner=winner,
        model_a=battle.model_a,
        model_b=battle.model_b,
        chance=battle.chance,
        anony=battle.mode == "battle",
        person=person,
        address=battle.address,
        prompt=hashlib.sha256(question.encode("utf-8", "surrogatepass")).hexdigest(),
        names_maker=any(each.names_maker for each in answers),
        style={name: [int(side[k]) for side in sides] for k, name in enumerate(STYLE)},
        state=COUNTS,
    )


def _next_number(session: Session) -> int:
    """The number of the vote that is being written: whoever has read up to one has read all before it."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _COUNTING})
    return (session.scalars(select(Vote.number).order_by(Vote.number.desc()).limit(1)).first() or 0) + 1
