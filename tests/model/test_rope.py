"""Rotary tables: published counts, transformers' numbers, and the way back from GGUF's divisors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camelid.model.config import RopeScaling
from camelid.model.rope import divisors, inverse_frequencies, recognise_divisors, rope_table
from tests.tiny import tiny_config


@pytest.mark.parametrize(("head_dim", "factor", "expected"), [(128, 8.0, (29, 6, 29)), (64, 32.0, (15, 3, 14))])
def test_llama3_scaling_leaves_blends_and_divides_as_many_as_published(head_dim, factor, expected):
    scaling = RopeScaling(rule="llama3", factor=factor)
    by = divisors(tiny_config(head_dim=head_dim, rope_theta=5e5, rope_scaling=scaling))
    unchanged, divided = by == 1, np.isclose(by, factor, rtol=1e-6)
    assert (unchanged.sum(), (~unchanged & ~divided).sum(), divided.sum()) == expected


@given(st.sampled_from([2.0, 8.0, 32.0, 13.5]), st.sampled_from([32, 64, 128]), st.sampled_from([1e5, 5e5, 1e6]))
def test_divisors_lead_back_to_the_rule(factor, head_dim, theta):
    scaling = RopeScaling(rule="llama3", factor=factor)
    config = tiny_config(head_dim=head_dim, rope_theta=theta, rope_scaling=scaling)
    found = recognise_divisors(head_dim, theta, divisors(config))
    assert found.rule == "llama3"
    assert found.factor == pytest.approx(factor, rel=1e-6)


def test_divisors_of_no_known_rule_are_kept_as_they_are():
    values = np.linspace(1, 3, 8, dtype=np.float32)
    found = recognise_divisors(16, 1e4, values)
    assert found.rule == "divisors"
    config = tiny_config(rope_scaling=found)
    np.testing.assert_allclose(divisors(config), values, rtol=1e-6)
    np.testing.assert_allclose(inverse_frequencies(tiny_config()) / inverse_frequencies(config), values, rtol=1e-6)


def test_position_zero_does_not_turn():
    cos, sin = rope_table(tiny_config(), np.array([0]))
    assert (cos == 1).all()
    assert (sin == 0).all()
