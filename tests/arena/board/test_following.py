"""Votes in memory are those of the source, however they come in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.arena.battles import UNKNOWN, Battles
from camelid.arena.board.following import Following, joined, said
from tests.arena.board.voting import MODELS, Growing, some_battles


def named(battles: Battles) -> list[tuple[object, ...]]:
    """Votes by names, whatever numbers they have."""
    return [
        (
            *(battles.models[battles.a[at]], battles.models[battles.b[at]], int(battles.winner[at])),
            *(float(battles.time[at]), battles.voters[battles.voter[at]] if battles.voter[at] >= 0 else None),
            *(str(battles.ids[at]), int(battles.turns[at])),
            tuple(sorted((name, tuple(np.atleast_1d(column[at]))) for name, column in battles.numbers.items())),
        )
        for at in range(len(battles))
    ]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(2, 5)), min_size=1, max_size=6))
def test_chunks_are_the_whole(sizes):
    """Models come in any order; numbers change, names and their votes do not."""
    source = Growing()
    following, expected, start = Following(source), [], 0
    for seed, (n, n_models) in enumerate(sizes):
        chunk = some_battles(n, seed, MODELS[-n_models:] if seed % 2 else MODELS[:n_models], start)
        source.chunks.append(chunk)
        start += n
        expected += named(chunk)
        found = following.votes().battles
        assert named(found) == expected
        assert list(found.models) == sorted(found.models)


def test_only_what_is_new_is_read():
    source = Growing(some_battles(50))
    following = Following(source)
    first = following.votes()
    before = named(first.battles)
    assert following.votes().number == first.number
    source.chunks.append(some_battles(10, 1, start=50))
    second = following.votes()
    assert source.asked == [0, 1, 1]
    assert len(second.battles) == 60
    assert second.number > first.number
    assert named(first.battles) == before  # what was given out stays


def test_votes_that_no_longer_count():
    source = Growing(some_battles(50))
    following = Following(source)
    following.votes()
    source.chunks, source.epoch = [some_battles(20)], 1
    assert len(following.votes().battles) == 20
    assert source.asked == [0, 0]


def test_columns_that_only_some_have():
    first, second = some_battles(5), some_battles(4, 1, start=5)
    first.numbers.pop("bold")
    following = Following(source := Growing(first))
    following.votes()
    source.chunks.append(second)
    bold = following.votes().battles.numbers["bold"]
    assert np.isnan(bold[:5]).all()
    assert (bold[5:] == second.numbers["bold"]).all()


def test_what_is_not_said():
    battles = said(Battles.of(["x"], ["y"], ["tie"]))
    assert (battles.prompt.tolist(), battles.turns.tolist(), battles.ids.tolist()) == ([UNKNOWN], [0], [""])
    assert battles.language.tolist() == [UNKNOWN]


def test_joined_keeps_order():
    names, olds, news = joined(("b", "d"), ("a", "d"), in_order=True)
    assert names == ("a", "b", "d")
    assert (olds.tolist(), news.tolist()) == ([1, 2], [0, 2])


@pytest.mark.parametrize("n", [0, 1, 3000])
def test_growing_past_the_room(n):
    source = Growing(some_battles(5))
    following = Following(source)
    following.votes()
    source.chunks.append(some_battles(n, 2, start=5))
    assert named(following.votes().battles) == named(some_battles(5)) + named(some_battles(n, 2, start=5))
