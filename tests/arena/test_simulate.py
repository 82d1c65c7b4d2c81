"""Simulated votes are what was asked for: their chances are the formulas', worked out here once more."""

from __future__ import annotations

import numpy as np
import pytest

from camelid.arena.battles import TIE, WINNERS, A, B
from camelid.arena.pairing import Rules
from camelid.arena.simulate import OUTCOMES, simulate
from camelid.errors import OptionError

PAIR = {"strong": 1100.0, "weak": 1000.0}


def shares(**options):
    """Shares of wins of the stronger, of ties and of the weaker, in 40,000 votes."""
    votes = simulate(PAIR, 40_000, **options)
    sides = np.where(votes.winner == A, votes.a, np.where(votes.winner == B, votes.b, -1))
    return [float((sides == model).mean()) for model in (0, -1, 1)]


def expected(outcome, ties):
    """(strong wins, tie, weak wins) for strengths g and 1 of the published formulas."""
    g = 10 ** (100 / 400)
    if outcome == "half-wins":
        tie = 2 * ties * (1 / (1 + g))
        return g / (1 + g) - tie / 2, tie, 1 / (1 + g) - tie / 2
    if outcome == "davidson":
        nu = 2 * ties / (1 - ties)
        total = g + 1 + nu * np.sqrt(g)
        return g / total, nu * np.sqrt(g) / total, 1 / total
    theta = (1 + ties) / (1 - ties)
    strong, weak = g / (g + theta), 1 / (1 + theta * g)
    return strong, 1 - strong - weak, weak


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("ties", [0.0, 0.4])
def test_votes_have_the_shares_of_the_formula(outcome, ties):
    assert shares(outcome=outcome, ties=ties) == pytest.approx(expected(outcome, ties), abs=4 * 0.5 / np.sqrt(40_000))


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_ties_are_their_share_between_equals(outcome):
    _, tie = OUTCOMES[outcome](np.zeros(1), 0.3)
    assert tie[0] == pytest.approx(0.3)


def test_the_same_seed_gives_the_same_votes_and_another_others():
    one, same, other = (simulate(PAIR, 200, ties=0.2, voters=9, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.winner, same.winner)
    assert np.array_equal(one.voter, same.voter)
    assert not np.array_equal(one.winner, other.winner)


def test_columns_are_a_log_in_order_of_time():
    votes = simulate({"a": 0.0, "b": 10.0, "c": 20.0}, 500, voters=12, ties=0.1)
    assert len(votes) == 500
    assert len(votes.voters) == 12
    assert votes.voters[0] == "voter 01"
    assert (np.diff(votes.time) > 0).all()
    assert (votes.a != votes.b).all()
    assert set(np.unique(votes.winner)) == {A, B, TIE}
    assert WINNERS[TIE] == "tie"
    assert votes.numbers["chance"] == pytest.approx(1 / 3)


def test_rules_are_kept():
    rules = Rules(dict.fromkeys("abc", 1.0), apart={("a", "b")})
    votes = simulate({"a": 0.0, "b": 0.0, "c": 0.0}, 300, rules=rules)
    assert ((votes.a == 2) | (votes.b == 2)).all()


def test_active_sampling_says_the_chance_of_each_draw_and_spreads_votes_more_evenly():
    strengths = {name: 50.0 * number for number, name in enumerate("abcdefgh")}
    weights = {name: 30.0 if name in "ab" else 1.0 for name in strengths}
    plain, active = (simulate(strengths, 4000, rules=Rules(weights), active=share) for share in (0.0, 0.8))
    least = [np.bincount(np.r_[votes.a, votes.b]).min() for votes in (plain, active)]
    assert least[1] > 2 * least[0]
    assert active.numbers["chance"].min() > 0
    assert len(np.unique(active.numbers["chance"])) > 28


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"strengths": {"a": 1.0}}, "at least two"),
        ({"strengths": {"a": 1.0, "b": float("inf")}}, "must be a number"),
        ({"n": 0}, "at least 1"),
        ({"ties": 1.0}, "below 1"),
        ({"outcome": "coin"}, "none of"),
        ({"voters": -1}, "0 or more"),
        ({"active": 2.0}, "from 0 to 1"),
        ({"rules": Rules({"strong": 1, "other": 1})}, "has no strength"),
    ],
)
def test_what_cannot_be_simulated_is_said(options, said):
    with pytest.raises(OptionError, match=said):
        simulate(**{"strengths": PAIR, "n": 10, **options})
