"""Conversations that are kept: trees of messages in a database."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import select, tuple_, update
from sqlalchemy.orm import Session

from camelid.errors import NotFoundError
from camelid.serve.storage.database import Database
from camelid.serve.storage.migrations import CONVERSATIONS
from camelid.serve.storage.tables import Conversation, Role, State, StoredMessage, now


@dataclass(frozen=True)
class Tree:
    """A conversation with all its messages, in the order in which they were made."""

    conversation: Conversation
    messages: list[StoredMessage]

    @cached_property
    def by_id(self) -> dict[int, StoredMessage]:
        return {message.id: message for message in self.messages}

    @cached_property
    def below(self) -> dict[int | None, list[int]]:
        """Ids of the messages below each message, and below None those that begin the conversation; oldest first."""
        below: dict[int | None, list[int]] = {}
        for message in self.messages:
            below.setdefault(message.parent, []).append(message.id)
        return below

    def path(self, leaf: int | None) -> list[StoredMessage]:
        """The messages from the first one to `leaf`; none for None."""
        path = []
        while leaf is not None:
            path.append(self.by_id[leaf])
            leaf = path[-1].parent
        return path[::-1]

    def versions(self, message: StoredMessage) -> list[int]:
        """Ids of the messages that stand at the same place, this one among them, oldest first."""
        return self.below[message.parent]

    def newest_leaf(self, message: int) -> int:
        """The end of the branch that goes on from a message, by its newest versions."""
        while message in self.below:
            message = self.below[message][-1]
        return message


class Store:
    """All conversations; open it before anything else is asked of it.

    Methods that wait work off the event loop, and raise ResourceError when the database cannot be written. What they
    return belongs to nobody: changing it changes nothing that is kept.

    Args:
        database: where they are kept.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self._is_open = False

    def open(self) -> None:
        """Open the database, and bring its tables up to date; nothing happens if that was done.

        Raises:
            OptionError: a newer camelid has written them.
            ResourceError: it is no database, cannot be reached, or the place cannot be written.
        """
        if self._is_open:
            return
        try:
            with self.database.errors("conversations cannot be kept there"):
                self.database.open()
                self.database.migrate(CONVERSATIONS)
                with Session(self.database.engine) as session, session.begin():  # whoever wrote these is gone
                    session.execute(
                        update(StoredMessage).where(StoredMessage.state == "streaming").values(state="stopped")
                    )
        except Exception:
            self.database.dispose()
            raise
        self._is_open = True

    async def close(self) -> None:
        """Finish what is being written, and close the database; it can be opened again."""
        await self.database.close()
        self._is_open = False

    async def conversations(self, before: str | None = None, limit: int = 100) -> list[Conversation]:
        """Up to `limit`, the latest first: the first ones, or those that follow `before`.

        Raises:
            NotFoundError: there is none with the id `before`.
        """
        place = (Conversation.updated, Conversation.created, Conversation.id)

        def work(session: Session) -> list[Conversation]:
            rows = select(Conversation).order_by(*(column.desc() for column in place)).limit(limit)
            if before is not None:
                last = _get(session, before)
                rows = rows.where(tuple_(*place) < (last.updated, last.created, last.id))
            return list(session.scalars(rows))

        return await self.database.run(work)

    async def create(self, model: str, **values: Any) -> Conversation:
        """Begin one; `values` are columns of `Conversation`."""
        made = Conversation(model=model, **values)

        def work(session: Session) -> Conversation:
            session.add(made)
            return made

        return await self.database.run(work)

    async def tree(self, id: str) -> Tree:
        """One conversation.

        Raises:
            NotFoundError: there is none with this id.
        """

        def work(session: Session) -> Tree:
            messages = select(StoredMessage).where(StoredMessage.conversation == id).order_by(StoredMessage.id)
            return Tree(_get(session, id), list(session.scalars(messages)))

        return await self.database.run(work)

    async def change(self, id: str, **values: Any) -> Conversation:
        """Set columns of a conversation.

        Raises:
            NotFoundError: there is none with this id.
        """

        def work(session: Session) -> Conversation:
            conversation = _get(session, id, to_change=True)
            for name, value in values.items():
                setattr(conversation, name, value)
            return conversation

        return await self.database.run(work)

    async def delete(self, id: str) -> None:
        """Remove a conversation with its messages.

        Raises:
            NotFoundError: there is none with this id.
        """
        await self.database.run(lambda session: session.delete(_get(session, id, to_change=True)))

    async def add(
        self,
        conversation: str,
        parent: int | None,
        role: Role,
        content: str,
        *,
        model: str | None = None,
        state: State = "complete",
    ) -> StoredMessage:
        """Add a message below `parent`; it becomes the end of the branch that is shown.

        Raises:
            NotFoundError: there is no such conversation.
        """
        made = StoredMessage(
            conversation=conversation, parent=parent, role=role, content=content, model=model, state=state
        )

        def work(session: Session) -> StoredMessage:
            owner = _get(session, conversation, to_change=True)
            session.add(made)
            session.flush()
            owner.leaf, owner.updated = made.id, now()
            return made

        return await self.database.run(work)

    async def save(self, message: int, **values: Any) -> None:
        """Set columns of a message; if it was deleted meanwhile, nothing happens."""
        change = update(StoredMessage).where(StoredMessage.id == message).values(**values)
        await self.database.run(lambda session: session.execute(change))


def _get(session: Session, id: str, *, to_change: bool = False) -> Conversation:
    conversation = session.get(Conversation, id, with_for_update=to_change)
    if conversation is None:
        message = f"conversation: {id!r} is not here; it may have been deleted"
        raise NotFoundError(message, param="conversation")
    return conversation
