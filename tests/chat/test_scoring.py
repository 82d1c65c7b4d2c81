"""Many texts at once: the numbers and the texts that each gives alone, computed together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import camelid
from camelid.chat import scoring
from camelid.chat.scoring import PairEncoder, Text, negative_loglikelihoods
from camelid.engine import Engine, EngineOptions
from camelid.engine.backend_numpy import NumpyBackend
from camelid.errors import ContextError, OptionError
from camelid.model.config import RopeScaling
from tests.engine.backends import OracleBackend, score
from tests.engine.test_backend_cpu import cpu, weights
from tests.tiny import tiny_config, tiny_tensors

ENDS = (" Paris", " Paris, of course", " Rome", " Rome", " the city of light", "Paris")


@pytest.fixture(scope="module")
def llama(smollm2_path):
    return camelid.load(smollm2_path)


def loglikelihoods(engine, texts):
    """All in the texts' order."""
    found = dict(scoring.loglikelihoods(engine, texts))
    assert sorted(found) == list(range(len(texts)))
    return [found[place] for place in range(len(texts))]


def random_texts(n, longest=30):
    """Few ids, so that contexts and longer beginnings are shared often."""
    rng = np.random.default_rng(n)
    texts = []
    for _ in range(n):
        ids = tuple(rng.integers(0, 2, rng.integers(2, longest)).tolist())
        texts.append(Text(ids, int(rng.integers(1, len(ids)))))
    return texts


@pytest.mark.parametrize("options", [{}, {"max_batch_tokens": 5}, {"prefix_cache": False}, {"cache_tokens": 48}])
@pytest.mark.parametrize("n", [1, 7, 200])
def test_loglikelihoods_are_those_of_the_rows(n, options):
    engine, texts = Engine(OracleBackend(), EngineOptions(context=48, **options)), random_texts(n)
    for text, likelihood in zip(texts, loglikelihoods(engine, texts), strict=True):
        rows = [engine.backend.row(np.array(text.ids[:end])) for end in range(text.start, len(text.ids))]
        wanted = [row.astype(np.float64) - np.logaddexp.reduce(row.astype(np.float64)) for row in rows]
        following = text.ids[text.start :]
        total = sum(row[id] for row, id in zip(wanted, following, strict=True))
        assert likelihood.logprob == pytest.approx(total, abs=1e-6 * len(following))
        assert likelihood.is_greedy == all(row.argmax() == id for row, id in zip(rows, following, strict=True))
        assert likelihood.n_tokens == len(following)
    assert engine.pages.n_available == engine.pages.n_pages


def test_a_context_is_computed_once_for_all_that_follow_it():
    backend = OracleBackend()
    engine, context = Engine(backend, EngineOptions(context=64)), tuple(range(30))
    loglikelihoods(engine, [Text((*context, 100 + n), 30) for n in range(40)])
    assert backend.forwarded == 30
    loglikelihoods(engine, [Text((*context, 100 + n, 5), 30) for n in range(40)])
    assert backend.forwarded <= 30 + engine.pages.page_size + 40


few = st.lists(st.integers(0, 2), min_size=2, max_size=20)


@settings(max_examples=150, deadline=None)
@given(
    drawn=st.lists(st.tuples(few, st.integers(1, 19)), min_size=1, max_size=30),
    page_size=st.integers(1, 9),
    chunk=st.sampled_from([1, 3, 512]),
    share=st.booleans(),
    window=st.sampled_from([2, 4096]),
    most_open=st.sampled_from([1, 3, 2048]),
)
def test_a_tree_says_what_each_text_says_alone(drawn, page_size, chunk, share, window, most_open):
    """Bit for bit, and where all of it is there at once each of its ids is computed once."""
    texts = [Text(tuple(ids), min(start, len(ids) - 1)) for ids, start in drawn]
    options = EngineOptions(context=48, cache_tokens=4096, max_batch_tokens=chunk, prefix_cache=share)
    backend = OracleBackend(page_size=page_size)
    engine = Engine(backend, options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "WINDOW", window)
        patch.setattr(scoring, "MOST_OPEN", most_open)
        together = loglikelihoods(engine, texts)
    if share and (window, most_open) == (4096, 2048):
        nodes = {text.ids[:end] for text in texts for end in range(1, len(text.ids))}
        assert backend.forwarded == len(nodes)
    alone = Engine(OracleBackend(page_size=page_size), EngineOptions(context=48, prefix_cache=False))
    for text, likelihood in zip(texts, together, strict=True):
        assert loglikelihoods(alone, [text]) == [likelihood]
    assert engine.pages.n_available == engine.pages.n_pages


def test_few_texts_wait_for_one_that_waits_itself():
    """Contexts that grow id by id, each with other ends: one branch holds them all."""
    backend = OracleBackend()
    engine = Engine(backend, EngineOptions(context=128, max_batch_tokens=512))
    texts = [Text((*range(100, 100 + n), 300 - n, 5), n) for n in range(1, 80)]
    n_passes, forward = 0, backend.forward

    def counted(batch):
        nonlocal n_passes
        n_passes += 1
        return forward(batch)

    backend.forward = counted
    loglikelihoods(engine, texts)
    assert n_passes == 2


def test_endless_texts_are_scored_in_bounded_memory(monkeypatch):
    monkeypatch.setattr(scoring, "WINDOW", 10)
    monkeypatch.setattr(scoring, "MOST_OPEN", 10)
    n_taken = 0

    def texts():
        nonlocal n_taken
        while True:
            n_taken += 1
            yield Text((1, 2, n_taken % 300, 5), 2)

    engine = Engine(OracleBackend(), EngineOptions(context=48))
    found = scoring.loglikelihoods(engine, texts())
    for n_given in range(1, 200):
        next(found)
        assert n_taken - n_given <= 30
    found.close()
    assert not engine.is_busy
    assert engine.pages.n_available == engine.pages.n_pages


def test_scores_are_those_of_transformers():
    torch = pytest.importorskip("torch")
    from tests.model.hf import hf_model

    config = tiny_config()
    tensors = tiny_tensors(config)
    oracle = hf_model(config, tensors)
    rng = np.random.default_rng(5)
    texts = []
    for _ in range(12):
        context = tuple(rng.integers(0, 320, rng.integers(1, 60)).tolist())
        ends = [tuple(rng.integers(0, 320, rng.integers(1, 8)).tolist()) for _ in range(4)]
        texts += [Text((*context, *end), len(context)) for end in [*ends, (*ends[0], 3), ends[1][:1]]]
    expected = []
    for text in texts:
        with torch.no_grad():
            rows = torch.log_softmax(oracle(torch.tensor([text.ids])).logits[0].double(), -1)[text.start - 1 : -1]
        ids = torch.tensor(text.ids[text.start :])
        expected.append((float(rows.gather(1, ids[:, None]).sum()), bool((rows.argmax(-1) == ids).all())))
    backends = [(NumpyBackend(config, tensors, page_size), 1e-4) for page_size in (1, 5, 16)]
    backends.append((cpu(weights(config, "F32")), 5e-3))  # its keys and values have eleven bits
    for backend, tolerance in backends:
        for (logprob, is_greedy), likelihood in zip(expected, loglikelihoods(Engine(backend), texts), strict=True):
            assert likelihood.logprob == pytest.approx(logprob, abs=tolerance)
            assert likelihood.is_greedy == is_greedy


@pytest.mark.parametrize("quant", ["Q4_0", "Q8_0", "BF16"])
def test_the_cpu_engine_gives_the_same_bits_in_a_crowd(quant):
    config = tiny_config(vocab_size=333)
    rng = np.random.default_rng(3)
    contexts = [tuple(rng.integers(0, 333, n).tolist()) for n in (70, 33, 16, 15)]
    contexts.append((*contexts[0][:50], 7))
    texts = [Text((*c, *rng.integers(0, 3, rng.integers(1, 5)).tolist()), len(c)) for c in contexts for _ in range(12)]
    together = loglikelihoods(Engine(cpu(weights(config, quant), threads=2)), texts)
    for text, likelihood in zip(texts[::5], together[::5], strict=True):
        assert loglikelihoods(Engine(cpu(weights(config, quant)), EngineOptions(prefix_cache=False)), [text]) == [
            likelihood
        ]


def test_angles_that_depend_on_a_texts_length_are_those_of_the_whole_text():
    scaling = RopeScaling(rule="dynamic", factor=4.0, original_context=20)
    config = tiny_config(rope_scaling=scaling, context=80)
    backend = NumpyBackend(config, tiny_tensors(config))
    context = tuple(np.random.default_rng(0).integers(0, 300, 19).tolist())
    texts = [Text((*context, *range(5, 5 + n)), 19) for n in (1, 2, 3, 9, 9, 10)]
    alone = Engine(backend, EngineOptions(context=80, prefix_cache=False))
    expected = [float(score(alone, text.ids, text.start)[0].sum()) for text in texts]
    together = loglikelihoods(Engine(backend, EngineOptions(context=80)), texts)
    np.testing.assert_allclose([each.logprob for each in together], expected, atol=1e-4)


def test_windows_count_each_id_once():
    engine = Engine(OracleBackend(), EngineOptions(context=8))
    texts = [list(range(n, n + length)) for n, length in ((0, 2), (0, 8), (1, 9), (2, 30), (2, 30))]
    for ids, (nll, count) in zip(texts, negative_loglikelihoods(engine, texts), strict=True):
        parts = [score(engine, ids[start : start + 8])[0] for start in range(0, len(ids) - 1, 7)]
        assert count == len(ids) - 1 == sum(map(len, parts))
        assert nll == pytest.approx(-sum(float(part.sum()) for part in parts))


def test_a_text_that_cannot_be_scored_ends_all():
    engine = Engine(OracleBackend(), EngineOptions(context=8))
    with pytest.raises(OptionError, match="at least one token"):
        loglikelihoods(engine, [Text((1, 2), 1), Text((1, 2), 2)])
    with pytest.raises(ContextError, match="has 9 tokens"):
        loglikelihoods(engine, [Text((1, 2), 1), Text(tuple(range(9)), 1)])
    assert not engine.is_busy
    assert engine.step() == []


def test_a_model_says_of_many_what_it_says_of_each(llama):
    pairs = [("The capital of France is", end) for end in ENDS] + [("2 + 2 =", " 4"), ((1, 2, 3), " x")]
    together = llama.loglikelihoods(pairs)
    for pair, likelihood in zip(pairs, together, strict=True):
        alone = llama.loglikelihood(*pair)
        assert likelihood.logprob == pytest.approx(alone.logprob, abs=1e-4)
        assert replace(likelihood, logprob=0) == replace(alone, logprob=0)
    texts = ["The quick brown fox jumps.", "The quick brown llama jumps.", "Once more"]
    for text, perplexity in zip(texts, llama.perplexities(texts), strict=True):
        assert perplexity.nll == pytest.approx(llama.perplexity(text).nll, abs=1e-3)


def encoder(llama):
    return PairEncoder(llama.tokenizer, llama.prompt_ids)


def test_spaces_that_end_a_context_count_to_the_continuation(llama):
    text = encoder(llama).encode("The answer: ", "Paris")
    assert list(text.ids) == llama.prompt_ids("The answer: Paris")
    assert list(text.ids[: text.start]) == llama.prompt_ids("The answer:")
    assert text.n_moved == 0
    likelihood = llama.loglikelihood("The answer: ", "Päris")
    assert (likelihood.n_chars, likelihood.n_bytes, likelihood.n_moved) == (5, 6, 0)


def test_a_token_that_holds_the_end_of_the_context_is_the_continuations(llama):
    moved = encoder(llama).encode("The capital of Fra", "nce")
    assert list(moved.ids) == llama.prompt_ids("The capital of France")
    assert list(moved.ids[: moved.start]) == llama.prompt_ids("The capital of")
    assert moved.n_moved == len(llama.prompt_ids("The capital of Fra")) - moved.start > 0
    assert llama.loglikelihood("The capital of Fra", "nce").n_moved == moved.n_moved


def test_before_an_empty_context_stands_the_id_that_begins_texts(llama):
    tokenizer = llama.tokenizer
    for context in ("", "  "):
        text = encoder(llama).encode(context, "Paris")
        assert (text.start, text.n_moved, text.ids[0]) == (1, 0, tokenizer.bos_id)
        assert list(text.ids[1:]) == tokenizer.encode(context + "Paris")
    assert llama.loglikelihood("", "Paris").n_tokens == len(tokenizer.encode("Paris"))


def test_many_prompts_are_written_together_and_as_alone(llama):
    prompts = ["Once upon a time", "The capital of France is", "Once upon a hill"]
    options = {"temperature": 0.8, "seed": 3, "max_tokens": 12, "stop": (",",)}
    together = llama.generate_all(prompts, **options)
    assert [made.text for made in together] == [llama.generate(prompt, **options).text for prompt in prompts]
    first, generation = next(llama.iter_generations(iter(prompts), **options))
    assert generation.text == together[first].text
    assert not llama.engine.is_busy
