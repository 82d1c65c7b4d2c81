"""Databases that go away, processes beside each other, clocks that jump."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from camelid.arena.live.clock import Clock
from camelid.arena.live.limits import Limits
from camelid.arena.live.store import Store
from camelid.arena.live.tables import VERSIONS, Table
from camelid.errors import OptionError, ResourceError
from camelid.serve.dependencies import part_of
from camelid.serve.storage.database import Database
from tests.arena.live.conftest import Arena, ready, rows, vote


@pytest.mark.parametrize("is_kept", [False, True])
def test_a_database_gone_in_the_middle_of_a_vote(arena: Arena, database, monkeypatch, is_kept):
    """Whether it took the vote before it went or not: the same ticket asks again, and the vote counts once."""
    with arena.client() as client:
        store = part_of(client.app, Store)
        _, ticket = ready(client)
        run, gone = store.database.run, ["now"]

        async def breaks(work, consequence="this was not kept"):
            if gone and not is_kept:
                gone.pop()
                raise ResourceError("postgresql://secret-host/arena: connection refused; the vote was not kept")
            done = await run(work, consequence)
            if gone:
                gone.pop()
                raise ResourceError("postgresql://secret-host/arena: server closed the connection")
            return done

        monkeypatch.setattr(store.database, "run", breaks)
        lost = vote(client, ticket)
        assert lost.status_code == 503
        assert "retry-after" in lost.headers
        assert "secret-host" not in lost.text
        assert vote(client, ticket).status_code == 200
    assert rows(database, "SELECT count(*) FROM arena_votes") == [(1,)]


def test_votes_at_the_same_time_from_two_processes(arena: Arena, database):
    """Two servers on one database: one vote for a ticket, numbers without gaps, and each knows the other's people."""
    with arena.client() as one, Arena(database).client() as two:
        tickets = []
        for _ in range(6):
            tickets.append(ready(one)[1])
        two.cookies.update(dict(one.cookies))
        with ThreadPoolExecutor(4) as pool:
            sent = [pool.submit(vote, client, ticket) for ticket in tickets for client in (one, two)]
            assert [each.result().status_code for each in sent] == [200] * 12
    assert rows(database, "SELECT number FROM arena_votes ORDER BY number") == [(n,) for n in range(1, 7)]


def test_migrations_make_the_tables(database):
    held = Database(database)
    Store(held, Clock()).open()
    Store(held, Clock()).open()
    with held.engine.connect() as connection:
        options = {"version_table": VERSIONS, "include_name": lambda name, kind, _: kind != "table" or "arena_" in name}
        found = compare_metadata(MigrationContext.configure(connection, opts=options), Table.metadata)
        held_by = [each for each in found if each[0] not in ("remove_table", "remove_index")]
    held.dispose()
    assert held_by == []


def test_clocks_that_jump():
    wall, steady = [1_000_000.0], [50.0]
    clock = Clock(lambda: wall[0], lambda: steady[0])
    wall[0] -= 500_000
    steady[0] += 10
    assert clock.now() == 1_000_010
    (hour, day) = Limits.model_uses("m", 1, 2, clock)
    assert (hour.period, day.period) == (f"h{1_000_010 // 3600}", f"d{1_000_010 // 86400}")


def test_a_signing_key_that_is_short(arena: Arena, monkeypatch):
    monkeypatch.setenv("CAMELID_ARENA_SECRET", "short")
    with pytest.raises(OptionError, match="32"):
        arena.app()


def test_addresses_are_kept_as_hashes(arena: Arena, database):
    with arena.client() as client:
        ready(client)
    ((address,),) = rows(database, "SELECT address FROM arena_battles")
    assert len(address) == 32
    assert "testclient" not in address
    names = [name for (name,) in rows(database, "SELECT name FROM arena_secrets ORDER BY name")]
    assert [name.partition("-")[0] for name in names] == ["address", "signing"]
