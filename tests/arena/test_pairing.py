"""Pairs are drawn with exactly the chances that FastChat's rules give, worked out here by hand."""

from __future__ import annotations

import numpy as np
import pytest

from camelid.arena.battles import Battles
from camelid.arena.pairing import (
    Rules,
    Tally,
    active_chances,
    draw,
    draw_pair,
    first_weights,
    pair_chances,
    rival_weights,
    vote_gain,
)
from camelid.errors import OptionError


def test_the_first_is_drawn_by_weight_boosted_five_times_and_never_in_an_outage():
    rules = Rules({"a": 1, "b": 2, "c": 4, "d": 0}, boosted={"b"}, outage={"c"})
    assert first_weights(rules) == {"a": 1, "b": 10, "c": 0, "d": 0}


def test_rivals_have_plain_weights_and_targets_half_the_total_among_them():
    rules = Rules({"a": 1, "b": 2, "c": 3, "d": 4}, boosted={"a"}, targets={"a": ("b", "x")})
    assert rival_weights(rules, "a") == {"b": 0.5 * (5 + 2 + 3 + 4) / 2, "c": 3, "d": 4}
    assert rival_weights(rules, "b") == {"a": 1, "c": 3, "d": 4}


def test_a_target_in_an_outage_stays_away():
    rules = Rules({"a": 1, "b": 2, "c": 3}, outage={"b"}, targets={"a": ("b",)})
    assert rival_weights(rules, "a") == {"c": 3}


def test_chances_of_three_models_by_hand():
    rules = Rules({"a": 1, "b": 2, "c": 1}, boosted={"a"})  # firsts 5 : 2 : 1
    chances = pair_chances(rules)
    assert chances[("a", "b")] == pytest.approx(5 / 8 * 2 / 3 + 2 / 8 * 1 / 2)
    assert chances[("a", "c")] == pytest.approx(5 / 8 * 1 / 3 + 1 / 8 * 1 / 3)
    assert chances[("b", "c")] == pytest.approx(2 / 8 * 1 / 2 + 1 / 8 * 2 / 3)
    assert sum(chances.values()) == pytest.approx(1)


def test_strict_targets_match_by_pattern_and_some_never_meet():
    rules = Rules(
        dict.fromkeys(("llama-7b", "llama-13b", "gpt", "bard"), 1.0),
        strict={"llama-7b": ("llama-*",)},
        apart={("gpt", "bard")},
    )
    assert rival_weights(rules, "llama-7b") == {"llama-13b": 1}
    assert ("bard", "gpt") not in pair_chances(rules)
    assert ("gpt", "llama-7b") in pair_chances(rules)  # gpt was the first: only the first's list is strict


def test_a_single_model_meets_itself():
    drawn = draw_pair(Rules({"a": 1, "b": 1}, outage={"b"}), np.random.default_rng(0))
    assert (drawn.a, drawn.b, drawn.chance) == ("a", "a", 1.0)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"weights": {}}, "no model can be drawn"),
        ({"weights": {"a": 1}, "outage": {"a"}}, "no model can be drawn"),
        ({"weights": {"a": 1, "b": 1}, "apart": {("b", "a")}}, "no model may meet it"),
        ({"weights": {"a": -1}}, "must be 0 or more"),
        ({"weights": {"a": float("nan")}}, "must be 0 or more"),
    ],
)
def test_rules_that_draw_nobody_are_refused(rules, said):
    with pytest.raises(OptionError, match=said):
        pair_chances(Rules(**rules))


def test_draws_have_their_chances_and_sides_are_even():
    rules = Rules({"a": 1, "b": 2, "c": 4}, boosted={"a"}, targets={"b": ("c",)})
    chances, generator, n = pair_chances(rules), np.random.default_rng(7), 20_000
    drawn = [draw(chances, generator) for _ in range(n)]
    for (one, two), chance in chances.items():
        pair = [each for each in drawn if {each.a, each.b} == {one, two}]
        assert abs(len(pair) / n - chance) < 4 * np.sqrt(chance * (1 - chance) / n)
        assert abs(sum(each.a == one for each in pair) / len(pair) - 0.5) < 4 * 0.5 / np.sqrt(len(pair))
        assert all(each.chance == chance for each in pair)


def test_the_same_seed_draws_the_same():
    rules = Rules(dict.fromkeys("abcdef", 1.0))
    runs = [[draw_pair(rules, generator) for _ in range(20)] for generator in map(np.random.default_rng, (3, 3))]
    assert runs[0] == runs[1]


def test_a_tally_counts_ties_half_on_both_sides():
    battles = Battles.of(list("aab"), list("bba"), ["model_a", "tie (bothbad)", "model_a"])
    tally = Tally.of(battles)
    assert tally.votes.tolist() == [[0, 3], [3, 0]]
    assert tally.score.tolist() == [[0, 1.5], [1.5, 0]]


def test_a_vote_gains_as_chiang_et_al_say():
    votes, score = np.array([8.0, 98.0]), np.array([4.0, 97.0])
    n, p = votes + 2, (score + 1) / (votes + 2)
    assert vote_gain(votes, score) == pytest.approx(np.sqrt(p * (1 - p) / n) - np.sqrt(p * (1 - p) / (n + 1)))


def test_a_fresh_model_gets_the_pairs_and_no_chance_falls_below_its_floor():
    rules = Rules(dict.fromkeys("abcd", 1.0))
    even = pair_chances(rules)
    rows = [(x, y) for x, y in even if "d" not in (x, y) for _ in range(300)]
    battles = Battles.of([x for x, _ in rows], [y for _, y in rows], ["model_a", "model_b"] * (len(rows) // 2))
    chances = active_chances(even, Tally.of(battles), 0.9)
    assert sum(chances.values()) == pytest.approx(1)
    assert sum(chance for pair, chance in chances.items() if "d" in pair) > 0.9
    assert all(chances[pair] >= 0.1 * even[pair] for pair in even)
    assert active_chances(even, Tally.of(battles), 0.0) == even


def test_active_sampling_never_joins_what_must_stay_apart():
    rules = Rules(dict.fromkeys("abc", 1.0), apart={("a", "b")})
    tally = Tally(("a", "c"), np.zeros((2, 2)), np.zeros((2, 2)))  # b is new
    assert set(active_chances(pair_chances(rules), tally, 1.0)) == {("a", "c"), ("b", "c")}


def test_a_share_out_of_range_is_refused():
    with pytest.raises(OptionError, match="from 0 to 1"):
        draw_pair(Rules({"a": 1, "b": 1}), np.random.default_rng(0), Tally((), np.zeros((0, 0)), np.zeros((0, 0))), 1.5)
