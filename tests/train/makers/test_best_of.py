"""The curve against trying every choice of k answers."""

from __future__ import annotations

import random
import statistics
from itertools import combinations

import pytest

from camelid.train.makers.best_of import curve, expected_max, expected_median


@pytest.mark.parametrize("seed", range(6))
def test_the_means_are_those_over_every_choice(seed):
    chance = random.Random(seed)
    rewards = [round(chance.gauss(0, 3), chance.randint(0, 6)) for _ in range(chance.randint(1, 8))]
    for k in range(1, len(rewards) + 1):
        every = list(combinations(rewards, k))
        assert expected_max(rewards, k) == pytest.approx(statistics.fmean(map(max, every)), abs=1e-12)
        assert expected_median(rewards, k) == pytest.approx(statistics.fmean(map(statistics.median, every)), abs=1e-12)


def test_one_answer_is_the_mean_and_all_of_them_are_the_highest():
    rewards = [3.0, -1.0, 0.5, 0.5]
    assert expected_max(rewards, 1) == expected_median(rewards, 1) == pytest.approx(0.75)
    assert expected_max(rewards, 4) == 3.0
    assert expected_median(rewards, 4) == 0.5


def test_no_more_answers_than_there_are():
    with pytest.raises(ValueError, match="no 3 of 2"):
        expected_max([1.0, 2.0], 3)


def test_the_curve_is_the_mean_over_prompts_as_far_as_all_have_answers():
    points = curve([[1.0, 2.0, 3.0], [5.0, 7.0]])
    assert [(point.k, point.most, point.median) for point in points] == [
        (1, pytest.approx(4.0), pytest.approx(4.0)),
        (2, pytest.approx((8 / 3 + 7) / 2), pytest.approx((2 + 6) / 2)),
    ]
    assert curve([]) == []


def test_a_hundred_answers_are_within_the_paper_s_reach():
    rewards = [float(number) for number in range(100)]
    assert expected_max(rewards, 50) == pytest.approx(50 * 101 / 51 - 1)  # of 50 of 1 … 100, German tank problem
    assert expected_median(rewards, 99) == pytest.approx(49.5)
