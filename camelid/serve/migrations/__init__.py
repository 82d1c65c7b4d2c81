"""Steps from one state of the database to the next, and taking them when a database is opened.

Each file is one step, named by the order and what it does; alembic reads them. A database that is older is copied
beside itself before it is changed.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from camelid.errors import OptionError

STEPS = Path(__file__).parent


def migrate(engine: Engine, path: Path, steps: Path = STEPS) -> None:
    """Bring the SQLite file `path`, which `engine` opens, to the newest state.

    Raises:
        OptionError: a newer camelid has written it.
        sqlalchemy.exc.SQLAlchemyError: it is no database, or cannot be written.
    """
    script = ScriptDirectory(str(steps), version_locations=[str(steps)])
    newest = script.get_current_head()
    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    if current == newest:
        return
    known = {step.revision for step in script.walk_revisions()}
    if current is not None and current not in known:
        raise OptionError(
            f"{path}: a newer camelid has written it (state {current}, this one knows {newest}); "
            "update camelid, or keep conversations in another file"
        )
    if current is not None:
        _copy(path, path.with_name(f"{path.name}.{current}.bak"))
    with engine.begin() as connection:
        _upgrade(connection, script, str(newest))


def _upgrade(connection: Connection, script: ScriptDirectory, newest: str) -> None:
    def steps(revision: Any, context: Any) -> Any:
        return script._upgrade_revs(newest, revision)

    with EnvironmentContext(Config(), script, fn=steps) as environment:
        environment.configure(connection=connection)
        environment.run_migrations()


def _copy(source: Path, target: Path) -> None:
    """A consistent copy, what the write-ahead log still holds included; written beside, then renamed."""
    beside = target.with_name(target.name + ".part")
    beside.unlink(missing_ok=True)
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(beside)) as new:
        old.backup(new)
    beside.replace(target)
