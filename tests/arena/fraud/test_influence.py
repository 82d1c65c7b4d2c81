"""Votes that decide a place: enough by a true refit, and no fewer than a search of all small sets finds."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from camelid.arena.battles import Battles
from camelid.arena.fraud.influence import Fit, first_place, flip, neighbours
from camelid.arena.ratings import Counts, rate
from camelid.arena.ratings.counts import Pairs
from camelid.arena.simulate import simulate
from camelid.errors import OptionError

STRENGTHS = {"a": 1030.0, "b": 1020.0, "c": 980.0, "d": 900.0}


def names(battles):
    return [row.name for row in rate(battles).rows]


def without(battles, rows):
    kept = np.ones(len(battles), bool)
    kept[rows] = False
    return battles.take(kept)


@pytest.mark.parametrize("seed", range(6))
def test_first_place_falls_without_these_votes(seed):
    votes = simulate(STRENGTHS, 600, ties=0.2, seed=seed)
    found = first_place(votes)
    assert names(votes)[0] == found.upper
    left = rate(without(votes, found.votes)).rows
    ratings = {row.name: row.rating for row in left}
    assert left[0].name == found.lower
    assert ratings[found.upper] - ratings[found.lower] == pytest.approx(found.after, abs=1e-6)
    assert found.after < 0 < found.before


@pytest.mark.parametrize("seed", range(4))
def test_no_smaller_set_of_votes_does_it(seed):
    votes = simulate(STRENGTHS, 40, seed=20 + seed)
    top = names(votes)[0]
    found = first_place(votes)
    for size in range(1, min(len(found.votes), 3)):
        assert all(names(without(votes, list(rows)))[0] == top for rows in combinations(range(len(votes)), size))


def test_a_vote_pulls_as_a_refit_says():
    votes = simulate(STRENGTHS, 4000, ties=0.2, seed=3)
    pairs = Pairs.of(Counts.of(votes))
    fit = Fit.of(pairs)
    pulls = fit.pulls(0, 1)
    for pair, outcome in [(0, 0), (0, 1), (1, 2), (3, 0), (5, 1)]:
        n = pairs.n.copy()
        n[pair, outcome] += 1
        moved = Fit.of(pairs.with_n(n)).strength - fit.strength
        assert moved[0] - moved[1] == pytest.approx(pulls[pair, outcome], rel=0.02, abs=1e-6)


def test_rank_changes_further_down():
    votes = simulate(STRENGTHS, 2000, seed=8)
    order = names(votes)
    found = neighbours(votes, 3)
    assert [(each.upper, each.lower) for each in found] == list(pairwise(order))
    for each in found:
        after = names(without(votes, each.votes))
        assert after.index(each.lower) < after.index(each.upper)


def test_sides_do_not_matter():
    votes = simulate(STRENGTHS, 500, seed=4)
    turned = Battles(votes.models, votes.b, votes.a, np.array([1, 0, 2, 3])[votes.winner], votes.time, votes.voter)
    assert first_place(votes).votes.tolist() == first_place(turned).votes.tolist()


def test_a_safe_place_is_said_to_be_safe():
    votes = simulate({"a": 1400.0, "b": 1000.0}, 400, seed=1)
    assert flip(votes, "a", "b", most=5) is None
    assert first_place(votes, most=5) is None


def test_what_makes_no_sense_is_refused():
    votes = simulate({"a": 1200.0, "b": 1000.0}, 200, seed=1)
    with pytest.raises(OptionError, match="does not stand above"):
        flip(votes, "b", "a")
    with pytest.raises(OptionError, match="no votes"):
        flip(votes, "a", "nobody")
    with pytest.raises(OptionError, match="two models"):
        first_place(Battles.of(["a"], ["a"], ["tie"]))
