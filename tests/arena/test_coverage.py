"""Intervals hold the truth about as often as they say, also where pairs are chosen by the votes so far."""

from __future__ import annotations

import numpy as np
import pytest

from camelid.arena.coverage import coverage
from camelid.arena.pairing import Rules
from camelid.arena.ratings import RateOptions
from camelid.errors import OptionError

STRENGTHS = {"a": 1100.0, "b": 1040.0, "c": 1000.0, "d": 960.0, "fresh": 900.0}


@pytest.mark.slow
@pytest.mark.parametrize("active", [0.0, 0.9])
def test_intervals_hold_the_truth(active):
    rules = Rules({**dict.fromkeys("abcd", 1.0), "fresh": 0.2})
    found = coverage(STRENGTHS, 1500, 80, ties=0.2, rules=rules, active=active)
    assert abs(found.share - 0.95) < 4 * np.sqrt(0.95 * 0.05 / (80 * 4))  # 5 intervals of a board are not independent


def test_active_sampling_tells_more_of_a_fresh_model():
    rules = Rules({**dict.fromkeys("abcd", 1.0), "fresh": 0.1})
    plain, active = (coverage(STRENGTHS, 1500, 10, rules=rules, active=share) for share in (0.0, 0.9))
    assert active.half_width["fresh"] < 0.7 * plain.half_width["fresh"]


def test_ties_of_davidson_are_rated_by_davidson():
    found = coverage(STRENGTHS, 1500, 40, RateOptions(method="bt-ties"), ties=0.3, outcome="davidson")
    assert found.share > 0.88
    assert max(found.error.values()) < 20


def test_strengths_are_told_on_the_boards_scale():
    found = coverage({"x": 100.0, "y": 0.0}, 400, 3)
    assert found.strengths == {"x": 1050.0, "y": 950.0}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"options": RateOptions(method="elo")}, "only bt"),
        ({"options": RateOptions(anchors={"a": 1.0})}, "only bt"),
        ({"boards": 0}, "at least 1"),
        ({"votes": 1}, "too few"),
    ],
)
def test_what_cannot_be_counted_is_said(change, said):
    with pytest.raises(OptionError, match=said):
        coverage(**{"strengths": STRENGTHS, "votes": 100, "boards": 2, **change})
