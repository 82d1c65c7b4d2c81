"""The tables of conversations. A change here needs a step in migrations/."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal
from uuid import uuid4

from sqlalchemy import JSON, ForeignKey, MetaData, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Role = Literal["user", "assistant"]
State = Literal["streaming", "complete", "stopped", "failed"]


class Table(DeclarativeBase):
    """Base of the tables; constraints get names, so that migrations can speak of them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {dict[str, Any]: JSON, Role: String(16), State: String(16)}  # noqa: RUF012


def now() -> datetime:
    """The time in UTC, without a zone, as SQLite keeps it."""
    return datetime.now(UTC).replace(tzinfo=None)


class Conversation(Table):
    """A conversation, and what its next answer is made with.

    `params` holds the sampling choices that differ from the model's own; `leaf` is the last message of the branch that
    is shown.
    """

    __tablename__ = "conversations"

    id: Mapped[str] = mapped_column(String(32), primary_key=True, default=lambda: uuid4().hex)
    title: Mapped[str] = mapped_column(default="")
    model: Mapped[str]
    system: Mapped[str] = mapped_column(default="")
    params: Mapped[dict[str, Any]] = mapped_column(default=dict)
    leaf: Mapped[int | None] = mapped_column(default=None)
    created: Mapped[datetime] = mapped_column(default=now)
    updated: Mapped[datetime] = mapped_column(default=now, index=True)


class StoredMessage(Table):
    """A question or an answer; those with the same parent are versions of each other.

    `usage` has prompt_tokens, completion_tokens, cached_tokens and tokens_per_second; `seconds` counts from question to
    end; `error` says why an answer failed.
    """

    __tablename__ = "messages"

    id: Mapped[int] = mapped_column(primary_key=True)
    conversation: Mapped[str] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"), index=True)
    parent: Mapped[int | None] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"), index=True)
    role: Mapped[Role]
    content: Mapped[str]
    model: Mapped[str | None] = mapped_column(default=None)
    state: Mapped[State] = mapped_column(default="complete", index=True)
    finish_reason: Mapped[str | None] = mapped_column(String(16), default=None)
    error: Mapped[str | None] = mapped_column(default=None)
    usage: Mapped[dict[str, Any]] = mapped_column(default=dict)
    seconds: Mapped[float | None] = mapped_column(default=None)
    created: Mapped[datetime] = mapped_column(default=now)
