"""Intervals hold the truth as often as they say, on boards of known strengths."""

from __future__ import annotations

import numpy as np
import pytest

from camelid.arena.ratings import RateOptions, rate
from camelid.arena.simulate import simulate

BOARDS, M = 400, 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "outcome", "active"), [("bt", "half-wins", 0.0), ("bt", "half-wins", 0.9), ("bt-ties", "davidson", 0.0)]
)
def test_intervals_hold_the_truth(method, outcome, active):
    """Of 3,200 intervals 95 %, within three standard deviations; eight of one board move together."""
    held = 0
    names = [f"m{k}" for k in range(M)]
    for seed in range(BOARDS):
        truth = np.random.default_rng([seed, 3]).normal(1000, 100, M)
        strengths = dict(zip(names, truth.tolist(), strict=True))
        battles = simulate(strengths, 1500, ties=0.2, outcome=outcome, active=active, seed=seed)
        mean = truth.mean()
        for row in rate(battles, RateOptions(method=method)).rows:
            held += row.lower <= strengths[row.name] + 1000 - mean <= row.upper
    assert 0.938 <= held / (BOARDS * M) <= 0.962
