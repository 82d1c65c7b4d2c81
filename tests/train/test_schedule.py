"""The learning rate at the points that papers name, and between them."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camelid.errors import OptionError
from camelid.train.schedule import SCHEDULES, learning_rate
from camelid.train.stages.pretrain import PretrainOptions


def test_llama2_is_the_paper():
    """facts 5.1: step 0 → 0, step 2000 → peak, last step → 10 %."""
    options = PretrainOptions(preset="llama2")
    assert learning_rate(options, 0) == 0
    assert learning_rate(options, 1000) == pytest.approx(1.5e-4, rel=1e-12)
    assert learning_rate(options, 2000) == 3e-4
    half = 2000 + (options.steps - 2000) // 2
    assert learning_rate(options, half) == pytest.approx(3e-4 * 0.55, rel=1e-12)
    assert learning_rate(options, options.steps) == pytest.approx(3e-5, rel=1e-12)
    said = (options.betas, options.eps, options.weight_decay, options.clip, options.context, options.z_loss)
    assert said == ((0.9, 0.95), 1e-5, 0.1, 1.0, 4096, 0.0)
    assert options.steps * options.batch_tokens == pytest.approx(2.0e12, rel=0.05)


def test_modern_is_warm_up_stable_decay():
    options = PretrainOptions(preset="modern", steps=1000, warmup_steps=100, lr=1.0)
    assert [learning_rate(options, step) for step in (50, 100, 500, 800)] == [0.5, 1.0, 1.0, 1.0]
    assert learning_rate(options, 850) == pytest.approx(1 - math.sqrt(0.25))
    assert learning_rate(options, 1000) == 0
    assert options.z_loss > 0


@given(st.sampled_from(sorted(SCHEDULES)), st.integers(0, 50), st.integers(1, 400), st.floats(0, 1))
def test_up_then_down(schedule, warmup, rest, ratio):
    steps = warmup + rest
    options = PretrainOptions(schedule=schedule, steps=steps, warmup_steps=warmup, min_lr_ratio=ratio, lr=1e-3)
    rates = [learning_rate(options, step) for step in range(steps + 1)]
    assert all(one <= other for one, other in itertools.pairwise(rates[: warmup + 1]))
    assert all(one >= other - 1e-15 for one, other in itertools.pairwise(rates[warmup:]))
    assert max(rates) == 1e-3
    assert rates[-1] == pytest.approx(1e-3 * (1 if schedule == "constant" else ratio), abs=1e-15)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"preset": "lama2"}, "preset: no 'lama2'; did you mean 'llama2'?"),
        ({"steps": 100}, "warmup_steps: 2000 is not below steps, 100"),
        ({"context": 1000}, "batch_tokens: 4194304 is not a whole number of rows of 1000"),
        ({"stpes": 3}, "stpes: no such option; did you mean 'steps'?"),
        ({"lr": -1}, "lr: must be greater than 0, got -1"),
    ],
)
def test_mistakes_are_one_line(values, words):
    with pytest.raises(OptionError) as error:
        PretrainOptions(**values)
    assert str(error.value).startswith(words)


def test_what_is_given_beats_the_preset():
    assert PretrainOptions(preset="modern", z_loss=0.5).z_loss == 0.5
    assert PretrainOptions(preset="modern").with_(steps=9999).schedule == "wsd"
