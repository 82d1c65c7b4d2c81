"""Which battles a category holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from camelid.arena.battles import UNKNOWN, Battles
from camelid.arena.ratings import RateOptions, rate
from camelid.arena.ratings.categories import CATEGORIES, in_category
from camelid.errors import OptionError

WINNERS = ["model_a", "tie", "tie (bothbad)", "model_b", "model_a", "model_b", "tie", "model_a"]


def battles() -> Battles:
    return Battles.of(
        ["x", "y"] * 4,
        ["y", "x"] * 4,
        WINNERS,
        voter=np.array([0, 0, 0, 0, 0, 0, 1, UNKNOWN], np.int32),
        voters=("ann", "bob"),
        prompt=np.array([0, 0, 1, 1, 1, 2, UNKNOWN, UNKNOWN], np.int32),
        language=np.array([0, 1, 0, 1, 0, 0, UNKNOWN, 0], np.int16),
        languages=("English", "Czech"),
        turns=np.array([1, 2, 1, 3, 1, 1, 1, 1], np.int16),
        numbers={
            "prompt_tokens": np.array([600.0, 4, 5, 500, 9, 9, 9, 9]),
            "code": np.array([0.0, 1, 0, 0, 0, 0, 0, 1]),
            "hard": np.array([1.0, 1, 0, 0, 0, 0, 0, 0]),
            "refusal": np.array([[0.0, 1]] + [[0, 0]] * 7),
        },
    )


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("overall", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("exclude-ties", [0, 3, 4, 5, 7]),
        ("multi-turn", [1, 3]),
        ("long-query", [0, 3]),
        ("exclude-short", [0, 2, 3, 4, 5, 6, 7]),
        ("exclude-refusal", [1, 2, 3, 4, 5, 6, 7]),
        ("few-per-voter", [0, 1, 2, 3, 4, 6, 7]),
        ("coding", [1, 7]),
        ("hard-prompts", [0, 1]),
        ("hard-prompts-english", [0]),
        ("english", [0, 2, 4, 5, 7]),
        ("chinese", []),
    ],
)
def test_rows_of_a_category(name, rows):
    assert np.flatnonzero(in_category(battles(), name)).tolist() == rows


def test_frequent_questions_are_cut_down_to_the_9999th_ten_thousandth():
    prompts = np.concatenate([np.arange(20_000), np.full(500, 7), np.full(30, 9)]).astype(np.int32)
    n = len(prompts)
    many = Battles(("x", "y"), np.zeros(n, np.int32), np.ones(n, np.int32), np.zeros(n, np.int8), np.zeros(n), prompts)
    many = replace(many, voter=np.full(n, UNKNOWN, np.int32), prompt=prompts)
    kept = in_category(many, "deduplicated")
    assert np.bincount(prompts[kept]).max() == 31  # what the second most frequent question has
    assert kept.sum() == 20_000 + 30 + 30
    assert kept[:20_000].all()


def test_a_board_of_a_category_counts_its_votes_only():
    assert rate(battles(), RateOptions(category="exclude-ties")).n_votes == 5


@pytest.mark.parametrize("name", sorted(set(CATEGORIES) - {"overall", "exclude-ties"}))
def test_a_log_without_the_column_is_told_so(name):
    with pytest.raises(OptionError, match="the log does not say"):
        in_category(Battles.of(["x"], ["y"], ["tie"]), name)
