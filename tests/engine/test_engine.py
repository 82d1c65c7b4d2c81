"""The engine: the same tokens alone and in a crowd, with and without cache, in any chunks, after being preempted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.engine.engine import Engine, EngineOptions
from camelid.engine.request import Failed, Request, SamplingParams
from camelid.engine.sampling import distribution
from camelid.errors import NumericsError, OptionError
from tests.engine.backends import OracleBackend, logits, score, tiny_backend
from tests.model.hf import hf_logits, hf_model
from tests.tiny import tiny_config, tiny_tensors

GREEDY = SamplingParams(temperature=0, max_tokens=12)


def request(ids, **changes):
    return Request(ids=tuple(ids), params=GREEDY.with_(**changes))


def alone(backend, req, **options):
    """What the request gives with nothing else, no shared pages, the prompt in one piece."""
    stream = Engine(backend, EngineOptions(prefix_cache=False, **options)).stream(req)
    return [(t.sample, t.index, t.id, t.finish_reason) for t in stream]


prompts = st.lists(st.integers(0, 3), min_size=1, max_size=30)  # few ids, so that beginnings are shared often


@settings(max_examples=60, deadline=None)
@given(
    asked=st.lists(st.tuples(prompts, st.sampled_from([0.0, 1.0]), st.integers(1, 3)), min_size=1, max_size=6),
    chunk=st.sampled_from([1, 3, 7, 512]),
    room=st.sampled_from([48, 64, 400]),
    share=st.booleans(),
)
def test_neighbours_chunks_cache_and_preemption_change_nothing(asked, chunk, room, share):
    options = EngineOptions(context=48, max_batch_tokens=chunk, cache_tokens=room, prefix_cache=share, max_running=4)
    engine = Engine(OracleBackend(), options)
    requests = [
        request(ids, temperature=temperature, top_p=1.0, seed=place, n=n)
        for place, (ids, temperature, n) in enumerate(asked)
    ]
    numbers = [engine.add(each) for each in requests]
    got: dict[int, list] = {number: [] for number in numbers}
    for _ in range(3000):
        tokens = engine.step()
        for t in tokens:
            got[t.request].append((t.sample, t.index, t.id, t.finish_reason))
        if sum(row[-1] is not None for rows in got.values() for row in rows) == sum(n for *_, n in asked):
            break
    for number, one in zip(numbers, requests, strict=True):
        assert sorted(got[number]) == sorted(alone(OracleBackend(), one, context=48))
    assert engine.pages.n_available == engine.pages.n_pages


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("shape", [{}, {"ties_embeddings": True}, {"architecture": "olmo", "norm": "layer"}])
def test_greedy_is_transformers_greedy(kind, shape):
    config = tiny_config(**shape)
    oracle = hf_model(config, tiny_tensors(config, 0))
    ids = expected = [5, 9, 200, 17, 3]
    for _ in range(12):
        expected = [*expected, int(hf_logits(oracle, expected)[-1].argmax())]
    engine = Engine(tiny_backend(kind, **shape), EngineOptions(context=64, max_batch_tokens=3))
    assert [t.id for t in engine.stream(request(ids))] == expected[5:]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_real_backends_in_a_crowd(kind):
    """Different lengths, shared beginnings, chunks: the greedy text of each stays what it is alone."""
    rng = np.random.default_rng(1)
    begin = rng.integers(0, 320, 40).tolist()
    asked = [request(begin[: 40 - 3 * i] + rng.integers(0, 320, 2 * i + 1).tolist()) for i in range(6)]
    engine = Engine(tiny_backend(kind), EngineOptions(context=128, max_batch_tokens=23))
    numbers = [engine.add(each) for each in asked]
    got: dict[int, list[int]] = {number: [] for number in numbers}
    while sum(map(len, got.values())) < 12 * len(asked):
        for token in engine.step():
            got[token.request].append(token.id)
    for number, one in zip(numbers, asked, strict=True):
        assert got[number] == [id for _, _, id, _ in alone(tiny_backend(kind), one, context=128)]


def test_numpy_and_torch_give_the_same_logits():
    ids = np.random.default_rng(3).integers(0, 320, 50).tolist()
    rows = [logits(Engine(tiny_backend(kind), EngineOptions(max_batch_tokens=16)), ids) for kind in ("numpy", "torch")]
    assert rows[0].shape == (50, 320)
    assert rows[0].dtype == rows[1].dtype == np.float32
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-4)


def test_a_beginning_is_read_once():
    backend = OracleBackend()
    engine = Engine(backend, EngineOptions(context=64))
    ids = list(range(20))
    first = list(engine.stream(request(ids)))
    before = backend.forwarded
    second = list(engine.stream(request([*ids, 7, 8])))
    assert first[0].n_cached == 0
    assert second[0].n_cached == 20
    assert backend.forwarded - before == 2 + 11  # the new ids, and those written but the last


def test_stops_and_limits():
    ids = [1, 2, 3]
    engine = Engine(OracleBackend(), EngineOptions(context=32))
    plain = [t.id for t in engine.stream(request(ids))]
    assert len(plain) == 12
    stopped = list(engine.stream(Request(ids=tuple(ids), params=GREEDY, stop_ids=(plain[3],))))
    assert [t.id for t in stopped] == plain[:4]
    assert [t.finish_reason for t in stopped] == [None, None, None, "stop"]
    ignoring = Request(ids=tuple(ids), params=GREEDY.with_(ignore_stop=True), stop_ids=(plain[3],))
    assert plain[3] not in [t.id for t in engine.stream(ignoring)]
    patient = Request(ids=tuple(ids), params=GREEDY.with_(min_tokens=6), stop_ids=(plain[3],))
    assert len(list(engine.stream(patient))) >= 6
    to_the_end = list(engine.stream(request(ids, max_tokens=None)))
    assert len(to_the_end) == 29
    assert to_the_end[-1].finish_reason == "length"


def test_logprobs_are_of_the_raw_distribution():
    backend = OracleBackend()
    engine = Engine(backend, EngineOptions(context=32))
    token = next(iter(engine.stream(request([4, 5], temperature=1.0, top_k=2, top_p=1.0, seed=1, logprobs=5))))
    row = backend.row(np.array([4, 5])).astype(np.float64)
    logprobs = row - np.logaddexp.reduce(row)
    assert token.logprob == pytest.approx(logprobs[token.id])
    assert [each.id for each in token.top] == np.argsort(-logprobs)[:5].tolist()
    best = logprobs[np.argsort(-logprobs)[:2]]
    assert token.sampled_logprob == pytest.approx(logprobs[token.id] - np.logaddexp.reduce(best))


def test_leaving_a_stream_gives_everything_back():
    engine = Engine(OracleBackend(), EngineOptions(context=32))
    stream = engine.stream(request([1, 2, 3], n=3))
    next(stream)
    stream.close()
    assert engine.pages.n_available == engine.pages.n_pages
    assert engine.step() == []


def test_score_is_the_log_of_each_next_probability():
    backend = OracleBackend()
    engine = Engine(backend, EngineOptions(context=32, max_batch_tokens=5))
    ids = [3, 1, 4, 1, 5, 9, 2, 6]
    logprobs, greedy = score(engine, ids)
    for place in range(1, len(ids)):
        row = backend.row(np.array(ids[:place])).astype(np.float64)
        assert logprobs[place - 1] == pytest.approx(row[ids[place]] - np.logaddexp.reduce(row))
        assert greedy[place - 1] == (row.argmax() == ids[place])
    assert len(logprobs) == len(ids) - 1


@pytest.mark.parametrize(
    ("ids", "words"), [([], "no tokens"), ([1] * 32, "context is 32"), ([320], "outside"), ([-1], "outside")]
)
def test_prompts_that_cannot_be_run_are_refused(ids, words):
    with pytest.raises(OptionError, match=words):
        Engine(OracleBackend(), EngineOptions(context=32)).add(request(ids))


def test_broken_weights_are_told():
    backend = tiny_backend()
    backend.tensors["norm"][:] = np.nan
    with pytest.raises(NumericsError, match="not finite"):
        list(Engine(backend).stream(request([1, 2])))


class Pattern:
    """A form: these ids in turn, each from its set; None allows nothing."""

    def __init__(self, sets: list[set[int] | None], at: int = 0) -> None:
        self.sets, self.at = sets, at

    @property
    def finished(self) -> bool:
        return self.at == len(self.sets)

    def mask(self) -> np.ndarray:
        return np.isin(np.arange(320), list(self.sets[self.at] or ()))

    def push(self, id: int) -> None:
        assert id in (self.sets[self.at] or ())
        self.at += 1

    slow = False

    def ready(self, seconds: float = 0.0) -> bool:
        return True

    def fork(self) -> Pattern:
        return Pattern(self.sets, self.at)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_form_is_kept_by_every_sample(temperature):
    engine = Engine(OracleBackend(), EngineOptions(context=32))
    sets = [{4, 5, 6}, {7}, {1, 2, 3}]
    params = GREEDY.with_(temperature=temperature, n=5, seed=3)
    tokens = list(engine.stream(Request(ids=(1, 2), params=params, stop_ids=(7,), constraint=Pattern([*sets]))))
    assert len(tokens) == 10  # the stop id 7 ends each
    assert all(token.id in sets[token.index] for token in tokens)
    tokens = list(engine.stream(Request(ids=(1, 2), params=params, constraint=Pattern([*sets]))))
    assert [token.finish_reason for token in tokens if token.index == 2] == ["stop"] * 5


@pytest.mark.parametrize("changes", [{"min_tokens": 2}, {"ignore_stop": True}])
def test_a_form_and_a_rule_about_stopping_contradict_each_other(changes):
    with pytest.raises(OptionError, match=f"{next(iter(changes))}: the constrained form"):
        Engine(OracleBackend()).add(Request(ids=(1,), params=GREEDY.with_(**changes), constraint=Pattern([{1}])))


def failing(**changes):
    """A request whose third id cannot be."""
    return Request(ids=(1, 2), params=GREEDY.with_(**changes), constraint=Pattern([{1}, {2}, None]))


def test_a_failure_ends_its_own_request_only():
    engine = Engine(OracleBackend(), EngineOptions(context=32))
    fine = [engine.add(request([3, 4], seed=1, temperature=1.0)), engine.add(request([5, 6]))]
    broken = engine.add(failing(n=3))
    got: dict[int, list[int]] = {number: [] for number in (*fine, broken)}
    while engine.is_busy:
        for outcome in engine.step():
            if isinstance(outcome, Failed):
                assert outcome.request == broken
                assert "no id may come" in str(outcome.error)
            else:
                got[outcome.request].append(outcome.id)
    assert [len(got[number]) for number in fine] == [12, 12]
    assert got[fine[1]] == [id for _, _, id, _ in alone(OracleBackend(), request([5, 6]), context=32)]
    assert engine.pages.n_available == engine.pages.n_pages


def test_a_failure_comes_out_of_the_step_in_which_it_happens():
    engine = Engine(OracleBackend(), EngineOptions(context=32))
    number = engine.add(failing())
    outcomes = [engine.step() for _ in range(3)]
    assert [len(written) for written in outcomes] == [1, 1, 1]
    (failed,) = outcomes[2]
    assert (type(failed), failed.request, type(failed.error)) == (Failed, number, NumericsError)
    assert "no id may come" in str(failed.error)
    assert engine.step() == []


def test_a_stream_raises_its_own_failure_and_no_other():
    engine = Engine(OracleBackend(), EngineOptions(context=32))
    fine, broken = engine.stream(request([3, 4])), engine.stream(failing())
    ids = [next(fine).id]
    got = [next(broken).id]
    ids += [token.id for token in fine]
    with pytest.raises(NumericsError):
        got += [token.id for token in broken]
    assert ids == [id for _, _, id, _ in alone(OracleBackend(), request([3, 4]), context=32)]


def test_tokens_of_other_requests_wait_for_their_readers():
    """Streams and steps are mixed; each request's tokens come complete and to the one who asked."""
    engine = Engine(OracleBackend(), EngineOptions(context=32))
    number = engine.add(request([1, 2]))
    first, second = engine.stream(request([3, 4])), engine.stream(request([5, 6]))
    streamed = {3: [next(first).id], 5: [next(second).id]}
    stepped = [token for _ in range(4) for token in engine.step()]
    streamed[5] += [token.id for token in second]
    streamed[3] += [token.id for token in first]
    while engine.is_busy:
        stepped += engine.step()
    stepped += engine.step()
    assert {token.request for token in stepped} == {number}
    for begin, ids in ((1, [token.id for token in stepped]), (3, streamed[3]), (5, streamed[5])):
        assert ids == [id for _, _, id, _ in alone(OracleBackend(), request([begin, begin + 1]), context=32)]


def test_an_interrupt_in_the_middle_of_a_step_harms_nobody():
    class Interrupting(OracleBackend):
        calls = 0

        def row(self, ids: np.ndarray) -> np.ndarray:
            self.calls += 1
            if self.calls == 8:
                raise KeyboardInterrupt
            return super().row(ids)

    engine = Engine(Interrupting(), EngineOptions(context=32))
    kept, left = engine.stream(request([1, 2])), engine.stream(request([3, 4]))
    ids = [next(kept).id]
    with pytest.raises(KeyboardInterrupt):
        list(left)
    ids += [token.id for token in kept]
    assert ids == [id for _, _, id, _ in alone(OracleBackend(), request([1, 2]), context=32)]
    assert engine.pages.n_available == engine.pages.n_pages


def test_an_interrupt_while_a_token_is_chosen_harms_nobody(monkeypatch):
    engine = Engine(OracleBackend(), EngineOptions(context=32))
    number = engine.add(request([1, 2]))
    ids = [token.id for _ in range(3) for token in engine.step()]
    choose, waiting = engine._chooser.choose, [KeyboardInterrupt]

    def interrupted(*arguments):
        if waiting:
            raise waiting.pop()
        return choose(*arguments)

    monkeypatch.setattr(engine._chooser, "choose", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.step()
    while engine.is_busy:
        ids += [token.id for token in engine.step() if token.request == number]
    assert ids == [id for _, _, id, _ in alone(OracleBackend(), request([1, 2]), context=32)]


def test_samples_read_the_prompt_once_and_differ():
    backend = OracleBackend()
    engine = Engine(backend, EngineOptions(context=64))
    ids = list(range(21))  # five pages of four, and one id
    tokens = list(engine.stream(request(ids, n=4, temperature=1.0, top_p=1.0, seed=9)))
    texts = {sample: [t.id for t in tokens if t.sample == sample] for sample in range(4)}
    assert len({tuple(text) for text in texts.values()}) == 4
    assert backend.forwarded == 21 + 3 * 1 + 4 * 11
    again = list(engine.stream(request(ids, n=2, temperature=1.0, top_p=1.0, seed=9)))
    assert {sample: [t.id for t in again if t.sample == sample] for sample in range(2)} == {0: texts[0], 1: texts[1]}


def test_cancelling_gives_pages_back_at_any_time():
    engine = Engine(OracleBackend(), EngineOptions(context=64, max_batch_tokens=7, max_running=2))
    numbers = [engine.add(request(range(start, start + 20), n=2)) for start in range(5)]
    for number in numbers:
        engine.step()
        engine.cancel(number)
        engine.cancel(number)  # a second time does nothing
    assert not engine.is_busy
    assert engine.pages.n_available == engine.pages.n_pages


def test_pages_found_after_a_preemption_are_not_called_cached():
    engine = Engine(OracleBackend(), EngineOptions(context=48, cache_tokens=48, prefix_cache=True))
    for begin in (0, 100):
        engine.add(request(range(begin, begin + 20), max_tokens=28))
    tokens = []
    while engine.is_busy:
        tokens += engine.step()
    assert len(tokens) == 2 * 28
    assert {token.n_cached for token in tokens} == {0}


def test_alternatives_tell_what_sampling_left():
    backend = OracleBackend()
    engine = Engine(backend, EngineOptions(context=32))
    params = {"temperature": 0.5, "top_k": 3, "top_p": 1.0, "seed": 1, "logprobs": 5}
    token = next(iter(engine.stream(request([4, 5], **params))))
    probabilities = distribution(backend.row(np.array([4, 5])), GREEDY.with_(**params), [4, 5])
    assert [each.sampled_logprob is None for each in token.top] == [False] * 3 + [True] * 2
    for each in token.top[:3]:
        assert each.sampled_logprob == pytest.approx(np.log(probabilities[each.id]))
    assert token.id == token.top[token.rank - 1].id


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_stopping_is_as_in_transformers_generate(kind):
    """With a stop id and the repetition penalty, whose rules differ between engines."""
    import torch

    config = tiny_config(vocab_size=24)
    oracle = hf_model(config, tiny_tensors(config, 0))
    ended = 0
    for begin in range(8):
        ids = [begin, 9, 20]
        found = oracle.generate(
            torch.tensor([ids]),
            do_sample=False,
            max_new_tokens=20,
            repetition_penalty=1.3,
            eos_token_id=7,
            pad_token_id=7,
        )
        params = GREEDY.with_(repetition_penalty=1.3, order="hf", max_tokens=20)
        engine = Engine(tiny_backend(kind, vocab_size=24), EngineOptions(context=64))
        tokens = list(engine.stream(Request(ids=tuple(ids), params=params, stop_ids=(7,))))
        assert [token.id for token in tokens] == found[0, 3:].tolist()
        ended += tokens[-1].finish_reason == "stop"
    assert 0 < ended < 8


def test_a_cache_smaller_than_the_context_is_refused():
    with pytest.raises(OptionError, match="cache_tokens: 32 is less than the context, 64"):
        Engine(OracleBackend(), EngineOptions(context=64, cache_tokens=32))


def test_stop_ids_outside_the_vocabulary_do_no_harm():
    """Some models name stop ids that they cannot write."""
    patient = Request(ids=(1, 2), params=GREEDY.with_(min_tokens=4), stop_ids=(5000,))
    assert len(list(Engine(OracleBackend(), EngineOptions(context=32)).stream(patient))) == 12
