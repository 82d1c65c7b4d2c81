"""What alembic runs to take steps: on the connection that `migrate` hands over."""

from __future__ import annotations

from alembic import context


def take_steps() -> None:
    """Bring the database to where alembic was told to."""
    given = context.config.attributes
    context.configure(connection=given["connection"], version_table=given["version_table"])
    with context.begin_transaction():
        context.run_migrations()


if __name__ == "env_py":  # as alembic calls it
    take_steps()
