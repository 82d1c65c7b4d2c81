"""Guesses change how many passes are needed, and nothing else: not a token, not the distribution, nobody beside."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.engine.engine import Engine, EngineOptions
from camelid.engine.load import choose_backend
from camelid.engine.request import Failed, Request, SamplingParams
from camelid.engine.sampling import steps as sampling
from camelid.engine.sampling.choose import Chooser
from camelid.engine.speculative.draft_model import DraftModel
from camelid.errors import OptionError
from camelid.weights.tensor import Tensor
from camelid.weights.weights import Weights
from tests.engine.backends import OracleBackend, tiny_backend
from tests.engine.test_engine import Pattern
from tests.tiny import tiny_config, tiny_tensors

PLAIN = SamplingParams(temperature=0, top_p=1.0, max_tokens=12, draft_tokens=0)


class Watched(OracleBackend):
    """An oracle with four ids, so that guesses are often right; counts passes and checks their size."""

    def __init__(self, page_size: int = 4, most: int = 10**9, vocab_size: int = 4) -> None:
        super().__init__(tiny_config(vocab_size=vocab_size, context=200), page_size)
        self.most, self.n_passes = most, 0

    def forward(self, batch):
        assert sum(len(span.ids) for span in batch.spans) <= self.most
        assert all(span.start + len(span.ids) <= self.config.context for span in batch.spans)
        self.n_passes += 1
        return super().forward(batch)


class Near(Watched):
    """Like the oracle, but not quite."""

    def row(self, ids):
        return super().row(ids) + 0.5 * super().row(np.append(ids, 99))


class Copying(Watched):
    """Writes what stood seven ids ago."""

    def row(self, ids):
        return np.where(np.arange(self.config.vocab_size) == ids[max(len(ids) - 7, 0)], 9, 0).astype(np.float32)


def request(ids, **changes):
    return Request(ids=tuple(ids), params=PLAIN.with_(**changes))


def real_backend(kind: str):
    if kind == "numpy":
        return tiny_backend()
    config = tiny_config()
    stored = {name: Tensor.from_array(name, array) for name, array in tiny_tensors(config).items()}
    return choose_backend(Weights(Path("tiny"), "hf", config, stored), "cpu", EngineOptions(context=128, threads=1))


def run(engine: Engine, requests: list[Request]) -> list[list]:
    """All tokens of each request, in the order of samples; nothing may be left over."""
    numbers = [engine.add(each) for each in requests]
    got: dict[int, list] = {number: [] for number in numbers}
    for _ in range(3000):
        for token in engine.step():
            got[token.request].append(replace(token, request=0, n_cached=0))
        if not engine.is_busy:
            break
    for pages in (engine.pages, *([engine._proposer.pages] if isinstance(engine._proposer, DraftModel) else [])):
        assert pages.n_available == pages.n_pages
    return [sorted(got[number], key=lambda token: (token.sample, token.index)) for number in numbers]


def alone(req: Request, draft=None, backend=None, context=48) -> list:
    return run(Engine(backend or Watched(), EngineOptions(context=context, prefix_cache=False), draft), [req])[0]


prompts = st.lists(st.integers(0, 3), min_size=1, max_size=30)
kinds = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 1.0]),
        "n": st.integers(1, 3),
        "draft_tokens": st.sampled_from([0, 1, 3, 8, "auto", "auto"]),
        "repetition_penalty": st.sampled_from([1.0, 1.3]),
        "min_tokens": st.sampled_from([0, 5]),
        "stop_ids": st.sampled_from([(), (2,)]),
        "max_tokens": st.sampled_from([5, 12, None]),
        "logprobs": st.sampled_from([None, 2]),
        "logit_bias": st.sampled_from([{}, {1: 1.5, 3: -float("inf")}]),
    }
)
crowds = st.lists(st.tuples(prompts, kinds), min_size=1, max_size=5)
engines = {
    "chunk": st.sampled_from([3, 7, 512]),
    "room": st.sampled_from([48, 64, 400]),
    "share": st.booleans(),
}


def crowd(asked, chunk, room, share, draft=None):
    options = EngineOptions(context=48, max_batch_tokens=chunk, cache_tokens=room, prefix_cache=share, max_running=4)
    requests = [request(ids, seed=place, **kind) for place, (ids, kind) in enumerate(asked)]
    return requests, run(Engine(Watched(most=chunk), options, draft), requests)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(asked=crowds, **engines)
def test_looked_up_guesses_change_no_token(asked, chunk, room, share):
    """Not even drawn ones; with penalties, stops and limits, in a crowd, in a cache that is too small."""
    requests, got = crowd(asked, chunk, room, share)
    for one, tokens in zip(requests, got, strict=True):
        assert tokens == alone(replace(one, params=one.params.with_(draft_tokens=0)))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(asked=crowds, **engines, draft=st.sampled_from([Near, lambda most: Near(8, most)]))
def test_a_draft_model_changes_no_token(asked, chunk, room, share, draft):
    """Drawn ones neither: the model draws with the same numbers, whoever guesses."""
    requests, got = crowd(asked, chunk, room, share, draft(most=chunk))
    for one, tokens in zip(requests, got, strict=True):
        assert tokens == alone(replace(one, params=one.params.with_(draft_tokens=0)))


@pytest.mark.parametrize("kind", ["numpy", "cpu"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_real_models_write_the_same_text(temperature, kind):
    rng = np.random.default_rng(2)
    asked = [(rng.integers(0, 320, 5).tolist() * 6)[: 20 + place] for place in range(4)]
    texts = {}
    for k in (0, "auto", 4):
        engine = Engine(real_backend(kind), EngineOptions(context=128, max_batch_tokens=40))
        got = run(
            engine, [request(ids, temperature=temperature, seed=1, draft_tokens=k, max_tokens=40) for ids in asked]
        )
        texts[k] = [[token.id for token in tokens] for tokens in got]
    assert texts[0] == texts[4] == texts["auto"]
    assert engine.n_drafted
    if not temperature:
        assert engine.n_accepted


def test_copying_takes_few_passes():
    ids, backends = [0, 1, 2, 3, 3, 2, 1] * 2, (Copying(), Copying())
    plain, quick = (Engine(backend, EngineOptions(context=200)) for backend in backends)
    (expected,) = run(plain, [request(ids, max_tokens=100)])
    (got,) = run(quick, [request(ids, max_tokens=100, draft_tokens=9)])
    assert got == expected
    assert backends[0].n_passes == 100
    assert backends[1].n_passes == 11  # the prompt, and ten ids a pass
    assert quick.n_accepted == quick.n_drafted == 89


def test_nothing_is_read_after_a_stop_and_no_page_is_kept_for_a_wrong_guess():
    ids = [0, 1, 2, 3, 3, 2, 1] * 2
    for draft in (None, Copying()):
        engine = Engine(Copying(), EngineOptions(context=200), draft)
        (tokens,) = run(engine, [request(ids, draft_tokens=9, stop_ids=(3,))])
        assert [token.id for token in tokens] == [0, 1, 2, 3]
        assert engine.n_accepted == engine.n_drafted == 2  # the prompt gives 0; the row after 2 gives 3
    engine = Engine(Watched(), EngineOptions(context=48))
    engine.add(request([1, 2, 3, 0] * 4, draft_tokens=16, max_tokens=30))
    while engine.is_busy:
        engine.step()
        for each in engine._scheduler.running:
            assert len(each.pages) <= -(-len(each.ids) // 4)
    assert 0 < engine.n_accepted < engine.n_drafted


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_draft_model_that_is_the_model_is_always_right(temperature):
    backend, draft = Watched(vocab_size=320), Watched(vocab_size=320)
    engine = Engine(backend, EngineOptions(context=48), draft)
    (tokens,) = run(engine, [request([5, 6, 7], temperature=temperature, draft_tokens=4, seed=3, max_tokens=31)])
    assert len(tokens) == 31
    assert engine.n_accepted == engine.n_drafted == 24
    assert backend.n_passes == 7
    assert draft.forwarded <= backend.forwarded == 33  # neither reads an id twice


@pytest.mark.slow
@pytest.mark.parametrize("draft", [None, Near()])
def test_texts_have_the_models_own_distribution(draft):
    """All texts of three ids over four, with a penalty that looks back: expected share against counted share."""
    n, ids, params = 3000, [1, 2, 1], {"temperature": 0.8, "repetition_penalty": 1.2, "max_tokens": 3}
    backend = Watched()
    engine = Engine(backend, EngineOptions(context=48), draft)
    tokens = [run(engine, [request(ids, seed=seed, draft_tokens=3, **params)])[0] for seed in range(n)]
    assert 0 < engine.n_accepted < engine.n_drafted
    counts: dict[tuple, int] = {}
    for text in tokens:
        key = tuple(token.id for token in text)
        counts[key] = counts.get(key, 0) + 1
    for text in itertools.product(range(4), repeat=3):
        share = 1.0
        for place, id in enumerate(text):
            row = backend.row(np.array([*ids, *text[:place]]))
            share *= sampling.distribution(row, PLAIN.with_(**params), ids, text[:place])[id]
        assert counts.get(text, 0) / n == pytest.approx(share, abs=4 * (share / n) ** 0.5 + 1e-3)


def test_auto_guesses_nothing_where_a_longer_pass_rounds_otherwise():
    ids = [0, 1, 2, 3, 3, 2, 1] * 2
    for same_bits, draft, drafts in ((True, None, True), (False, None, False), (False, Copying(), True)):
        backend = Copying()
        backend.same_bits = same_bits
        engine = Engine(backend, EngineOptions(context=200), draft)
        run(engine, [request(ids, max_tokens=60, draft_tokens="auto")])
        assert (engine.n_drafted > 0) is drafts


def test_auto_takes_few_passes_where_the_text_stands_already_and_costs_none_where_it_does_not():
    for backend, most in ((Copying(), 12), (Watched(vocab_size=320), 100)):
        engine = Engine(backend, EngineOptions(context=200))
        (got,) = run(engine, [request([0, 1, 2, 3, 3, 2, 1] * 2, max_tokens=100, draft_tokens="auto")])
        assert len(got) == 100
        assert backend.n_passes <= most
        assert engine.n_drafted - engine.n_accepted < 10


@pytest.mark.parametrize("right", [True, False])
def test_a_draft_model_is_asked_as_often_as_it_pays(right):
    """One that is always wrong is asked less and less; then neither of them computes more than without."""
    backend, draft = Watched(vocab_size=320), Watched(vocab_size=320)
    if not right:
        draft.row = lambda ids: -Watched.row(draft, ids)
    draft.config = replace(draft.config, n_layers=1, ffn_dim=1, dim=1)  # a small one, by its number of weights
    engine = Engine(backend, EngineOptions(context=200), draft)
    engine._proposer._pass_positions = lambda: 2.0  # whatever this machine does just now
    engine._proposer.cost.note = lambda positions, seconds: None
    (tokens,) = run(engine, [request([5, 6, 7], max_tokens=190, draft_tokens="auto")])
    assert tokens == alone(request([5, 6, 7], max_tokens=190), backend=Watched(vocab_size=320), context=200)
    if right:
        assert backend.n_passes < 60
        assert engine.n_accepted == engine.n_drafted
    else:
        assert engine.n_drafted < 20
        assert draft.n_passes < 30


@pytest.mark.parametrize("draft", [None, Near(vocab_size=320)])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_form_is_kept(draft, temperature):
    """To its end, and as far as a stop id in it."""
    sets = [{4, 5, 6}, {7}, {1, 2, 3}, {4, 5}, {7}, {1, 2}]
    params = PLAIN.with_(temperature=temperature, n=3, seed=3, draft_tokens=4)
    begin = (4, 7, 1, 4, 7, 2, 9)
    engine = Engine(Watched(vocab_size=320), EngineOptions(context=48), draft)
    for stop_ids, length in (((), 6), ((7,), 2)):
        form = Request(ids=begin, params=params, stop_ids=stop_ids, constraint=Pattern([*sets]))
        (tokens,) = run(engine, [form])
        assert len(tokens) == 3 * length
        assert all(token.id in sets[token.index] for token in tokens)
        plain = replace(form, params=params.with_(draft_tokens=0), constraint=Pattern([*sets]))
        assert tokens == alone(plain, backend=Watched(vocab_size=320))
    assert engine.n_accepted or draft is None


@pytest.mark.parametrize("draft", [None, Near(vocab_size=320)])
def test_a_form_that_cannot_be_kept_fails_where_it_would_and_alone(draft):
    begin, params = (4, 7, 1, 4, 7, 2, 9, 4), PLAIN.with_(draft_tokens=4)
    engine = Engine(Watched(vocab_size=320), EngineOptions(context=48), draft)
    broken = engine.add(Request(ids=begin, params=params, constraint=Pattern([{4}, {7}, {1}, None])))
    fine = engine.add(request(begin, draft_tokens=4))
    got: dict[int, list] = {broken: [], fine: []}
    failed = []
    while engine.is_busy:
        for outcome in engine.step():
            if isinstance(outcome, Failed):
                failed.append(str(outcome.error))
            else:
                got[outcome.request].append(outcome.id)
    assert failed == ["no id may come next; loosen logit_bias or the constrained form"]
    assert got[broken] == [4, 7, 1]
    assert got[fine] == [token.id for token in alone(request(begin), backend=Watched(vocab_size=320))]


def test_cancelling_gives_all_pages_back():
    engine = Engine(Watched(), EngineOptions(context=48, max_batch_tokens=9, max_running=2), Near(most=9))
    numbers = [engine.add(request([start] * 9, n=2, draft_tokens=5, temperature=start % 2)) for start in range(4)]
    for number in numbers:
        engine.step()
        engine.step()
        engine.cancel(number)
    assert not engine.is_busy
    for pages in (engine.pages, engine._proposer.pages):
        assert pages.n_available == pages.n_pages


@pytest.mark.parametrize("draft", [None, Near()])
@pytest.mark.parametrize("call", range(2, 20, 3))
def test_an_interrupt_harms_nobody(monkeypatch, draft, call):
    """Wherever a distribution is made: while guesses are made, or while they are checked; or an id is chosen in C++."""
    one = request([1, 2, 1, 2, 1], draft_tokens=4, temperature=1.0, seed=5)
    expected, calls = alone(one, draft), itertools.count()
    made, asked = sampling.distribution, Chooser._ask

    def interrupted(of):
        def called(*arguments):
            if next(calls) == call:
                raise KeyboardInterrupt
            return of(*arguments)

        return called

    engine = Engine(Watched(), EngineOptions(context=48), draft)
    stream = engine.add(one)
    monkeypatch.setattr("camelid.engine.sampling.steps.distribution", interrupted(made))
    monkeypatch.setattr("camelid.engine.sampling.choose.Chooser._ask", interrupted(asked))
    tokens = []
    while engine.is_busy:
        try:
            tokens += engine.step()
        except KeyboardInterrupt:
            continue
    tokens += engine.step()
    assert {token.request for token in tokens} == {stream}
    assert [token.id for token in tokens] == [token.id for token in expected]


def test_a_draft_model_with_a_short_context_guesses_as_far_as_it_reaches():
    draft = Near()
    draft.config = replace(draft.config, context=10)
    engine = Engine(Watched(), EngineOptions(context=48), draft)
    for temperature in (0.0, 1.0):
        asked = request([1, 2, 3], draft_tokens=4, temperature=temperature, seed=1, max_tokens=30)
        long = request([1, 2, 3] * 5, draft_tokens=4, temperature=temperature, seed=1, max_tokens=30)
        tokens, after = run(engine, [asked, long])
        assert tokens == alone(replace(asked, params=asked.params.with_(draft_tokens=0)))
        assert after == alone(replace(long, params=long.params.with_(draft_tokens=0)))
        assert len(tokens) == len(after) == 30


def test_a_broken_draft_model_is_told_and_does_no_harm(caplog):
    class Broken(Watched):
        def row(self, ids):
            return np.full(4, np.nan, np.float32)

    asked = request([1, 2, 3], draft_tokens=4)
    assert alone(asked, Broken()) == alone(request([1, 2, 3]))
    assert "the draft model cannot propose tokens: logits are not finite" in caplog.text


def test_a_draft_model_with_another_vocabulary_is_refused():
    with pytest.raises(OptionError, match="draft: its vocabulary has 5 ids, the model's 4"):
        Engine(Watched(), EngineOptions(context=48), Watched(vocab_size=5))
