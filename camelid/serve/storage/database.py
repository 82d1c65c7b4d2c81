"""The database of a server, made from a URL: SQLite in a file, or PostgreSQL; its threads are beside the event loop."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from camelid.errors import MissingError, OptionError, ResourceError
from camelid.serve.storage.migrations import TABLE, migrate

T = TypeVar("T")
BUSY_SECONDS = 5  # how long another process may hold a file, and a server may take to be reached
CONNECTIONS = 8  # to a PostgreSQL server
_MIGRATING = 0x63616D65  # the lock of PostgreSQL that a server holds while it migrates


def file_url(path: Path) -> URL:
    """The URL of a SQLite file."""
    return URL.create("sqlite", database=str(path))


class Database:
    """A database; open it before anything else is asked of it.

    Args:
        url: `sqlite:///FILE`, or `postgresql://USER@HOST/NAME`. A file is made with its folder if it is not there.

    Attributes:
        name: what messages call it: the file, or the URL without its password.

    Raises:
        OptionError: neither of them.
        MissingError: what speaks to PostgreSQL is not installed.
    """

    def __init__(self, url: str | URL) -> None:
        self._url = _checked(url)
        self.file = Path(self._url.database or "") if self._url.drivername == "sqlite" else None
        self.name = (
            str(self.file) if self.file is not None else self._url.set(drivername="postgresql").render_as_string()
        )
        self._engine: Engine | None = None
        self._threads = self._new_threads()

    @property
    def engine(self) -> Engine:
        """SQLAlchemy's engine of the open database."""
        assert self._engine is not None, "open it first"
        return self._engine

    @property
    def is_open(self) -> bool:
        """Whether `open` was called, and `close` not after it."""
        return self._engine is not None

    def open(self) -> None:
        """Be ready to connect; nothing happens if that was done.

        Raises:
            OSError: the folder of a file cannot be made.
        """
        if self._engine is None:
            if self.file is not None:
                self.file.parent.mkdir(parents=True, exist_ok=True)
            self._engine = _sqlite(self._url) if self.file is not None else _postgresql(self._url)

    def migrate(self, versions: Path, table: str = TABLE) -> None:
        """Bring the tables of a package to their newest state. A file that is older is copied beside itself first.

        Args:
            versions: folder of the package's steps, as alembic reads them.
            table: where the package's state is kept; each package has its own.

        Raises:
            OptionError: a newer camelid has written it.
            sqlalchemy.exc.SQLAlchemyError: it is no database, or cannot be written.
        """
        with self.engine.begin() as connection:
            if self.file is None:  # two servers that start at once
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATING})
            migrate(connection, self.name, versions, table, self._copy)

    async def close(self) -> None:
        """Finish what is being written; it can be opened again."""
        await asyncio.to_thread(self._threads.shutdown)
        self._threads = self._new_threads()
        self.dispose()

    def dispose(self) -> None:
        """Close all connections; nothing may be running."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    async def run(self, work: Callable[[Session], T], consequence: str = "this was not kept") -> T:
        """The result of `work` in a transaction of its own, off the event loop. What it returns belongs to nobody.

        Raises:
            ResourceError: the database refuses; the message says so, and the consequence.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(self._run, work, consequence))

    @contextmanager
    def errors(self, consequence: str) -> Iterator[None]:
        """Errors of the database in one line that ends with what follows from them.

        Raises:
            ResourceError: for each of them.
        """
        try:
            yield
        except (OSError, SQLAlchemyError) as error:
            raise ResourceError(f"{self.name}: {_reason(error)}; {consequence}") from None

    def _run(self, work: Callable[[Session], T], consequence: str) -> T:
        with self.errors(consequence), Session(self.engine, expire_on_commit=False) as session, session.begin():
            return work(session)

    def _new_threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1 if self.file is not None else CONNECTIONS, "database")

    def _copy(self, state: str) -> None:
        """A consistent copy of a file, what the write-ahead log still holds included; written beside, then renamed."""
        if self.file is None:
            return
        target = self.file.with_name(f"{self.file.name}.{state}.bak")
        part = target.with_name(target.name + ".part")
        part.unlink(missing_ok=True)
        with closing(sqlite3.connect(self.file)) as old, closing(sqlite3.connect(part)) as new:
            old.backup(new)
        part.replace(target)


def _checked(url: str | URL) -> URL:
    try:
        made = make_url(url)
    except (ArgumentError, ValueError):
        raise OptionError("database: is not a URL, such as postgresql://user@host/name", param="database") from None
    if made.drivername == "sqlite" and made.database:
        return made
    if made.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
        known = "sqlite:///FILE and postgresql://USER@HOST/NAME"
        raise OptionError(f"database: {made.drivername} is not supported; choose {known}", param="database")
    try:
        import psycopg  # noqa: F401
    except ImportError:
        raise MissingError("database: PostgreSQL needs psycopg: pip install 'camelid[postgres]'") from None
    return made.set(drivername="postgresql+psycopg")


def _sqlite(url: URL) -> Engine:
    """With a write-ahead log: a kill loses no transaction that was finished."""
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, those that change tables too
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _postgresql(url: URL) -> Engine:
    """A connection that a restart of the server has ended is made anew."""
    options = {"connect_timeout": BUSY_SECONDS, "application_name": "camelid"}
    return create_engine(url, pool_size=CONNECTIONS, pool_pre_ping=True, connect_args=options)


def _reason(error: Exception) -> str:
    if isinstance(error, DBAPIError):
        return " ".join(str(error.orig).split())
    return error.strerror or str(error) if isinstance(error, OSError) else " ".join(str(error).split())
