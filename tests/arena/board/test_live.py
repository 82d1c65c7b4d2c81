"""A live arena's votes: each counted once, in SQLite and PostgreSQL, whatever order they come in."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from camelid.arena.board import following, live
from camelid.arena.board.following import Following
from camelid.arena.board.live import CHECK_SECONDS, LiveSource
from camelid.serve.storage.database import Database
from tests.arena.board.living import START, change, forget, opened, put, sqlite
from tests.serve.storage.test_postgresql import cluster, url  # noqa: F401 - fixtures


class Clock:
    now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def database(request, tmp_path) -> Iterator[Database]:
    it = opened(sqlite(tmp_path) if request.param == "sqlite" else request.getfixturevalue("url"))
    yield it
    it.dispose()


@pytest.fixture
def source(database, clock) -> Iterator[LiveSource]:
    it = LiveSource(clock=clock)
    it.bind(database)
    yield it
    it.close()


def ids(follower: Following) -> list[int]:
    return [int(each) for each in follower.votes().battles.ids]


def test_votes_that_count_come_once(database, source):
    follower = Following(source)
    assert ids(follower) == []
    put(database, 1, winner=2)
    put(database, 2, "z", "x", winner=3)
    put(database, 3, state="left out", reason="names its maker")
    put(database, 4, anony=False)
    assert ids(follower) == [1, 2]
    put(database, 5, person=None)
    assert ids(follower) == [1, 2, 5]
    battles = follower.votes().battles
    assert battles.models == ("x", "y", "z")
    assert [(battles.models[a], battles.models[b]) for a, b in zip(battles.a, battles.b, strict=True)] == [
        ("x", "y"),
        ("z", "x"),
        ("x", "y"),
    ]
    assert battles.winner.tolist() == [2, 3, 0]
    assert battles.voter.tolist() == [0, 1, -1]
    assert battles.prompt.tolist() == [0, 1, 1]
    assert battles.time.tolist() == [START + 30 * at for at in (1, 2, 5)]


def test_many_votes_come_in_parts(database, source, monkeypatch):
    for module in (live, following):
        monkeypatch.setattr(module, "MOST", 2)
    for number in range(1, 8):
        put(database, number, state="counts" if number not in (3, 4) else "left out")
    assert ids(Following(source)) == [1, 2, 5, 6, 7]


def test_style_is_read(database, source):
    """So that a live board has style control; votes that say nothing of it are NaN."""
    put(database, 1, style={"tokens": [10, 20], "headers": [0, 1], "lists": [2, 3], "bold": [0, 0]})
    follower = Following(source)
    follower.votes()
    put(database, 2, style=None)
    numbers = follower.votes().battles.numbers
    assert numbers["tokens"][0].tolist() == [10, 20]
    assert numbers["lists"][0].tolist() == [2, 3]
    assert np.isnan(numbers["tokens"][1]).all()


def test_a_vote_that_no_longer_counts(database, source, clock):
    follower = Following(source)
    for number in range(1, 5):
        put(database, number, state="counts" if number != 2 else "left out")
    assert ids(follower) == [1, 3, 4]
    clock.now += CHECK_SECONDS
    before = follower.votes().number
    assert follower.votes().number == before  # that 2 does not count is nothing new
    change(database, 3, state="left out", reason="suspicious")
    clock.now += CHECK_SECONDS
    assert ids(follower) == [1, 4]
    change(database, 3, state="counts", reason=None)
    change(database, 2, state="counts", reason=None)
    clock.now += CHECK_SECONDS
    assert ids(follower) == [1, 2, 3, 4]


def test_texts_are_of_what_was_voted_on(database, source):
    put(database, 7)
    text = source.text("7")
    assert text.conversation_a == [("user", "question 7"), ("assistant", "answer a2 to 7")]
    assert text.conversation_b == [("user", "question 7"), ("assistant", "answer b2 to 7")]
    assert (text.model_a, text.model_b) == ("x", "y")


@pytest.mark.parametrize("id", ["8", "x", "", "9" * 40, "-1", "1 OR 1"])
def test_texts_that_are_not_there(database, source, id):
    put(database, 7)
    assert source.text(id) is None


def test_texts_that_are_not_to_be_seen(database, source):
    put(database, 1, state="left out")
    put(database, 2, anony=False)
    put(database, 3)
    assert source.text("1") is None
    assert source.text("2") is None
    forget(database, "person 3")
    assert source.text("3") is None
    put(database, 4)
    closed = LiveSource(texts=False)
    closed.bind(database)
    assert closed.text("4") is None


def test_reading_waits_for_no_writer(database, source):
    """A vote that is being written holds the lock; pages go on with what was there before."""
    put(database, 1)
    follower = Following(source)
    with database.engine.begin():
        assert ids(follower) == [1]
