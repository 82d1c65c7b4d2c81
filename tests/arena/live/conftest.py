"""An arena whose models answer what the tests say, as quickly as they say; in SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import NullPool, create_engine, text

from camelid.arena.app import arena_app
from camelid.arena.config import ArenaConfig, ArenaModel, LimitOptions, PaceOptions
from camelid.arena.live.contenders import NoAnswer, Record
from camelid.serve.models import Models
from camelid.serve.options import ServeOptions
from camelid.serve.storage import database as databases
from camelid.tokens.templates.message import Message
from tests.serve.storage.test_postgresql import cluster

__all__ = ["cluster"]

ANSWER = "Llamas live in the Andes, and **sleep** on their feet.\n\n- Peru\n- Bolivia\n"
MODELS = (
    ArenaModel(name="guanaco-quick", organisation="Andes Lab", licence="Apache-2.0", cutoff="2023-03", url="http://a/v1"),
    ArenaModel(name="vicuna-slow", organisation="Pampas & Co", licence="secret", link="https://pampas.test", url="http://b/v1"),
)  # fmt: skip
PACE = PaceOptions(tick=0.01, characters=40, start=0.02, hold=0.05)


class Fake:
    """A contender.

    Args:
        model: its row.
        text: what it answers.
        pause: seconds between characters.

    Attributes:
        fails: what it fails with after some pieces; `hangs` says nothing for ever.
        asked: messages that it got.
    """

    def __init__(self, model: ArenaModel, text: str = ANSWER, pause: float = 0.0) -> None:
        self.model, self.text, self.pause = model, text, pause
        self.made_with: Mapping[str, Any] = {"url": model.url}
        self.fails: str | None = None
        self.hangs = False
        self.asked: list[Sequence[Message]] = []

    async def answer(
        self, messages: Sequence[Message], sampling: Mapping[str, Any], seed: int, record: Record
    ) -> AsyncGenerator[str, None]:
        self.asked.append(messages)
        record.n_tokens = 4321
        for at in range(0, len(self.text), 4):
            yield self.text[at : at + 4]
            await asyncio.sleep(self.pause)
            if self.hangs:
                await asyncio.sleep(1000)
            if self.fails is not None and at >= 8:
                raise NoAnswer(self.fails)
        record.finish_reason = "stop"


class Arena:
    """An arena with its contenders."""

    def __init__(self, database: str, config: ArenaConfig | None = None, **choices: Any) -> None:
        self.config = config or ArenaConfig(models=MODELS, pace=PACE, limits=LimitOptions(first_seconds=5))
        self.fakes = {model.name: Fake(model) for model in self.config.models}
        self.options = ServeOptions(database=database, port=0)
        self.choices = choices

    def app(self) -> FastAPI:
        return arena_app(self.config, Models.none(), self.options, self.fakes, **self.choices)

    @contextmanager
    def client(self) -> Iterator[TestClient]:
        with TestClient(self.app(), base_url="http://127.0.0.1") as client:
            yield client


def begin(client: TestClient, **body: Any) -> str:
    return client.post("/arena/api/battles", json=body).json()["id"]


def events(response: Any) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    return [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]


def ask(client: TestClient, id: str, text: str = "Where do llamas live?") -> list[dict[str, Any]]:
    return events(client.post(f"/arena/api/battles/{id}/messages", json={"text": text}))


def ready(client: TestClient) -> tuple[str, str]:
    """A battle that can be voted on, and its ticket."""
    id = begin(client)
    return id, ask(client, id)[-1]["ticket"]


def vote(client: TestClient, ticket: str, choice: str = "A") -> Any:
    return client.post("/arena/api/votes", json={"ticket": ticket, "vote": choice})


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'arena.db'}"
    at, name = request.getfixturevalue("cluster"), f"arena_{uuid4().hex}"
    engine = databases._postgresql(databases._checked(f"{at}/postgres"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return f"{at}/{name}"


def rows(database: str, query: str) -> list[tuple[Any, ...]]:
    engine = create_engine(databases._checked(database), poolclass=NullPool)
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


@pytest.fixture
def arena(database: str) -> Arena:
    return Arena(database)


@pytest.fixture
def client(arena: Arena) -> Iterator[TestClient]:
    with arena.client() as it:
        yield it
