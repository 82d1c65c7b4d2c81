"""What others bring to the application: routers, with parts, lifespans and tables of their own."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Annotated

import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text

from camelid.errors import NotFoundError
from camelid.serve.app import create_app
from camelid.serve.dependencies import DatabaseDep, ModelsDep, asked, part_of, provide
from camelid.serve.models import Models
from camelid.serve.options import ServeOptions
from camelid.serve.storage.database import Database
from camelid.serve.worker import Worker

STEP = '''"""Votes."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0001", None


def upgrade() -> None:
    op.create_table("votes", sa.Column("id", sa.Integer, primary_key=True), sa.Column("side", sa.String))
'''


class Tally:
    """A guest's own part."""

    word = "counted"


TallyDep = Annotated[Tally, Depends(asked(Tally))]


def guest(versions: Path) -> APIRouter:
    """A router that keeps votes."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        provide(app, Tally())
        await asyncio.to_thread(part_of(app, Database).migrate, versions, "alembic_version_votes")
        yield

    router = APIRouter(prefix="/votes", lifespan=lifespan)

    @router.post("/{side}")
    async def vote(side: str, database: DatabaseDep, models: ModelsDep, tally: TallyDep) -> dict[str, object]:
        if side == "neither":
            raise NotFoundError("side: there is none", param="side")
        insert = text("INSERT INTO votes (side) VALUES (:side)")
        await database.run(lambda session: session.execute(insert, {"side": side}))
        count = await database.run(lambda session: session.execute(text("SELECT count(*) FROM votes")).scalar_one())
        return {tally.word: count, "models": [worker.name for worker in models]}

    return router


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    folder = tmp_path / "a folder: 100%"
    folder.mkdir()
    (folder / "step_0001_votes.py").write_text(STEP, encoding="utf-8")
    return folder


def test_a_guest_has_routes_parts_and_tables(tiny_llama, tmp_path, versions):
    options = ServeOptions(data=tmp_path / "serve.db")
    for already in (0, 1):  # a database that has both packages' tables opens again
        worker = Worker("tiny", tiny_llama)
        app = create_app(Models([worker]), options, [guest(versions)])
        with TestClient(app, base_url="http://127.0.0.1") as client:
            assert client.post("/votes/left").json() == {"counted": already + 1, "models": ["tiny"]}
            refused = client.post("/votes/neither")
            assert refused.status_code == 404
            assert refused.json()["error"] == {
                "message": "side: there is none",
                "type": "invalid_request_error",
                "param": "side",
                "code": "not_found",
            }
            assert client.get("/api/conversations").json() == []
    with TestClient(create_app(Models([Worker("tiny", tiny_llama)]), options), base_url="http://127.0.0.1") as client:
        assert client.get("/api/conversations").json() == []  # and without the guest, too
    with closing(sqlite3.connect(tmp_path / "serve.db")) as connection:
        assert connection.execute("SELECT side FROM votes").fetchall() == [("left",), ("left",)]
