"""What C++ chooses is what `sampling.py` chooses, with the same log-probabilities; or it is not sure."""

from __future__ import annotations

import math

import numpy as np
import pytest

from camelid.engine import _cpu
from camelid.engine.engine import Engine, EngineOptions
from camelid.engine.request import Request, SamplingParams
from camelid.engine.sampling import steps as sampling
from camelid.engine.sampling.choose import Chooser, Writer, slow_choice
from camelid.engine.sequence import Sequence
from camelid.errors import NumericsError
from tests.engine.backends import OracleBackend

OFF = {"temperature": 1.0, "top_p": 1.0}
VALUES = {
    "temperature": lambda rng: float(rng.choice([0.0, 1e-5, 0.3, 0.6, 1.0, 1.5, 100.0])),
    "top_n_sigma": lambda rng: float(rng.uniform(0, 3)),
    "top_k": lambda rng: int(rng.integers(0, 120)),
    "top_p": lambda rng: float(rng.choice([rng.uniform(0.01, 1), 0.9, 0.99999, 0.5])),
    "min_p": lambda rng: float(rng.choice([rng.uniform(0, 1), 0.05, 1.0, 1e-6])),
    "typical": lambda rng: float(rng.uniform(0.01, 1)),
    "epsilon": lambda rng: float(rng.choice([rng.uniform(0, 0.9), 1e-4])),
    "eta": lambda rng: float(rng.choice([rng.uniform(0, 0.9), 1e-3])),
    "repetition_penalty": lambda rng: float(rng.uniform(0.5, 2)),
    "presence_penalty": lambda rng: float(rng.uniform(-2, 2)),
    "frequency_penalty": lambda rng: float(rng.uniform(-2, 2)),
}


class Mask:
    """A form that allows some ids."""

    slow = finished = False

    def __init__(self, allowed: np.ndarray) -> None:
        self._allowed = allowed

    def mask(self) -> np.ndarray:
        return self._allowed


def logits_of(rng: np.random.Generator, size: int) -> tuple[np.ndarray, bool]:
    """A row, and whether its numbers are far from all bounds, so that nearly every choice must be sure."""
    kind = rng.integers(0, 6)
    row = rng.standard_normal(size) * rng.choice([0.5, 2.0, 6.0])
    if kind == 1:
        row = np.round(row)  # ties
    if kind == 2:
        row[rng.random(size) < 0.5] = -np.inf
    if kind == 3:
        row = np.full(size, float(rng.integers(-3, 3)))
    if kind == 4:
        row *= 1e4
    if kind == 5:
        row = row * 0.3 + 14 * (rng.random(size) < 20 / size)  # as a model's: a few likely ids
    if not (row > -np.inf).any():
        row[0] = 1.0
    return row.astype(np.float32), kind in (0, 2, 5)


def writer_of(rng: np.random.Generator, size: int, **always) -> Writer:
    order = str(rng.choice(list(sampling.ORDERS)))
    fields = {sampling.STEPS[name].field for name in sampling.ORDERS[order].steps}
    chosen = {name: value(rng) for name, value in VALUES.items() if name in fields and rng.random() < 0.35}
    if "logit_bias" in fields and rng.random() < 0.2:
        ids, values = rng.integers(0, size, 4), rng.choice([-np.inf, -3.0, 2.5, 1e9, 0.25], 4)
        chosen["logit_bias"] = dict(zip(ids.tolist(), values.tolist(), strict=True))
    if rng.random() < 0.3:
        chosen["penalty_window"] = int(rng.integers(1, 20))
    if rng.random() < 0.3:
        chosen["min_tokens"] = int(rng.integers(0, 9))
    if rng.random() < 0.4:
        chosen["logprobs"] = int(rng.choice([0, 1, 5, 70]))
    chosen["ignore_stop"] = bool(rng.random() < 0.2)
    params = SamplingParams(**{**OFF, **chosen, **always}, order=order)
    prompt = rng.integers(0, size, int(rng.integers(1, 40))).tolist()
    stops = tuple(rng.integers(0, size, 2).tolist()) if size > 4 else ()
    request = Request(ids=tuple(prompt), params=params, stop_ids=stops)
    sequence = Sequence(
        0, request, int(rng.integers(0, 3)), prompt + rng.integers(0, size, int(rng.integers(0, 30))).tolist()
    )
    form = None
    if rng.random() < 0.2:
        allowed = rng.random(size) < 0.3
        allowed[rng.integers(0, size)] = True
        form = Mask(allowed)
    return Writer(sequence, int(rng.integers(0, 2**63)), 10**6, form)


def ask(chooser: Chooser, writer: Writer, row: np.ndarray):
    mask = writer.constraint.mask() if writer.constraint else None
    (choice,) = chooser._ask([writer.chain], [row], [writer], [mask])
    return choice


def compare(chooser: Chooser, writer: Writer, row: np.ndarray) -> bool:
    """Whether C++ was sure, after comparing."""
    found = ask(chooser, writer, row)
    try:
        expected = slow_choice(writer, row)
    except NumericsError:
        assert found is None
        return True
    if found is None:
        return False
    params = writer.sequence.request.params
    about = (params, found, expected)
    if not sampling.is_greedy(params):  # where logits are huge, their differences lose as much in NumPy's own sums
        row = row / params.temperature
    largest = np.abs(row[row > -np.inf]).max()
    exact = 1e-12 + 1e-15 * float(largest)
    assert (found.id, found.rank) == (expected.id, expected.rank), about
    assert found.sampled_logprob == pytest.approx(expected.sampled_logprob, abs=exact, rel=1e-12), about
    assert (found.logprob is None) == (expected.logprob is None)
    if found.logprob is not None:
        assert found.logprob == pytest.approx(expected.logprob, abs=exact, rel=1e-12), about
    assert [each[0] for each in found.top] == [each[0] for each in expected.top], about
    for one, other in zip(found.top, expected.top, strict=True):
        assert one[1] == pytest.approx(other[1], abs=exact, rel=1e-12), about
        assert (one[2] is None) == (other[2] is None), about
        assert one[2] is None or one[2] == pytest.approx(other[2], abs=exact, rel=1e-12), about
    return True


def compare_many(seed: int, n: int, sizes: list[int], isa: str = "", **always) -> None:
    rng, chooser = np.random.default_rng(seed), Chooser(isa)
    sure = []
    for _ in range(n):
        size = int(rng.choice(sizes))
        row, is_usual = logits_of(rng, size)
        writer = writer_of(rng, size, **always)
        was_sure = compare(chooser, writer, row)
        if is_usual and size > 60 and writer.sequence.request.params.typical == 1:
            sure.append(was_sure)
    assert np.mean(sure) > 0.98


@pytest.mark.parametrize("isa", _cpu.instruction_sets())
def test_choices_are_those_of_sampling(isa):
    compare_many(1, 700, [1, 2, 3, 5, 17, 63, 64, 65, 127, 333, 1000], isa)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 8))
def test_many_choices_are_those_of_sampling(seed):
    compare_many(seed, 4000, [1, 2, 3, 4, 63, 64, 65, 640, 1000, 3000])


@pytest.mark.slow
def test_choices_from_large_vocabularies_are_those_of_sampling():
    compare_many(9, 250, [32_000, 49_152, 128_256])


def test_random_numbers_are_those_of_numpy():
    rng = np.random.default_rng(0)
    for purpose in range(4):
        seed, sample, index = (int(rng.integers(0, most)) for most in (2**63, 1024, 2**40))
        bits = np.random.Philox(key=[seed, sample], counter=[index, purpose, 0, 0])
        n = 250_000
        expected = np.random.Generator(bits).random(4 * n)[::4]  # four numbers of each count
        found = [_cpu.chance(seed, sample, index + place, purpose) for place in range(n)]
        np.testing.assert_array_equal(found, expected)
    assert _cpu.chance(2**63 - 1, 5, 7, 3) == sampling.chance(2**63 - 1, 5, 7, 3)


def row_and_writer(row, **changes) -> tuple[np.ndarray, Writer]:
    request = Request(ids=(0,), params=SamplingParams(**{**OFF, "seed": 3, **changes}))
    return np.array(row, np.float32), Writer(Sequence(0, request, 0, [0]), 3, 100, None)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("row", [[0, math.nan], [0, -math.nan], [math.inf, 0], [-math.inf] * 70, [math.nan] * 3])
def test_what_is_an_error_there_is_not_chosen_here(row, temperature):
    for shift in (0, 61, 130):
        logits, writer = row_and_writer(
            [*[-2.0 if math.inf not in row else -math.inf] * shift, *row], temperature=temperature
        )
        if all(value == -math.inf for value in row):
            logits[:] = -math.inf
        assert ask(Chooser(), writer, logits) is None
        with pytest.raises(NumericsError):
            slow_choice(writer, logits)


def test_bounds_that_are_met_exactly_are_left_to_sampling():
    chooser = Chooser()
    for changes in ({"top_p": 0.5, "order": "meta"}, {"top_p": 0.5}):
        logits, writer = row_and_writer([0.0] * 4, **changes)
        assert ask(chooser, writer, logits) is None
    logits, writer = row_and_writer([0.0] * 4, top_p=0.51)
    assert ask(chooser, writer, logits).id in (0, 1, 2)


def test_steps_see_each_id_once_as_the_text_grows():
    """A chain is kept from token to token; one that is made anew says the same."""
    rng, chooser = np.random.default_rng(4), Chooser()
    changes = {"repetition_penalty": 1.3, "frequency_penalty": 0.4, "presence_penalty": 0.2, "temperature": 0.8}
    for order, window in (("camelid", None), ("camelid", 7), ("llama.cpp", None), ("vllm", 5)):
        params = SamplingParams(**changes, top_p=0.9, order=order, penalty_window=window)
        request = Request(ids=tuple(rng.integers(0, 50, 9).tolist()), params=params)
        writer = Writer(Sequence(0, request, 0, list(request.ids)), 11, 10**6, None)
        for _ in range(150):
            row = rng.standard_normal(50).astype(np.float32) * 3
            anew = Writer(writer.sequence, 11, 10**6, None)
            assert ask(chooser, writer, row) == ask(chooser, anew, row)
            assert compare(chooser, writer, row)
            writer.sequence.ids.append(slow_choice(writer, row).id)


def test_texts_are_the_same_without_cpp(monkeypatch):
    requests = [
        Request(ids=(1, 2, place), params=SamplingParams(seed=place, max_tokens=20, **changes))
        for place, changes in enumerate(
            [
                {},
                {"temperature": 0},
                {"top_k": 5, "min_p": 0.05, "repetition_penalty": 1.1},
                {"logprobs": 3},
                {"draft_tokens": 4},
            ]
        )
    ]

    def texts():
        engine = Engine(OracleBackend(), EngineOptions(context=64))
        found = list(engine.stream_all(requests))
        return sorted(
            (number, token.index, token.id, token.rank, [each.id for each in token.top]) for number, token in found
        )

    fast = texts()
    monkeypatch.setattr("camelid.engine.sampling.choose.has_cpu", lambda: False)
    assert fast == texts()


def test_log_probabilities_are_made_where_they_are_asked_for():
    for changes, known in (
        ({}, False),
        ({"logprobs": 0}, True),
        ({"temperature": 0}, False),
        ({"temperature": 0, "logprobs": 2}, True),
    ):
        for choose in (lambda writer, row: ask(Chooser(), writer, row), slow_choice):
            row, writer = row_and_writer([0.5, 2.0, 1.0], **changes)
            choice = choose(writer, row)
            assert (choice.logprob is not None) == (choice.rank is not None) == known
            assert len(choice.top) == changes.get("logprobs", 0)
