"""Sampling steps against values worked out by hand, their properties, and the draw."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation import logits_process as oracle

from camelid.engine.request import SamplingParams
from camelid.engine.sampling.steps import (
    ORDERS,
    STEPS,
    Seen,
    check,
    distribution,
    draw,
    process,
    raw_logprobs,
)
from camelid.errors import NumericsError, OptionError

P = np.array([0.5, 0.25, 0.15, 0.07, 0.03])
LOGITS = np.log(P).astype(np.float32)
OFF = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical": 1.0}


def given_off(**changes):
    return SamplingParams(**{**OFF, **changes})


def survivors(params, logits=LOGITS):
    return np.flatnonzero(distribution(logits, params, [])).tolist()


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (0.5, (0.733568, 0.183392, 0.066021, 0.014378, 0.002641)),
        (1.0, P),
        (2.0, (0.347954, 0.246041, 0.190582, 0.130192, 0.085231)),
        (0.0, (1, 0, 0, 0, 0)),
    ],
)
def test_temperature(temperature, expected):
    np.testing.assert_allclose(distribution(LOGITS, given_off(temperature=temperature), []), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"top_k": 1}, [0]),
        ({"top_k": 3}, [0, 1, 2]),
        ({"top_k": 99}, [0, 1, 2, 3, 4]),
        ({"top_p": 0.4}, [0]),
        ({"top_p": 0.6}, [0, 1]),
        ({"top_p": 0.76}, [0, 1, 2]),
        ({"min_p": 0.2}, [0, 1, 2]),
        ({"min_p": 1.0}, [0]),
        ({"typical": 0.2}, [1]),  # H = 1.26906: nearest is the second, then the first, then the third
        ({"typical": 0.5}, [0, 1]),
        ({"typical": 0.8}, [0, 1, 2]),
        ({"logit_bias": {0: float("-inf"), 4: 1.0}}, [1, 2, 3, 4]),
    ],
)
def test_what_is_left(changes, expected):
    assert survivors(given_off(**changes)) == expected


# Four equal tokens: the mass before the third is 0.5 exactly. Only Meta's rule keeps it.
@pytest.mark.parametrize(("order", "left"), [("camelid", 2), ("llama.cpp", 2), ("vllm", 2), ("hf", 2), ("meta", 3)])
def test_top_p_on_the_boundary(order, left):
    assert len(survivors(given_off(top_p=0.5, order=order), np.zeros(4, np.float32))) == left


@pytest.mark.parametrize(
    ("order", "expected"),
    [("camelid", 3), ("vllm", 3), ("hf", 3), ("meta", 3), ("llama.cpp", 2)],
)
def test_temperature_first_or_last(order, expected):
    assert len(survivors(given_off(temperature=2.0, top_p=0.6, order=order))) == expected


def test_hf_keeps_ties_with_the_kth():
    tied = np.array([3.0, 2.0, 2.0, 2.0, 1.0], np.float32)
    assert survivors(given_off(top_k=2, order="hf"), tied) == [0, 1, 2, 3]
    assert survivors(given_off(top_k=2), tied) == [0, 1]


def test_penalties_by_hand():
    logits = np.array([2.0, -1.0, 0.5, 0.0], np.float32)
    prompt, output = [0, 3], [1, 1]

    def after(**changes):
        shifted = np.log(distribution(logits, given_off(**changes), prompt, output))
        return shifted - shifted[2]  # id 2 was never seen

    np.testing.assert_allclose(after(repetition_penalty=2.0), [0.5, -2.5, 0, -0.5], atol=1e-9)
    np.testing.assert_allclose(after(presence_penalty=0.5), [1.5, -2.0, 0, -0.5], atol=1e-9)
    np.testing.assert_allclose(after(frequency_penalty=0.5), [1.5, -2.5, 0, -0.5], atol=1e-9)
    np.testing.assert_allclose(after(frequency_penalty=0.5, order="llama.cpp"), [1.0, -2.5, 0, -1.0], atol=1e-9)
    np.testing.assert_allclose(after(repetition_penalty=2.0, penalty_window=2), [1.5, -2.5, 0, -0.5], atol=1e-9)


def test_a_choice_that_an_order_has_no_step_for_is_refused():
    with pytest.raises(OptionError, match="top_k: order 'meta'"):
        check(given_off(top_k=5, order="meta"), 10)
    with pytest.raises(OptionError, match="presence_penalty"):
        check(given_off(presence_penalty=1.0, order="hf"), 10)
    with pytest.raises(OptionError, match="logit_bias: id 10"):
        check(given_off(logit_bias={10: 1.0}), 10)


in_its_time = settings(deadline=None)  # the machine may be busy
finite = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40).map(lambda x: np.array(x, np.float32))
choices = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0, 3),
        "top_k": st.integers(0, 50),
        "top_p": st.floats(0.01, 1),
        "min_p": st.floats(0, 1),
        "typical": st.floats(0.01, 1),
        "repetition_penalty": st.floats(0.5, 3),
    },
)


@pytest.mark.slow
@in_its_time
@given(finite, choices, st.data())
def test_what_is_left_is_a_distribution(logits, changes, data):
    seen = data.draw(st.lists(st.integers(0, len(logits) - 1), max_size=5))
    order = data.draw(st.sampled_from(["camelid", "llama.cpp", "hf"]))
    probabilities = distribution(logits, given_off(**changes, order=order), seen, seen)
    assert probabilities.sum() == pytest.approx(1, abs=1e-9)
    assert (probabilities >= 0).all()
    assert draw(probabilities, 1, 0, 0) in np.flatnonzero(probabilities)


@in_its_time
@given(finite)
def test_choices_at_their_off_value_change_nothing(logits):
    plain = np.exp(raw_logprobs(logits))
    for order in ORDERS:
        np.testing.assert_allclose(distribution(logits, given_off(order=order), [0], [0]), plain, rtol=1e-9)


@in_its_time
@given(finite, st.sampled_from(["top_k", "top_p", "min_p", "typical"]), st.floats(0.02, 0.98))
def test_truncation_keeps_the_ratios_of_what_it_keeps(logits, name, value):
    changes = {name: max(1, round(value * 10)) if name == "top_k" else value}
    plain, cut = np.exp(raw_logprobs(logits)), distribution(logits, given_off(**changes), [])
    kept = cut > 0
    np.testing.assert_allclose(cut[kept] * plain[kept].sum(), plain[kept], rtol=1e-6, atol=1e-12)
    if name != "typical":
        assert kept[logits.argmax()]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_an_error(bad):
    with pytest.raises(NumericsError, match="not finite"):
        distribution(np.array([1.0, bad], np.float32), given_off(), [])


def test_nothing_left_is_an_error():
    with pytest.raises(NumericsError, match="no id may come"):
        distribution(np.full(3, -np.inf, np.float32), given_off(), [])


def test_draws_follow_the_probabilities():
    n = 20_000
    counts = np.bincount([draw(P, 42, 0, index) for index in range(n)], minlength=5)
    chi_square = ((counts - n * P) ** 2 / (n * P)).sum()
    assert chi_square < 18.5  # 4 degrees of freedom: exceeded once in a thousand seeds


def test_a_draw_depends_on_seed_sample_and_place_only():
    assert draw(P, 1, 0, 5) == draw(P, 1, 0, 5)
    assert len({tuple(draw(P, seed, sample, i) for i in range(40)) for seed in (1, 2) for sample in (0, 1)}) == 4


def test_every_step_is_in_an_order_and_every_order_knows_its_steps():
    assert {name for order in ORDERS.values() for name in order.steps} == set(STEPS)


def test_new_cut_offs_by_hand():
    """H = 1.26906, so eta's bound is min(e, sqrt(e) · 0.28110); the logits' population deviation is 0.97932."""
    assert survivors(given_off(epsilon=0.1)) == [0, 1, 2]
    assert survivors(given_off(epsilon=0.9)) == [0]
    assert survivors(given_off(eta=0.1)) == [0, 1, 2]  # 0.0889
    assert survivors(given_off(eta=0.05)) == [0, 1, 2, 3]  # 0.05, not 0.0629
    assert survivors(given_off(top_n_sigma=1.0)) == [0, 1]  # ln 0.25 lies 0.693 below, ln 0.15 lies 1.204 below
    assert survivors(given_off(top_n_sigma=2.0, order="llama.cpp")) == [0, 1, 2]  # ln 0.07 lies 1.966 below


def test_vllm_keeps_ties_with_the_kth():
    assert survivors(given_off(top_k=2, order="vllm"), np.array([3.0, 2.0, 2.0, 1.0], np.float32)) == [0, 1, 2]


@in_its_time
@given(finite, choices, st.floats(0.001, 0.5), st.floats(0.001, 0.5), st.data())
def test_the_hf_order_is_that_of_transformers(logits, changes, epsilon, eta, data):
    """Logits are made coarse: ties are frequent, and sums meet a bound exactly or not nearly."""
    changes = {"epsilon": epsilon, "eta": eta, **changes, "temperature": data.draw(st.sampled_from([0.5, 1.0, 2.0]))}
    logits = np.round(logits)
    seen = data.draw(st.lists(st.integers(0, len(logits) - 1), min_size=1, max_size=5))
    makers = {
        "repetition_penalty": oracle.RepetitionPenaltyLogitsProcessor,
        "temperature": oracle.TemperatureLogitsWarper,
        "top_k": lambda k: oracle.TopKLogitsWarper(k) if k else lambda ids, scores: scores,
        "top_p": oracle.TopPLogitsWarper,
        "min_p": oracle.MinPLogitsWarper,
        "typical": lambda mass: oracle.TypicalLogitsWarper(mass) if mass < 1 else lambda ids, scores: scores,
        "epsilon": oracle.EpsilonLogitsWarper,
        "eta": oracle.EtaLogitsWarper,
    }
    scores = torch.from_numpy(logits.astype(np.float64))[None]
    for name, make in makers.items():
        if name in changes:
            scores = make(changes[name])(torch.tensor([seen]), scores)
    expected = scores.softmax(-1)[0].numpy()
    found = distribution(logits, given_off(**changes, order="hf"), seen[:2], seen[2:])
    np.testing.assert_allclose(np.sort(found), np.sort(expected), atol=1e-9)  # which of equal ids goes is not defined


@in_its_time
@given(finite, st.floats(0.001, 0.999), st.booleans())
def test_top_p_is_its_slow_twin(logits, p, meta):
    kept, before = set(), 0.0
    powers = np.exp(logits.astype(np.float64) - logits.max())
    probabilities = powers / powers.sum()
    for id in sorted(range(len(logits)), key=lambda id: (-logits[id], id)):
        if before <= p if meta else before < p:
            kept.add(id)
        before += probabilities[id]
    found = survivors(given_off(top_p=p, order="meta" if meta else "camelid"), logits)
    assert set(found) == {id for id in kept if probabilities[id] > 0}


@in_its_time
@given(finite, st.data())
def test_penalties_are_their_slow_twins(logits, data):
    ids = st.lists(st.integers(0, len(logits) - 1), max_size=80)
    prompt, output = data.draw(ids), data.draw(ids)
    repetition, presence, frequency = 1.5, 0.3, 0.7
    for order, counted, window in (("camelid", output, 0), ("vllm", output, 0), ("llama.cpp", [*prompt, *output], 64)):
        expected = logits.astype(np.float64)
        for id in range(len(logits)):
            if id in [*prompt, *output][-window:]:
                expected[id] *= repetition if expected[id] <= 0 else 1 / repetition
            count = counted[-window:].count(id)
            expected[id] -= frequency * count + (presence if count else 0)
        params = given_off(
            repetition_penalty=repetition, presence_penalty=presence, frequency_penalty=frequency, order=order
        )
        processed = process(logits, params, Seen(prompt, output))
        np.testing.assert_allclose(processed, expected, atol=1e-9)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"logit_bias": {1: float("nan")}}, "logit_bias: for id 1"),
        ({"logit_bias": {1: float("inf")}}, "logit_bias: for id 1"),
        ({"logit_bias": {1: 1.7e308}}, "logit_bias: for id 1"),
        ({"logit_bias": {1: -1.1e100}}, "logit_bias: for id 1"),
        ({"stop_ids": (10,)}, "stop_ids: id 10"),
        ({"stop_ids": (-1,)}, "stop_ids: id -1"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens: 5"),
    ],
)
def test_choices_that_cannot_be_are_refused(changes, words):
    with pytest.raises(OptionError, match=words):
        check(given_off(**changes), 10)


def test_a_bias_that_bans_everything_is_an_error():
    for temperature in (0.0, 1.0):
        bias = {id: float("-inf") for id in range(5)}
        params = given_off(temperature=temperature, logit_bias=bias, top_p=0.9, min_p=0.1)
        with pytest.raises(NumericsError, match="no id may come"):
            distribution(LOGITS, params, [])


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_that_the_generator_cannot_take_are_refused(seed):
    with pytest.raises(OptionError, match="seed"):
        SamplingParams(seed=seed)
    assert 0 <= draw(P, 2**63 - 1, 1023, 10**6) < 5


def test_greedy_takes_the_lower_of_equal_ids():
    assert survivors(given_off(temperature=0.0), np.array([1.0, 3.0, 3.0, 2.0], np.float32)) == [1]


@pytest.mark.parametrize("order", [name for name, order in ORDERS.items() if "bias" in order.steps])
@pytest.mark.parametrize("temperature", [0.0, 1e-5, 1.0, 100.0])
@pytest.mark.parametrize("bias", [{4: 1e100}, {0: -1e100, 1: -3.4e38, 2: -1e9, 3: -np.inf}])
def test_a_large_bias_decides_and_overflows_nowhere(order, temperature, bias):
    """Warnings of NumPy are errors in this suite."""
    values = {"top_n_sigma": 2.0, "top_k": 4, "top_p": 0.9, "min_p": 0.1, "typical": 0.9, "epsilon": 0.01, "eta": 0.01}
    values |= {"repetition_penalty": 100.0, "presence_penalty": 100.0, "frequency_penalty": 100.0}
    fields = {step.field for name, step in STEPS.items() if name in ORDERS[order].steps}
    chosen = {name: value for name, value in values.items() if name in fields}
    params = given_off(**chosen, temperature=temperature, logit_bias=bias, order=order)
    check(params, 5)
    assert distribution(LOGITS, params, [0, 4], [0, 4, 4]).argmax() == 4
