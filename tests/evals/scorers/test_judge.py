"""What a judge wrote: ratings, preferences, both orders, and nonsense."""

from __future__ import annotations

import pytest

from camelid.evals.scorers import judge


@pytest.mark.parametrize(
    ("text", "compat", "fixed"),
    [
        ("Rating: [[7]]", 7, 7),
        ("Good. Rating: [[8.5]].", 8.5, 8.5),
        ("from [[1]] to [[10]] I say [[9]]", 1, 9),
        ("Rating: [6]", 6, 6),
        ("Rating: [[11]]", 11, None),
        ("Rating: [[0]]", 0, None),
        ("Rating: 7", None, None),
        ("[[rating]]", None, None),
        ("", None, None),
    ],
)
def test_ratings(text, compat, fixed):
    assert (judge.rating_compat(text), judge.rating_fixed(text)) == (compat, fixed)


@pytest.mark.parametrize(
    ("text", "compat", "fixed"),
    [
        ("so [[B]]", "B", "B"),
        ("[[C]]", "tie", "tie"),
        ("not [[A]], but [[B]]", "A", "B"),
        ("[[C]] or [[B]]", "B", "B"),
        ("[A]", None, None),
        ("A is better", None, None),
    ],
)
def test_preferences(text, compat, fixed):
    assert (judge.preference_compat(text), judge.preference_fixed(text)) == (compat, fixed)


def test_a_win_needs_both_orders():
    assert judge.both_orders("A", "B") == "A"
    assert judge.both_orders("B", "A") == "B"
    assert judge.both_orders("A", "A") == "tie", "the judge likes the first answer, whose ever it is"
    assert judge.both_orders("A", "tie") == "tie"
    assert judge.both_orders("A", None) is None


def test_ratings_that_hardly_differ_are_a_tie():
    assert judge.preference_of_ratings(7, 7.1) == "tie"
    assert judge.preference_of_ratings(8, 7) == "A"
    assert judge.preference_of_ratings(None, 7) is None
