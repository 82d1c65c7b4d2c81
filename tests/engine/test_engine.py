"""The engine: the same tokens alone and in a crowd, with and without cache, in any chunks, after being pushed out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.engine.engine import Engine, EngineOptions
from camelid.engine.request import Request, SamplingParams
from camelid.errors import NumericsError, OptionError
from tests.engine.backends import OracleBackend, tiny_backend
from tests.model.hf import hf_logits, hf_model
from tests.tiny import tiny_config, tiny_tensors

GREEDY = SamplingParams(temperature=0, max_tokens=12)


def request(ids, **changes):
    return Request(ids=tuple(ids), params=GREEDY.with_(**changes))


def alone(backend, req, **options):
    """What the request gives with nothing else, no shared pages, the prompt in one piece."""
    engine = Engine(backend, EngineOptions(prefix_cache=False, **options))
    return [(t.sample, t.index, t.id, t.finish_reason) for t in engine.stream(req)]


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
    numbers = [engine.add(one) for one in requests]
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
    ids = [5, 9, 200, 17, 3]
    expected = list(ids)
    for _ in range(12):
        expected.append(int(hf_logits(oracle, expected)[-1].argmax()))
    engine = Engine(tiny_backend(kind, **shape), EngineOptions(context=64, max_batch_tokens=3))
    assert [t.id for t in engine.stream(request(ids))] == expected[5:]


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_real_backends_in_a_crowd(kind):
    """Different lengths, shared beginnings, chunks: the greedy text of each stays what it is alone."""
    rng = np.random.default_rng(1)
    begin = rng.integers(0, 320, 40).tolist()
    asked = [request(begin[: 40 - 3 * i] + rng.integers(0, 320, 2 * i + 1).tolist()) for i in range(6)]
    engine = Engine(tiny_backend(kind), EngineOptions(context=128, max_batch_tokens=23))
    numbers = [engine.add(one) for one in asked]
    got: dict[int, list[int]] = {number: [] for number in numbers}
    while sum(map(len, got.values())) < 12 * len(asked):
        for token in engine.step():
            got[token.request].append(token.id)
    for number, one in zip(numbers, asked, strict=True):
        assert got[number] == [id for _, _, id, _ in alone(tiny_backend(kind), one, context=128)]


def test_numpy_and_torch_give_the_same_logits():
    ids = np.random.default_rng(3).integers(0, 320, 50).tolist()
    rows = [Engine(tiny_backend(kind), EngineOptions(max_batch_tokens=16)).logits(ids) for kind in ("numpy", "torch")]
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
    assert [one.id for one in token.top] == np.argsort(-logprobs)[:5].tolist()
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
    logprobs, greedy = engine.score(ids)
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
