"""Steps from one state of a database to the next, taken when it is opened.

Each package that keeps something has a folder of steps, one file each, and a table that says how far a database is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from camelid.errors import OptionError

HERE = Path(__file__).parent
CONVERSATIONS = HERE / "versions"
TABLE = "alembic_version"


def migrate(connection: Connection, database: str, versions: Path, table: str, copy: Callable[[str], None]) -> None:
    """Bring a package's tables to their newest state.

    Args:
        connection: in a transaction, which is left open.
        database: what messages call it.
        versions: the package's steps.
        table: where the package's state is kept.
        copy: called with the old state before an older database is changed.

    Raises:
        OptionError: a newer camelid has written it.
        sqlalchemy.exc.SQLAlchemyError: it is no database, or cannot be written.
    """
    config = _config(versions)
    script = ScriptDirectory.from_config(config)
    newest = script.get_current_head()
    current = MigrationContext.configure(connection, opts={"version_table": table}).get_current_revision()
    if current == newest:
        return
    known = {step.revision for step in script.walk_revisions()}
    if current is not None and current not in known:
        raise OptionError(
            f"{database}: a newer camelid has written it (state {current}, this one knows {newest}); "
            "update camelid, or keep conversations in another file"
        )
    if current is not None:
        copy(current)
    config.attributes.update(connection=connection, version_table=table)
    command.upgrade(config, "head")


def _config(versions: Path) -> Config:
    config = Config()
    for name, value in (("script_location", HERE), ("version_locations", versions)):
        config.set_main_option(name, str(value).replace("%", "%%"))
    for name in ("path_separator", "version_path_separator"):  # alembic before 1.16 reads the second name
        config.set_main_option(name, "newline")  # a folder's name may have spaces and colons
    return config
