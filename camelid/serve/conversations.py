"""Conversations that are kept: in one SQLite file, written by one thread beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Engine, create_engine, event, select, tuple_, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from camelid.errors import ResourceError
from camelid.serve.errors import ApiError
from camelid.serve.migrations import migrate
from camelid.serve.tables import Conversation, Message, Role, State, now

T = TypeVar("T")
BUSY_SECONDS = 5  # how long another process may hold the file


@dataclass(frozen=True)
class Tree:
    """A conversation with all its messages, in the order in which they were made."""

    conversation: Conversation
    messages: list[Message]

    @cached_property
    def by_id(self) -> dict[int, Message]:
        return {message.id: message for message in self.messages}

    @cached_property
    def below(self) -> dict[int | None, list[int]]:
        """Ids of the messages below each message, and below None those that begin the conversation; oldest first."""
        found: dict[int | None, list[int]] = {}
        for message in self.messages:
            found.setdefault(message.parent, []).append(message.id)
        return found

    def path(self, leaf: int | None) -> list[Message]:
        """The messages from the first one to `leaf`; none for None."""
        found = []
        while leaf is not None:
            found.append(self.by_id[leaf])
            leaf = found[-1].parent
        return found[::-1]

    def versions(self, message: Message) -> list[int]:
        """Ids of the messages that stand at the same place, this one among them, oldest first."""
        return self.below[message.parent]

    def newest_leaf(self, message: int) -> int:
        """The end of the branch that goes on from a message, by its newest versions."""
        while message in self.below:
            message = self.below[message][-1]
        return message


class Store:
    """All conversations; open it before anything else is asked of it.

    Methods that wait run in the store's own thread, and raise ResourceError when the file cannot be written. What they
    return belongs to nobody: changing it changes nothing that is kept.

    Args:
        path: of the file; it is made with its folder if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine: Engine | None = None
        self._thread = ThreadPoolExecutor(1, "conversations")

    def open(self) -> None:
        """Make or open the file, and bring it up to date; nothing happens if that was done.

        Raises:
            OptionError: a newer camelid has written the file.
            ResourceError: it is no database, or the place cannot be written.
        """
        if self._engine is not None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            engine = _engine(self.path)
            migrate(engine, self.path)
            with Session(engine) as session, session.begin():  # whoever wrote these is gone
                session.execute(update(Message).where(Message.state == "streaming").values(state="stopped"))
        except (OSError, SQLAlchemyError) as error:
            raise ResourceError(f"{self.path}: {_reason(error)}; conversations cannot be kept there") from None
        self._engine = engine

    async def close(self) -> None:
        """Finish what is being written; it can be opened again."""
        await asyncio.to_thread(self._thread.shutdown)
        self._thread = ThreadPoolExecutor(1, "conversations")
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    async def conversations(self, before: str | None = None, limit: int = 100) -> list[Conversation]:
        """Up to `limit`, the latest first: the first ones, or those that follow `before`.

        Raises:
            ApiError: 404, there is none with the id `before`.
        """
        place = (Conversation.updated, Conversation.created, Conversation.id)

        def work(session: Session) -> list[Conversation]:
            rows = select(Conversation).order_by(*(column.desc() for column in place)).limit(limit)
            if before is not None:
                last = _get(session, before)
                rows = rows.where(tuple_(*place) < (last.updated, last.created, last.id))
            return list(session.scalars(rows))

        return await self._do(work)

    async def create(self, model: str, **values: Any) -> Conversation:
        """Begin one; `values` are columns of `Conversation`."""
        made = Conversation(model=model, **values)

        def work(session: Session) -> Conversation:
            session.add(made)
            return made

        return await self._do(work)

    async def tree(self, id: str) -> Tree:
        """One conversation.

        Raises:
            ApiError: 404, there is none with this id.
        """

        def work(session: Session) -> Tree:
            messages = select(Message).where(Message.conversation == id).order_by(Message.id)
            return Tree(_get(session, id), list(session.scalars(messages)))

        return await self._do(work)

    async def change(self, id: str, **values: Any) -> Conversation:
        """Set columns of a conversation.

        Raises:
            ApiError: 404, there is none with this id.
        """

        def work(session: Session) -> Conversation:
            conversation = _get(session, id)
            for name, value in values.items():
                setattr(conversation, name, value)
            return conversation

        return await self._do(work)

    async def delete(self, id: str) -> None:
        """Remove a conversation with its messages.

        Raises:
            ApiError: 404, there is none with this id.
        """
        await self._do(lambda session: session.delete(_get(session, id)))

    async def add(
        self,
        conversation: str,
        parent: int | None,
        role: Role,
        content: str,
        *,
        model: str | None = None,
        state: State = "complete",
    ) -> Message:
        """Add a message below `parent`; it becomes the end of the branch that is shown.

        Raises:
            ApiError: 404, there is no such conversation.
        """
        made = Message(conversation=conversation, parent=parent, role=role, content=content, model=model, state=state)

        def work(session: Session) -> Message:
            owner = _get(session, conversation)
            session.add(made)
            session.flush()
            owner.leaf, owner.updated = made.id, now()
            return made

        return await self._do(work)

    async def save(self, message: int, **values: Any) -> None:
        """Set columns of a message; if it was deleted meanwhile, nothing happens."""
        await self._do(lambda session: session.execute(update(Message).where(Message.id == message).values(**values)))

    async def _do(self, work: Callable[[Session], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._work, work)

    def _work(self, work: Callable[[Session], T]) -> T:
        try:
            with Session(self._engine, expire_on_commit=False) as session, session.begin():
                return work(session)
        except SQLAlchemyError as error:
            raise ResourceError(f"{self.path}: {_reason(error)}; this was not kept") from None


def _get(session: Session, id: str) -> Conversation:
    found = session.get(Conversation, id)
    if found is None:
        raise ApiError(404, f"conversation: {id!r} is not here; it may have been deleted", "not_found", "conversation")
    return found


def _engine(path: Path) -> Engine:
    """SQLite with a write-ahead log: a kill loses no transaction that was finished."""
    engine = create_engine(
        URL.create("sqlite", database=str(path)), connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False}
    )

    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, those that change tables too
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _reason(error: Exception) -> str:
    if isinstance(error, DBAPIError):
        return str(error.orig)
    return error.strerror or str(error) if isinstance(error, OSError) else " ".join(str(error).split())
