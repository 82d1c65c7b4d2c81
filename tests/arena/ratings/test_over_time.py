"""Ratings by window: one dense solution, a walk that is followed, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from camelid.arena.battles import Battles
from camelid.arena.ratings import RateOptions, rate
from camelid.arena.ratings.over_time import POINTS, SPREAD, rate_over_time
from camelid.errors import OptionError
from tests.arena.ratings.votes import TIES, drawn, tallied

DAY = 86400.0


def walking(seed: int, m: int, windows: int, votes: int, drift: float) -> tuple[Battles, np.ndarray]:
    """Votes of models whose strengths walk, and the (windows, M) ratings they had."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 100, m) + np.cumsum(rng.normal(0, drift, (windows, m)), axis=0)
    n = windows * votes
    window = np.repeat(np.arange(windows), votes)
    a = rng.integers(0, m, n).astype(np.int32)
    b = ((a + rng.integers(1, m, n)) % m).astype(np.int32)
    chance = 1 / (1 + 10 ** ((truth[window, b] - truth[window, a]) / 400))
    winner = np.where(rng.random(n) < chance, 0, 1).astype(np.int8)
    time = (window * 7 + rng.random(n) * 6.9) * DAY
    time[0] = 0
    names = tuple(f"m{k}" for k in range(m))
    return Battles(names, a, b, winner, time, np.full(n, -1, np.int32)), truth - truth.mean(
        axis=1, keepdims=True
    ) + 1000


def test_it_is_the_minimum_of_the_whole_written_out():
    battles, _ = walking(0, 4, 5, 30, 20)
    found = rate_over_time(battles, drift=15.0)
    windows, m = found.rating.shape
    number = (battles.time // (7 * DAY)).astype(int)
    place_a, place_b = number * m + battles.a, number * m + battles.b
    walk, begin = (POINTS / 15.0) ** 2, (POINTS / SPREAD) ** 2
    prior = np.zeros((windows * m,) * 2)
    for k in range((windows - 1) * m):
        step = np.zeros(windows * m)
        step[k], step[k + m] = -1, 1
        prior += walk * np.outer(step, step)
    prior[:m, :m] += begin * np.eye(m)
    at = np.zeros(windows * m)
    design = np.zeros((len(battles), windows * m))
    design[np.arange(len(battles)), place_a], design[np.arange(len(battles)), place_b] = 1, -1
    for _ in range(30):
        p = 1 / (1 + np.exp(-design @ at))
        curvature = design.T @ (design * (p * (1 - p))[:, None]) + prior
        at += np.linalg.solve(curvature, design.T @ ((battles.winner == 0) - p) - prior @ at)
    strength = at.reshape(windows, m)
    expected = 1000 + POINTS * (strength - strength.mean(axis=1, keepdims=True))
    assert found.rating == pytest.approx(expected, abs=1e-6)
    covariance = np.linalg.inv(curvature)
    contrast = np.eye(m) - 1 / m
    for t in range(windows):
        block = contrast @ covariance[t * m : (t + 1) * m, t * m : (t + 1) * m] @ contrast
        half = 1.959964 * POINTS * np.sqrt(block.diagonal())
        assert (found.upper - found.rating)[t] == pytest.approx(half, rel=1e-5)


def test_a_walk_is_followed_and_its_length_found():
    battles, truth = walking(1, 6, 25, 400, 20)
    found = rate_over_time(battles)
    assert found.drift in (10.0, 20.0, 50.0)
    held = (found.lower <= truth) & (truth <= found.upper)
    assert held.mean() > 0.88
    still, _ = walking(1, 6, 25, 400, 0)
    assert rate_over_time(still).drift <= 5


def test_one_window_is_a_board_but_for_the_spread_that_is_expected():
    battles = drawn(np.random.default_rng(2), 5, 20_000)
    found = rate_over_time(replace(battles, time=np.zeros(20_000)))
    board = {row.name: row.rating for row in rate(battles, RateOptions(intervals="model")).rows}
    assert found.rating[0] == pytest.approx([board[name] for name in found.models], abs=0.5)


def test_a_model_is_shown_from_its_first_vote_to_its_last():
    battles, _ = walking(3, 4, 6, 100, 5)
    number = (battles.time // (7 * DAY)).astype(int)
    late = (battles.a == 3) | (battles.b == 3)
    found = rate_over_time(battles.take(~late | ((number >= 2) & (number < 5))), drift=5.0, anchors={"m0": 800})
    assert np.isnan(found.rating[:, 3]).tolist() == [True, True, False, False, False, True]
    assert found.rating[:, 0] == pytest.approx(np.full(6, 800))
    assert found.upper[:, 0] == pytest.approx(np.full(6, 800))
    assert found.votes[0, 3] == 0


def test_mistakes_are_named():
    with pytest.raises(OptionError, match="30 of 30 votes do not say their time"):
        rate_over_time(tallied(TIES))
    battles, _ = walking(4, 3, 3, 20, 5)
    with pytest.raises(OptionError, match="take longer ones"):
        rate_over_time(battles, days=0.01)
    with pytest.raises(OptionError, match="more than 0"):
        rate_over_time(battles, days=0)
    with pytest.raises(OptionError, match="nothing can be rated"):
        rate_over_time(Battles.of([], [], []))
