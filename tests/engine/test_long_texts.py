"""RoPE rules that depend on a text's length: every backend writes what transformers writes, in any company."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from camelid.engine.backend import Backend
from camelid.engine.engine import Engine
from camelid.engine.options import EngineOptions
from camelid.engine.request import Request, SamplingParams
from camelid.engine.sampling.beam import beam_search
from camelid.model.config import ModelConfig, RopeScaling
from camelid.weights import Tensor, Weights
from tests.engine.backends import logits
from tests.model.hf import hf_logits, hf_model
from tests.tiny import tiny_config, tiny_tensors

ORIGINAL = 40
SHORT, LONG = tuple(1.0 + 0.05 * i for i in range(8)), tuple(1.2 + 1.5 * i for i in range(8))
RULES = {
    "dynamic": (
        RopeScaling(rule="dynamic", factor=4.0, original_context=ORIGINAL),
        {"rope_type": "dynamic", "factor": 4.0},
    ),
    "longrope": (
        RopeScaling(
            rule="longrope", original_context=ORIGINAL, attention_factor=1.1, divisors=SHORT, long_divisors=LONG
        ),
        {
            "rope_type": "longrope",
            "short_factor": list(SHORT),
            "long_factor": list(LONG),
            "original_max_position_embeddings": ORIGINAL,
            "attention_factor": 1.1,
        },
    ),
}
WRITTEN = 14
GREEDY = {"temperature": 0.0, "max_tokens": WRITTEN}
LENGTHS = (30, ORIGINAL - 1, ORIGINAL, ORIGINAL + 1, 90)


@pytest.fixture(params=RULES, scope="module")
def case(request):
    scaling, rope = RULES[request.param]
    config = tiny_config(rope_scaling=scaling, context=4 * ORIGINAL)
    tensors = tiny_tensors(config, seed=5)
    rng = np.random.default_rng(1)
    beginning = rng.integers(3, config.vocab_size, max(LENGTHS)).tolist()
    prompts = [beginning[:length] for length in LENGTHS]  # all begin alike: pages are shared wherever they may be
    oracle = hf_model(config, tensors, **rope)
    return config, tensors, prompts, oracle, [written(oracle, prompt) for prompt in prompts]


def loaded(kind: str, config: ModelConfig, tensors: dict[str, np.ndarray]) -> Backend:
    from camelid.engine.load import choose_backend

    stored = {name: Tensor.from_array(name, array) for name, array in tensors.items()}
    return choose_backend(
        Weights(Path("tiny"), "hf", config, stored), kind, EngineOptions(context=4 * ORIGINAL, threads=2)
    )


def written(oracle, prompt: list[int]) -> list[int]:
    """What `generate` of a model that has not seen another text writes."""
    oracle(torch.tensor([[1, 2]]))  # a short text brings its frequencies back
    out = oracle.generate(
        torch.tensor([prompt]),
        max_new_tokens=WRITTEN,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        use_cache=True,
    )
    return out[0, len(prompt) :].tolist()


def answers(engine: Engine, prompts: list[list[int]], **params) -> list[list[int]]:
    """Answers to all prompts at once."""
    numbers = [engine.add(Request(ids=tuple(p), params=SamplingParams(**GREEDY | params))) for p in prompts]
    found: dict[int, list[int]] = {number: [] for number in numbers}
    while engine.is_busy:
        for token in engine.step():
            found[token.request].append(token.id)
    return [found[number] for number in numbers]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["numpy", "torch", "cpu"])
def test_texts_are_those_of_transformers_alone_and_in_a_crowd(case, kind):
    config, tensors, prompts, _, expected = case
    backend = loaded(kind, config, tensors)
    options = {"context": 4 * ORIGINAL, "max_batch_tokens": 24}  # prompts are read in chunks
    assert [answers(Engine(backend, EngineOptions(**options)), [prompt])[0] for prompt in prompts] == expected
    crowd = Engine(backend, EngineOptions(**options))
    assert answers(crowd, prompts) == expected
    assert answers(crowd, prompts) == expected  # on pages that were kept
    small = Engine(backend, EngineOptions(**options, cache_tokens=4 * ORIGINAL))  # some are pushed out and come back
    assert answers(small, prompts) == expected


@pytest.mark.slow
def test_guesses_change_nothing(case):
    config, tensors, prompts, _, expected = case
    backend, draft = (loaded("numpy", config, tensors) for _ in range(2))
    options = EngineOptions(context=4 * ORIGINAL)
    engine = Engine(backend, options, draft=draft)
    assert answers(engine, prompts, draft_tokens=3) == expected
    assert engine.n_accepted == engine.n_drafted > 30  # the same model guesses right always, if it turns alike
    assert answers(Engine(backend, options), prompts, draft_tokens=3) == expected


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["numpy", "torch", "cpu"])
def test_logits_of_a_whole_text_are_those_of_one_forward_pass(case, kind):
    config, tensors, prompts, oracle, _ = case
    engine = Engine(loaded(kind, config, tensors), EngineOptions(context=4 * ORIGINAL, max_batch_tokens=16))
    for prompt in prompts:
        oracle(torch.tensor([[1, 2]]))
        expected = hf_logits(oracle, prompt)
        np.testing.assert_allclose(logits(engine, prompt), expected, atol=0.02 if kind == "cpu" else 1e-4, rtol=0)


@pytest.mark.slow
def test_beams_are_those_of_transformers(case):
    config, tensors, prompts, oracle, _ = case
    engine = Engine(loaded("numpy", config, tensors), EngineOptions(context=4 * ORIGINAL))
    for prompt in (prompts[0], prompts[-2]):
        oracle(torch.tensor([[1, 2]]))
        out = oracle.generate(
            torch.tensor([prompt]), max_new_tokens=12, num_beams=3, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        assert list(beam_search(engine, prompt, 3, max_tokens=12)[0].ids) == out[0, len(prompt) :].tolist()


def test_only_texts_that_turn_alike_share_pages(case):
    config, tensors, prompts, *_ = case
    engine = Engine(loaded("numpy", config, tensors), EngineOptions(context=4 * ORIGINAL))

    def n_cached(prompt: list[int]) -> int:
        (token, *_) = engine.stream(Request(ids=tuple(prompt), params=SamplingParams(temperature=0.0, max_tokens=1)))
        return token.n_cached

    assert [n_cached(prompt) for prompt in (prompts[1], prompts[1])] == [0, 32]  # within the original context
    assert n_cached(prompts[-1]) == 0
    assert n_cached(prompts[-1]) == 80
    assert n_cached(prompts[-1][:-1]) == (80 if config.rope_scaling.rule == "longrope" else 0)
