"""Conversations in PostgreSQL: a cluster of this test's own, which is skipped where the program is not installed."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from camelid.errors import CamelidError, NotFoundError, OptionError, ResourceError
from camelid.serve.options import ServeOptions
from camelid.serve.storage import database as databases
from camelid.serve.storage.conversations import Store
from camelid.serve.storage.database import Database
from camelid.serve.storage.migrations import CONVERSATIONS
from camelid.serve.storage.tables import Table
from tests.serve.conftest import wait_until

T = TypeVar("T")


def programs() -> Path:
    """Folder of PostgreSQL's programs."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = str(installed[-1]) if installed else shutil.which("initdb")
    if initdb is None:
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    return Path(initdb).parent


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The URL of a new cluster; root may not run one, so another user does."""
    bin = programs()
    user = "nobody" if os.geteuid() == 0 else None
    with socket.socket() as free, tempfile.TemporaryDirectory(prefix="camelid-pg-") as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        if user is not None:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        run = [str(bin / "initdb"), "-D", f"{folder}/data", "-U", "camelid", "--auth=trust", "--no-sync", "-E", "UTF8"]
        subprocess.run(run, user=user, cwd=folder, check=True, capture_output=True)
        flags = ["-p", str(port), "-k", folder, "-h", "127.0.0.1", "-F"]
        postgres = [str(bin / "postgres"), "-D", f"{folder}/data", *flags]
        with subprocess.Popen(postgres, user=user, cwd=folder, stderr=subprocess.DEVNULL) as server:
            try:
                ready = [str(bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
                wait_until(lambda: subprocess.run(ready, check=False).returncode == 0)
                yield f"postgresql://camelid@127.0.0.1:{port}"
            finally:
                server.send_signal(signal.SIGINT)  # does not wait for who is still connected


@pytest.fixture
def url(cluster: str, request: pytest.FixtureRequest) -> str:
    """A new database in it."""
    name = request.node.name.lower()[:60]
    engine = databases._postgresql(databases._checked(f"{cluster}/postgres"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    engine.dispose()
    return f"{cluster}/{name}"


def with_store(url: str, work: Callable[[Store], Awaitable[T]]) -> T:
    async def run() -> T:
        store = Store(Database(url))
        await asyncio.to_thread(store.open)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


def test_conversations_are_kept(url):
    async def begin(store: Store) -> str:
        id = (await store.create("m", system="Be brief.", params={"temperature": 0.5, "stop": ["é"]})).id
        question = await store.add(id, None, "user", "One? 🦙")
        answers = [await store.add(id, question.id, "assistant", word, model="m") for word in ("1", "uno")]
        await store.save(answers[1].id, usage={"prompt_tokens": 3}, seconds=0.25, state="streaming")
        return id

    id = with_store(url, begin)

    async def go_on(store: Store) -> None:
        tree = await store.tree(id)
        assert tree.conversation.params == {"temperature": 0.5, "stop": ["é"]}
        question, first, second = tree.messages
        assert (question.content, tree.versions(first)) == ("One? 🦙", [first.id, second.id])
        assert (second.usage, second.seconds, second.state) == ({"prompt_tokens": 3}, 0.25, "stopped")
        other = (await store.create("m")).id
        assert [it.id for it in await store.conversations()] == [other, id]
        assert [it.id for it in await store.conversations(before=other)] == [id]
        await store.change(id, title="Counting")
        await store.delete(other)
        assert [it.title for it in await store.conversations()] == ["Counting"]
        for refused in (store.tree(other), store.delete(other), store.add(other, None, "user", "?")):
            with pytest.raises(NotFoundError, match="not here"):
                await refused

    with_store(url, go_on)


def test_many_at_once(url):
    async def work(store: Store) -> None:
        id = (await store.create("m")).id
        await asyncio.gather(*(store.add(id, None, "user", str(n)) for n in range(40)))
        assert sorted(int(message.content) for message in (await store.tree(id)).messages) == list(range(40))
        results = await asyncio.gather(
            *(store.add(id, None, "user", "late") for _ in range(10)), store.delete(id), return_exceptions=True
        )
        assert all(not isinstance(it, Exception) or isinstance(it, NotFoundError) for it in results)

    with_store(url, work)


def test_migrations_make_the_tables_of_the_code(url):
    async def work(store: Store) -> list[object]:
        with store.database.engine.connect() as connection:
            return compare_metadata(MigrationContext.configure(connection), Table.metadata)

    assert with_store(url, work) == []


def test_servers_that_start_at_once(url):
    async def work() -> None:
        stores = [Store(Database(url)) for _ in range(4)]
        await asyncio.gather(*(asyncio.to_thread(store.open) for store in stores))
        await asyncio.gather(*(store.create("m") for store in stores))
        assert len(await stores[0].conversations()) == 4
        await asyncio.gather(*(store.close() for store in stores))

    asyncio.run(work())


def test_a_newer_state_is_refused(url, tmp_path):
    versions = tmp_path / "versions"
    shutil.copytree(CONVERSATIONS, versions, ignore=shutil.ignore_patterns("__pycache__"))
    step = 'revision, down_revision = "0002", "0001"\n\n\ndef upgrade() -> None:\n    pass\n'
    (versions / "step_0002.py").write_text(step, encoding="utf-8")

    async def work(store: Store) -> None:
        await asyncio.to_thread(store.database.migrate, versions)

    with_store(url, work)
    with pytest.raises(OptionError, match="a newer camelid has written it"):
        Store(Database(url)).open()


def test_a_server_that_does_not_answer():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ResourceError, match="conversations cannot be kept there") as caught:
        Store(Database(f"postgresql://me:secret@127.0.0.1:{port}/talk")).open()
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"database": "mysql://a@b/c"}, "database: mysql is not supported; choose"),
        ({"database": "talk.db"}, "database: is not a URL"),
        ({"database": "sqlite://"}, "database: sqlite is not supported; choose"),
        ({"database": "sqlite:///b.db", "data": "a.db"}, "database: data names a file already"),
    ],
)
def test_other_places_are_refused(options, words):
    with pytest.raises(CamelidError, match=words) as caught:
        Database(ServeOptions(**options).database or "")
    assert caught.value.param == "database"
