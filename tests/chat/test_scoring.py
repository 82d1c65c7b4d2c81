"""Many texts at once: the numbers and the texts that each gives alone, computed together."""

from __future__ import annotations

import numpy as np
import pytest

import camelid
from camelid.chat import scoring
from camelid.chat.scoring import Text, negative_loglikelihoods
from camelid.engine import Engine, EngineOptions
from camelid.engine.backend_numpy import NumpyBackend
from camelid.errors import ContextError, OptionError
from camelid.model.config import RopeScaling
from tests.engine.backends import OracleBackend, score
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
        assert (likelihood.is_greedy, likelihood.n_tokens) == (alone.is_greedy, alone.n_tokens)
    texts = ["The quick brown fox jumps.", "The quick brown llama jumps.", "Once more"]
    for text, perplexity in zip(texts, llama.perplexities(texts), strict=True):
        assert perplexity.nll == pytest.approx(llama.perplexity(text).nll, abs=1e-3)


def test_many_prompts_are_written_together_and_as_alone(llama):
    prompts = ["Once upon a time", "The capital of France is", "Once upon a hill"]
    options = {"temperature": 0.8, "seed": 3, "max_tokens": 12, "stop": (",",)}
    together = llama.generate_all(prompts, **options)
    assert [made.text for made in together] == [llama.generate(prompt, **options).text for prompt in prompts]
    assert not llama.engine.is_busy
