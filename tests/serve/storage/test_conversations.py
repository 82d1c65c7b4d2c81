"""Conversations that are kept: trees, kills, full disks, older and newer files."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TypeVar

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from camelid.errors import NotFoundError, OptionError, ResourceError
from camelid.serve.storage.conversations import Store
from camelid.serve.storage.database import Database, file_url
from camelid.serve.storage.migrations import CONVERSATIONS
from camelid.serve.storage.tables import Table

T = TypeVar("T")


def with_store(path: Path, work: Callable[[Store], Awaitable[T]]) -> T:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Store]:
        store = Store(Database(file_url(path)))
        store.open()
        try:
            yield store
        finally:
            await store.close()

    async def run() -> T:
        async with opened() as store:
            return await work(store)

    return asyncio.run(run())


async def talk(store: Store) -> tuple[str, list[int]]:
    """q1 → a1, a2 (a second answer) and q2 (an edited question) → a3."""
    id = (await store.create("m", system="Be brief.", params={"temperature": 0})).id
    q1 = await store.add(id, None, "user", "One?")
    a1 = await store.add(id, q1.id, "assistant", "1", model="m")
    a2 = await store.add(id, q1.id, "assistant", "uno", model="m")
    q2 = await store.add(id, None, "user", "Three?")
    a3 = await store.add(id, q2.id, "assistant", "3", model="m")
    return id, [q1.id, a1.id, a2.id, q2.id, a3.id]


def test_messages_are_a_tree(tmp_path):
    async def work(store: Store) -> None:
        id, (q1, a1, a2, q2, a3) = await talk(store)
        tree = await store.tree(id)
        assert tree.conversation.leaf == a3
        assert [m.content for m in tree.path(a3)] == ["Three?", "3"]
        assert [m.content for m in tree.path(a1)] == ["One?", "1"]
        assert tree.versions(tree.by_id[a1]) == [a1, a2]
        assert tree.versions(tree.by_id[q2]) == [q1, q2]
        assert tree.newest_leaf(q1) == a2
        assert tree.path(None) == []

    with_store(tmp_path / "deep" / "serve.db", work)


def test_what_was_written_is_there_when_opened_again(tmp_path):
    path = tmp_path / "a?b#c.db"
    id, ids = with_store(path, talk)

    async def work(store: Store) -> None:
        tree = await store.tree(id)
        assert list(tree.by_id) == ids
        assert tree.conversation.params == {"temperature": 0}
        assert tree.conversation.system == "Be brief."

    with_store(path, work)
    assert path.is_file()


def test_change_delete_and_order(tmp_path):
    async def work(store: Store) -> None:
        first, ids = await talk(store)
        second = (await store.create("m")).id
        assert [c.id for c in await store.conversations()] == [second, first]
        await store.add(first, ids[-1], "user", "More?")
        assert [c.id for c in await store.conversations()] == [first, second]
        await store.change(first, title="Counting")
        assert (await store.tree(first)).conversation.title == "Counting"
        await store.delete(first)
        assert [c.id for c in await store.conversations()] == [second]
        for refused in (store.tree(first), store.delete(first), store.change(first, title=""), talk_on(store, first)):
            with pytest.raises(NotFoundError, match="not here"):
                await refused
        await store.save(ids[0], content="late")  # its conversation is gone, which is no error

    async def talk_on(store: Store, id: str) -> None:
        await store.add(id, None, "user", "?")

    with_store(tmp_path / "serve.db", work)
    with closing(sqlite3.connect(tmp_path / "serve.db")) as connection:
        assert connection.execute("SELECT count(*) FROM messages").fetchone() == (0,)


def test_migrations_make_the_tables_of_the_code(tmp_path):
    async def work(store: Store) -> list[object]:
        with store.database.engine.connect() as connection:
            return compare_metadata(MigrationContext.configure(connection), Table.metadata)

    assert with_store(tmp_path / "serve.db", work) == []


NEXT_STEP = '''"""A column more."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0002", "0001"


def upgrade() -> None:
    op.add_column("conversations", sa.Column("colour", sa.String))
    {then}
'''


def newer_steps(tmp_path: Path, then: str = "") -> Path:
    steps = tmp_path / "steps"
    shutil.copytree(CONVERSATIONS, steps, ignore=shutil.ignore_patterns("__pycache__"))
    (steps / "step_0002_colour.py").write_text(NEXT_STEP.format(then=then), encoding="utf-8")
    return steps


def migrate(path: Path, versions: Path) -> None:
    database = Database(file_url(path))
    database.open()
    try:
        database.migrate(versions)
    finally:
        asyncio.run(database.close())


def columns(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {row[1] for row in connection.execute("PRAGMA table_info(conversations)")}


def test_an_older_file_is_copied_and_migrated(tmp_path):
    path = tmp_path / "serve.db"
    id, _ = with_store(path, talk)
    migrate(path, newer_steps(tmp_path))
    assert "colour" in columns(path)
    copy = tmp_path / "serve.db.0001.bak"
    assert "colour" not in columns(copy)
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT id FROM conversations").fetchall() == [(id,)]


def test_a_migration_that_fails_changes_nothing(tmp_path):
    path = tmp_path / "serve.db"
    with_store(path, talk)
    with pytest.raises(RuntimeError, match="halfway"):
        migrate(path, newer_steps(tmp_path, 'raise RuntimeError("halfway")'))
    assert "colour" not in columns(path)


def test_a_newer_file_is_refused(tmp_path):
    path = tmp_path / "serve.db"
    with_store(path, talk)
    migrate(path, newer_steps(tmp_path))
    with pytest.raises(OptionError, match="newer camelid"):
        Store(Database(file_url(path))).open()


@pytest.mark.parametrize("content", [b"not a database, only words" * 100, b"SQLite format 3\0 and then nonsense"])
def test_other_files_are_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "serve.db"
    path.write_bytes(content)
    with pytest.raises(ResourceError, match=r"serve\.db: .*conversations cannot be kept there"):
        Store(Database(file_url(path))).open()
    assert path.read_bytes() == content


def test_a_place_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot be kept there"):
        Store(Database(file_url(tmp_path / "file" / "serve.db"))).open()


WRITER = """
import asyncio, sys
from pathlib import Path
from camelid.serve.storage.conversations import Store
from camelid.serve.storage.database import Database, file_url

async def main():
    store = Store(Database(file_url(Path(sys.argv[1]))))
    store.open()
    id = (await store.create("m")).id
    question = await store.add(id, None, "user", "Count.")
    answer = await store.add(id, question.id, "assistant", "", state="streaming")
    for n in range(1_000_000):
        await store.save(answer.id, content=" ".join(map(str, range(n))))
        print(n, flush=True)

asyncio.run(main())
"""


@pytest.mark.slow
def test_killed_while_writing(tmp_path):
    path = tmp_path / "serve.db"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if int(line) == 200:
                writer.send_signal(signal.SIGKILL)
                break

    async def work(store: Store) -> None:
        (conversation,) = await store.conversations()
        question, answer = (await store.tree(conversation.id)).messages
        assert (question.content, answer.state) == ("Count.", "stopped")
        assert answer.content.startswith(" ".join(map(str, range(200))))

    with_store(path, work)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_full_disk_is_one_error_and_harms_nothing(tmp_path):
    async def work(store: Store) -> None:
        id, ids = await talk(store)
        with store.database.engine.connect() as connection:  # the pool hands out the same connection again
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(ResourceError, match=r"serve\.db: database or disk is full; this was not kept"):
            await store.save(ids[1], content="x" * 1_000_000)
        tree = await store.tree(id)
        assert tree.by_id[ids[1]].content == "1"
        await store.save(ids[1], content="short")
        assert (await store.tree(id)).by_id[ids[1]].content == "short"

    with_store(tmp_path / "serve.db", work)
