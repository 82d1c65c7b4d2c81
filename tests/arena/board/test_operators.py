"""The operators' pages: nothing without the key, and figures that are those of the database."""

from __future__ import annotations

import asyncio
import csv
import io
import time
from collections.abc import Iterator

import httpx2
import numpy as np
import pytest
from sqlalchemy import update

from camelid.arena.battles import Battles
from camelid.arena.board import operators
from camelid.arena.board.admin import COOKIE, ENVIRONMENT, Operators, admin_key
from camelid.arena.board.alone import board_app
from camelid.arena.board.live import LiveSource
from camelid.arena.board.routes import board_routers
from camelid.arena.live.tables import Battle, Vote
from camelid.serve.dependencies import provide
from camelid.serve.options import ServeOptions
from camelid.serve.storage.database import Database
from tests.arena.board.conftest import serving
from tests.arena.board.living import opened, put, sqlite
from tests.serve.storage.test_postgresql import cluster, url  # noqa: F401 - fixtures

KEY = "a key of operators"
N = 30


def filled(database: Database) -> Database:
    """Thirty votes half an hour apart until now; every third is left out, every tenth was side by side."""
    now = time.time()
    for number in range(1, N + 1):
        left_out = {} if number % 3 else {"state": "left out", "reason": "names its maker"}
        put(database, number, winner=number % 4, anony=bool(number % 10), **left_out)
        with database.engine.begin() as connection:
            made = now - 1800 * (N - number)
            connection.execute(update(Battle).where(Battle.id == f"{number:032x}").values(made=made))
            connection.execute(update(Vote).where(Vote.number == number).values(made=made))
    return database


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def database(request, tmp_path) -> Iterator[Database]:
    it = filled(opened(sqlite(tmp_path) if request.param == "sqlite" else request.getfixturevalue("url")))
    yield it
    it.dispose()


def test_figures_are_the_databases(database):
    now = time.time()
    hours = operators.traffic(database.engine, now)
    assert len(hours) == 168
    assert sum(hour.votes for hour in hours) == sum(hour.battles for hour in hours) == N
    assert all(hour.votes <= 3 for hour in hours)
    assert hours[-1].start <= now < hours[-1].start + 3600
    models = {each.model: each for each in operators.health(database.engine, now - 7 * 86400)}
    assert (models["y"].answers, models["y"].failed, models["y"].reasons) == (2 * N, N, (("upstream: 502", N),))
    assert (models["x"].answers, models["x"].failed, models["x"].reasons) == (2 * N, 0, ())
    assert models["x"].first_seconds == pytest.approx(0.2)
    assert operators.failed_turns(database.engine, now - 7 * 86400) == [("502", N)]
    assert operators.failed_turns(database.engine, now + 1) == []
    found = {(state, why, anony): n for state, why, anony, n in operators.states(database.engine)}
    assert found == {
        ("counts", "", True): 18,
        ("left out", "names its maker", True): 9,
        ("counts", "", False): 2,
        ("left out", "names its maker", False): 1,
    }


def test_drift():
    day, n = 20_000, 400
    winner = ["model_a"] * 260 + ["model_b"] * 140
    times = np.full(n, day * 86400.0 + 5)
    fair = ["model_a", "model_b", "tie"] * 30
    battles = Battles.of(
        ["x"] * (n + 90),
        ["y"] * (n + 90),
        winner + fair,
        time=np.concatenate([times, np.full(90, (day + 1) * 86400.0)]),
    )
    later, odd = operators.drift(battles)
    assert (odd.decided, odd.ties, odd.share, odd.is_odd) == (400, 0, 0.65, True)
    assert (later.decided, later.ties, later.share, later.is_odd) == (60, 30, 0.5, False)


def test_wilson():
    """Brown, Cai and DasGupta 2001: 95 % of 0 in 10 is 0 to .2775."""
    assert operators.wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=5e-5)
    assert operators.wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=5e-5)
    assert operators.wilson(0, 0) == (0.0, 1.0)


@pytest.fixture
def address(tmp_path) -> Iterator[str]:
    database = filled(opened(sqlite(tmp_path)))
    options = ServeOptions(port=0, shutdown_seconds=2)
    app = board_app(board_routers(LiveSource(), admin_key=KEY), options)
    provide(app, database)
    with serving(app, options) as it:
        yield it
    asyncio.run(database.close())


def test_nothing_without_the_key(address):
    with httpx2.Client(base_url=address) as client:
        for path in ("/arena/admin", "/arena/admin/votes.csv", "/arena/admin?fraud=1"):
            answer = client.get(path)
            assert answer.status_code == 401
            assert "Votes that count" not in answer.text
            assert "model_a" not in answer.text
        wrong = client.post("/arena/admin", data={"key": "another"})
        assert (wrong.status_code, "That is not the key" in wrong.text) == (401, True)
        assert COOKIE not in client.cookies
        forged = client.get("/arena/admin", headers={"Cookie": f"{COOKIE}=99999999999.abc"})
        assert forged.status_code == 401


def test_with_the_key(address):
    with httpx2.Client(base_url=address, follow_redirects=True) as client:
        html = client.post("/arena/admin", data={"key": KEY}).text
        for words in ("Votes in 24 hours", "names its maker", "upstream: 502", "Share of votes for side A"):
            assert words in html
        assert 'href="/arena/admin/votes.csv"' in html
        rows = list(csv.DictReader(io.StringIO(client.get("/arena/admin/votes.csv").text)))
        assert [int(row["id"]) for row in rows] == [at for at in range(1, N + 1) if at % 3 and at % 10]
        assert "person" not in str(rows)
        assert client.get("/leaderboard").text.count('<th scope="row">') == 2
        found = client.get("/arena/admin?fraud=1").text
        assert "Suspicious voters" in found
        assert "Of 5 voters" in found
    header = {"Authorization": f"Bearer {KEY}"}
    assert httpx2.get(f"{address}/arena/admin", headers=header).status_code == 200


def test_the_key(monkeypatch):
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    assert admin_key(None) is None
    monkeypatch.setenv(ENVIRONMENT, "from the environment")
    assert admin_key("given") == "given"
    assert admin_key(None) == "from the environment"


def test_without_a_key_nobody_comes_in():
    class Request:
        scope = {"headers": []}  # noqa: RUF012

    class Nothing:
        class following:  # noqa: N801
            source = None

    assert not Operators(Nothing(), None).allow(Request())
