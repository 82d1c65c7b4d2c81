"""The tables of the live arena. A change here needs a step in migrations/.

Times are seconds since 1970, as votes have them everywhere in the arena.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from sqlalchemy import JSON, BigInteger, Double, ForeignKeyConstraint, MetaData, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from camelid.arena.battles import COUNTS

MIGRATIONS = Path(__file__).parent / "migrations" / "versions"
VERSIONS = "arena_alembic_version"  # the table that says how far a database is

Mode = Literal["battle", "side-by-side"]
TurnState = Literal["answering", "complete", "failed"]


class Table(DeclarativeBase):
    """Base of the tables; constraints get names, so that migrations can speak of them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
        }
    )
    type_annotation_map = {dict[str, Any]: JSON, Mode: String(16), TurnState: String(16), float: Double}  # noqa: RUF012


class Secret(Table):
    """A key that all processes of an arena share: `signing`, and for each day one that hashes addresses."""

    __tablename__ = "arena_secrets"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(String(128))
    made: Mapped[float]


class Battle(Table):
    """A conversation of one person with two models.

    `person` and `address` are keyed hashes, None once the person had it deleted; models are None until the first
    message; `chance` is the pair's when it was drawn; `turn` and `attempt` name the newest row of `Turn`.
    """

    __tablename__ = "arena_battles"

    id: Mapped[str] = mapped_column(String(32), primary_key=True, default=lambda: uuid4().hex)
    mode: Mapped[Mode]
    person: Mapped[str | None] = mapped_column(String(64), index=True)
    address: Mapped[str | None] = mapped_column(String(64), default=None)
    model_a: Mapped[str | None] = mapped_column(default=None)
    model_b: Mapped[str | None] = mapped_column(default=None)
    chance: Mapped[float | None] = mapped_column(default=None)
    turn: Mapped[int] = mapped_column(default=0)
    attempt: Mapped[int] = mapped_column(default=0)
    shared: Mapped[bool] = mapped_column(default=False)
    made: Mapped[float] = mapped_column(index=True)


class Turn(Table):
    """A question with both answers; each time they are written anew is an attempt of its own.

    `reason` is for operators: why it failed; `held` says how long the common pace had to wait for a model, in seconds.
    """

    __tablename__ = "arena_turns"
    __table_args__ = (ForeignKeyConstraint(["battle"], ["arena_battles.id"], ondelete="CASCADE"),)

    battle: Mapped[str] = mapped_column(String(32), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    question: Mapped[str | None]
    state: Mapped[TurnState] = mapped_column(default="answering")
    reason: Mapped[str | None] = mapped_column(default=None)
    held: Mapped[float] = mapped_column(default=0.0)
    made: Mapped[float]


class Answer(Table):
    """What one side wrote, and what is needed to have it written again.

    `made_with` has the model's files with their SHA-256, camelid's version, backend and context, or an endpoint's URL;
    `prompt_hash` is SHA-256 of the prompt's ids, int32 in little endian; `names_maker`: cleaning looks at it.
    """

    __tablename__ = "arena_answers"
    __table_args__ = (
        ForeignKeyConstraint(
            ["battle", "number", "attempt"],
            ["arena_turns.battle", "arena_turns.number", "arena_turns.attempt"],
            ondelete="CASCADE",
        ),
    )

    battle: Mapped[str] = mapped_column(String(32), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    side: Mapped[str] = mapped_column(String(1), primary_key=True)
    model: Mapped[str] = mapped_column(index=True)
    text: Mapped[str | None]
    seed: Mapped[int] = mapped_column(BigInteger)
    sampling: Mapped[dict[str, Any]]
    made_with: Mapped[dict[str, Any]]
    prompt_hash: Mapped[str | None] = mapped_column(String(64), default=None)
    n_prompt: Mapped[int | None] = mapped_column(default=None)
    n_tokens: Mapped[int | None] = mapped_column(default=None)
    finish_reason: Mapped[str | None] = mapped_column(String(16), default=None)
    names_maker: Mapped[bool] = mapped_column(default=False)
    first_seconds: Mapped[float | None] = mapped_column(default=None)
    seconds: Mapped[float | None] = mapped_column(default=None)
    reason: Mapped[str | None] = mapped_column(default=None)


class Vote(Table):
    """A vote. It is never deleted: `state` is `counts`, or else `reason` says why it does not count.

    `number` counts votes from 1 in the order in which they were committed; `winner` is a place in `WINNERS`; `anony` is
    False where the models were chosen, side by side, which no rating counts. `prompt` is SHA-256 of the first question;
    `style` has pairs of counts, as `{"tokens": [A, B], …}`.
    """

    __tablename__ = "arena_votes"
    __table_args__ = (
        ForeignKeyConstraint(
            ["battle", "turn", "attempt"], ["arena_turns.battle", "arena_turns.number", "arena_turns.attempt"]
        ),
    )

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    battle: Mapped[str] = mapped_column(String(32), unique=True)
    turn: Mapped[int]
    attempt: Mapped[int]
    winner: Mapped[int]
    model_a: Mapped[str]
    model_b: Mapped[str]
    chance: Mapped[float | None]
    anony: Mapped[bool]
    person: Mapped[str | None] = mapped_column(String(64), index=True)
    address: Mapped[str | None] = mapped_column(String(64))
    prompt: Mapped[str | None] = mapped_column(String(64))
    names_maker: Mapped[bool]
    style: Mapped[dict[str, Any]] = mapped_column(default=dict)
    state: Mapped[str] = mapped_column(String(32), default=COUNTS)
    reason: Mapped[str | None] = mapped_column(default=None)
    made: Mapped[float] = mapped_column(index=True)


class Use(Table):
    """How often something was done in an hour or a day: the counts behind limits."""

    __tablename__ = "arena_uses"

    name: Mapped[str] = mapped_column(String(160), primary_key=True)
    period: Mapped[str] = mapped_column(String(16), primary_key=True)
    n: Mapped[int]
