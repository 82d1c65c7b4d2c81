"""Copies are found, honest voters of one opinion are not, and nobody reads two answers in a second."""

from __future__ import annotations

from dataclasses import replace
from math import comb

import numpy as np
import pytest

from camelid.arena.battles import Battles
from camelid.arena.fraud.copies import alike, binomial_tail, too_quick
from camelid.arena.simulate import simulate

STRENGTHS = {name: 1000.0 + 40 * number for number, name in enumerate("abcdef")}


def voted(n=2400, voters=20, seed=0):
    """Honest votes on 12 questions and all pairs, so that voters share items."""
    votes = simulate(STRENGTHS, n, ties=0.3, voters=voters, seed=seed)
    return replace(votes, prompt=np.random.default_rng(seed).integers(12, size=n, dtype=np.int32))


def with_copy(votes, of, name):
    """One voter's ballots again, under another name, with sides swapped."""
    rows = np.flatnonzero(votes.voter == of)
    swapped = np.array([1, 0, 2, 3], np.int8)[votes.winner[rows]]
    return replace(
        votes,
        a=np.r_[votes.a, votes.b[rows]],
        b=np.r_[votes.b, votes.a[rows]],
        winner=np.r_[votes.winner, swapped],
        time=np.r_[votes.time, votes.time[rows] + 5],
        voter=np.r_[votes.voter, np.full(len(rows), len(votes.voters), np.int32)],
        voters=(*votes.voters, name),
        prompt=np.r_[votes.prompt, votes.prompt[rows]],
        numbers={},
    )


def test_a_copy_is_named_after_the_one_who_voted_first():
    votes = with_copy(voted(), of=7, name="copy")
    found = alike(votes, 0.05, 0.15)
    assert [(each.first, each.second) for each in found] == [(7, 20)]
    assert found[0].same == found[0].items
    assert found[0].chance < 1e-6


def test_honest_voters_are_not_named():
    named = [seed for seed in range(20) if alike(voted(seed=seed), 0.05, 0.0)]
    assert len(named) <= 3  # 1 in 20 is what is allowed without any room for taste


def test_half_the_voters_may_be_copies():
    votes = voted()
    for number in range(8):
        votes = with_copy(votes, of=3, name=f"copy {number}")
    found = alike(votes, 0.05, 0.15)
    assert {each.second for each in found} == set(range(20, 28))
    assert {each.first for each in found} >= {3}


def test_without_questions_nobody_is_compared():
    assert alike(simulate(STRENGTHS, 300, voters=5), 0.05, 0.15) == []


@pytest.mark.parametrize(("n", "k", "p"), [(10, 3, 0.2), (25, 25, 0.68), (7, 0, 0.5), (40, 31, 0.6)])
def test_the_binomial_tail_is_exact(n, k, p):
    exact = sum(comb(n, x) * p**x * (1 - p) ** (n - x) for x in range(k, n + 1))
    assert binomial_tail(n, k, p) == pytest.approx(exact, rel=1e-9)


def paced(*times):
    n = len(times)
    rows = Battles.of(["a"] * n, ["b"] * n, ["tie"] * n, time=np.array(times, float), voter=np.zeros(n, np.int32))
    return replace(rows, voters=("someone",))


def test_nobody_votes_five_times_within_a_breath():
    (found,) = too_quick(paced(0, 1, 2, 3.5, 4, 5, 900), fastest=2, hasty=5)
    assert (found.hasty, found.steady) == (5, False)
    assert too_quick(paced(0, 1, 2, 3.5, 60, 61, 900), fastest=2, hasty=5) == []


def test_a_clock_is_no_person():
    (found,) = too_quick(paced(*range(0, 3000, 100)), fastest=2, hasty=5)
    assert (found.steady, found.median) == (True, 100)
    assert too_quick(paced(*np.cumsum(np.random.default_rng(0).exponential(100, 30))), fastest=2, hasty=5) == []


def test_votes_without_time_say_nothing_about_pace():
    assert too_quick(paced(*[np.nan] * 30), fastest=2, hasty=5) == []
