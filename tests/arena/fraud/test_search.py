"""Riggers are named, and honest voters no more often than the bound says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from camelid.arena.battles import A, Battles
from camelid.arena.fraud.options import FraudOptions
from camelid.arena.fraud.rigging import ATTACKS, rig
from camelid.arena.fraud.search import find_fraud
from camelid.arena.fraud.voters import judge_voters
from camelid.arena.ratings import rate
from camelid.arena.simulate import simulate
from camelid.errors import OptionError

STRENGTHS = {f"model {number:02}": 900.0 + 20 * number for number in range(12)}


def honest(seed=0, n=4000, voters=40):
    votes = simulate(STRENGTHS, n, ties=0.2, voters=voters, seed=seed)
    return replace(votes, prompt=np.random.default_rng(seed).integers(30, size=n, dtype=np.int32))


def rank(battles, name):
    return [row.name for row in rate(battles).rows].index(name) + 1


def names(battles, voter, count, to):
    """`count` of a voter's votes go to side A of the battles, or to a model wherever it is."""
    rows = np.flatnonzero(battles.voter == voter)[:count]
    winner = battles.winner.copy()
    winner[rows] = A if to is None else np.where(battles.a[rows] == to, 0, np.where(battles.b[rows] == to, 1, 2))
    return replace(battles, winner=winner)


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_lifts_its_target_and_is_seen(attack):
    votes = honest()
    rigged = rig(votes, "model 04", 800, attack, seed=1)
    found = find_fraud(rigged)
    added = np.arange(len(rigged)) >= len(votes)
    assert rank(rigged, "model 04") < rank(votes, "model 04")
    assert found.suspicious[added].mean() > 0.7
    assert found.suspicious[~added].mean() < 0.05
    assert not [each.voter for each in found.suspects if not each.voter.startswith("rigger")]
    assert abs(rank(rigged.take(~found.suspicious), "model 04") - rank(votes, "model 04")) <= 2


def test_reasons_name_the_model_that_is_lifted():
    found = find_fraud(rig(honest(), "model 04", 800, "omnipresent", seed=1))
    bets = {reason.split(": ")[1].split(";")[0] for each in found.suspects for reason in each.reasons}
    assert "to lift model 04" in bets
    assert bets <= {"to lift model 04", "an order of its own"}


def test_who_always_takes_side_a_is_named():
    votes = names(honest(), voter=3, count=100, to=None)
    (suspect,) = find_fraud(votes).suspects
    assert suspect.voter == votes.voters[3]
    assert "side A" in suspect.reasons[0]


@pytest.mark.slow
def test_honest_logs_raise_an_alarm_less_often_than_stated():
    options = FraudOptions(taste=0.0)  # no room at all: the hardest case that the bound covers
    alarms = sum(bool(find_fraud(honest(seed, 1200, 15), options).suspicious.any()) for seed in range(60))
    assert alarms <= 6  # 3 are allowed on average


def test_the_largest_stake_of_honest_voters_keeps_its_bound():
    stakes = [each.stake for seed in range(4) for each in judge_voters(honest(seed, 3000, 50), 1.0, 0.0)]
    assert len(stakes) <= 200 / np.e  # Ville: each of 200 reaches e with chance 1/e at most
    assert all(stake < np.log(200 / 0.05) for stake in stakes)


def test_a_log_without_voters_names_nobody():
    found = find_fraud(simulate(STRENGTHS, 500))
    assert (found.suspects, found.together, found.voters) == ((), (), 0)
    assert not found.suspicious.any()


def test_an_empty_log_names_nobody():
    assert find_fraud(Battles.of([], [], [])).suspects == ()


def test_as_json_has_what_programs_need():
    said = find_fraud(rig(honest(), "model 04", 300, "fresh", seed=2)).as_json()
    assert set(said) == {"voters", "alarm", "suspicious_votes", "suspects", "together"}
    assert said["suspicious_votes"] > 250
    assert "favour model 04" in said["together"][0]


def test_rigged_votes_are_told_from_honest_ones():
    votes = honest(n=500)
    for attack in ATTACKS:
        rigged = rig(votes, "model 04", 37, attack, each=10)
        assert len(rigged) == 537
        assert np.array_equal(rigged.take(np.arange(500)).winner, votes.winner)
        assert rigged.voters[len(votes.voters) :] == ("rigger 1", "rigger 2", "rigger 3", "rigger 4")
        assert len(rigged.prompt) == len(rigged.time) == len(rigged.numbers["chance"]) == 537


@pytest.mark.parametrize(
    ("change", "said"),
    [({"attack": "bribe"}, "attack"), ({"target": "nobody"}, "target"), ({"n": 0}, "at least 1"), ({"each": 0}, "at")],
)
def test_attacks_that_cannot_be_are_refused(change, said):
    with pytest.raises(OptionError, match=said):
        rig(**{"battles": honest(n=100), "target": "model 04", "n": 10, "attack": "fresh", **change})
