"""How many ids are guessed: what passes cost, how often guesses came true, and the number that follows."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.engine.speculative.length import FIXED, MOST_FIXED, PassCost, Wish, lengths
from camelid.engine.speculative.record import PAUSE, Record, Trial

chances_of_five = st.lists(st.sampled_from([0.1, 0.3, 0.6, 0.9, 1.0]), min_size=5, max_size=5)
answers = st.lists(st.tuples(chances_of_five, st.integers(0, 4)), max_size=3)


@settings(deadline=None)
@given(
    answers.filter(lambda made: len(made) <= 3), st.integers(0, 3), st.sampled_from([1.0, 4.0, 10.0]), st.integers(0, 9)
)
def test_no_other_lengths_write_more_in_their_time(made, beside, fixed, room):
    wishes = [Wish(chances.__getitem__, most) for chances, most in made]
    n_writing = len(wishes) + beside

    def rate(numbers):
        written = float(n_writing)
        for (chances, _), n in zip(made, numbers, strict=True):
            written += sum(itertools.accumulate(chances[:n], lambda so_far, chance: so_far * chance))
        return written / (fixed + n_writing + sum(numbers))

    chosen = lengths(wishes, n_writing, fixed, room)
    possible = [
        numbers for numbers in itertools.product(*(range(most + 1) for _, most in made)) if sum(numbers) <= room
    ]
    assert tuple(chosen) in possible
    assert rate(chosen) == pytest.approx(max(map(rate, possible)))


def test_a_guess_that_costs_more_has_to_be_likelier():
    likely = [Wish(lambda n: 0.5, 9, cost) for cost in (1.0, 3.0, 9.0)]
    alone = [lengths([wish], 1, 10.0, 9)[0] for wish in likely]
    assert alone == sorted(alone, reverse=True)
    assert alone[0] > alone[-1] == 0
    assert lengths([likely[0]] * 32, 32, 10.0, 400) == [0] * 32  # in a crowd a place costs as much as a text


@pytest.mark.parametrize("fixed", [2.0, 8.0, 25.0])
def test_what_passes_cost_is_found_out(fixed):
    cost = PassCost()
    assert cost.fixed == FIXED
    for place in range(400):
        n = 1 + place % 7
        cost.note(n, 0.001 * (fixed + n) * (50 if place % 90 == 89 else 1))  # now and then the machine is busy
    assert cost.fixed == pytest.approx(fixed, rel=0.35)
    for n in (300, 5000):
        cost.note(n, 9.0)
    assert cost.fixed == pytest.approx(fixed, rel=0.35)


def test_what_passes_cost_stays_as_supposed_while_all_are_alike():
    cost = PassCost()
    for _ in range(200):
        cost.note(1, 0.004)
    assert cost.fixed == pytest.approx(FIXED)
    assert cost.each == pytest.approx(0.004 / (FIXED + 1))
    for n in (1, 2, 3, 4) * 100:
        cost.note(n, 0.004)
    assert cost.fixed == pytest.approx(MOST_FIXED)


def test_chances_follow_what_came_true():
    record = Record()
    before = [record.chance(length) for length in (2, 3, 4, 6, 9, 16)]
    assert before == sorted(before)
    for _ in range(30):
        record.note(5, False)
        record.note(30, True)
    assert record.chance(4) == record.chance(5) < 0.25
    assert record.chance(16) == record.chance(1000) > 0.97
    assert record.chance(3) == before[1]
    for _ in range(30):
        record.note(5, True)
    assert record.chance(5) > 0.85


def test_a_draft_model_is_asked_again_after_longer_and_longer():
    trial = Trial()
    due = [n for n in range(10, 600) if trial.is_due(n)]
    assert due == [10 + PAUSE * (2**k - 1) for k in range(1, 6)]
    trial.begin(3, [7, 8, 9])
    first = trial.chance(0)
    trial.learn([0, 0, 0, 7, 5])
    assert trial.chance(0) < first  # one was right and one wrong; the third was never asked for
    trial.learn([0, 0, 0, 7, 5, 1])
    assert trial.chance(0) == trial.chance(5)
