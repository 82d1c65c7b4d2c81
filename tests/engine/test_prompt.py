"""What is read from a prompt without writing anything: how likely its ids are, and its hidden states."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import camelid
from camelid.engine.backend import Backend
from camelid.engine.backend_numpy import NumpyBackend
from camelid.engine.batch import Batch, Span
from camelid.engine.engine import Engine, EngineOptions
from camelid.errors import NumericsError, OptionError
from camelid.model.config import ModelConfig
from tests.engine.backends import forward, hidden, mean_hidden, prompt_logprobs, span, tiny_backend
from tests.model.hf import hf_logits, hf_model
from tests.tiny import tiny_config, tiny_tensors
from tests.weights.models import tiny_weights


def backend_of(kind: str, config: ModelConfig) -> Backend:
    """The tiny model of `config`, float32, on a backend."""
    if kind != "cpu":
        return tiny_backend(kind, **dataclasses.asdict(config))
    from camelid.engine.backend_cpu import CpuBackend

    return CpuBackend(tiny_weights("F32", config=config), EngineOptions(threads=2))


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("chunk", [1, 7, 512])
def test_a_prompts_logprobs_are_those_of_transformers(kind, chunk):
    config = tiny_config()
    ids = np.random.default_rng(chunk).integers(0, config.vocab_size, 30).tolist()
    logits = hf_logits(hf_model(config, tiny_tensors(config)), ids)
    logs = torch.from_numpy(logits).double().log_softmax(-1)
    best, places = logs.topk(5)

    first, *tokens = prompt_logprobs(Engine(tiny_backend(kind), EngineOptions(max_batch_tokens=chunk)), ids, 5)
    assert first is None
    assert [token.id for token in tokens] == ids[1:]
    for place, token in enumerate(tokens):
        assert token.logprob == pytest.approx(float(logs[place, token.id]), abs=1e-4)
        assert token.rank == int((logs[place] > logs[place, token.id]).sum()) + 1
        assert [each.id for each in token.top] == places[place].tolist()
        assert [each.logprob for each in token.top] == pytest.approx(best[place].tolist(), abs=1e-4)
        assert {each.sampled_logprob for each in token.top} == {None}


def test_a_single_id_has_nothing_before_it_and_none_are_refused():
    engine = Engine(tiny_backend())
    assert prompt_logprobs(engine, [5], 3) == [None]
    assert [token.top for token in prompt_logprobs(engine, [5, 6, 7])[1:]] == [(), ()]
    assert engine.pages.n_available == engine.pages.n_pages
    with pytest.raises(OptionError, match="at least one"):
        prompt_logprobs(engine, [])


SHAPES = {
    "grouped": {},
    "each its own": {"n_kv_heads": 4},
    "tied": {"ties_embeddings": True, "vocab_size": 333},
    "layer norm, clamp": {"norm": "layer", "clip_qkv": 1.0, "architecture": "olmo"},
    "norms after, qk norm": {"norms_after": True, "qk_norm": True, "architecture": "olmo2"},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["numpy", "torch", "cpu"])
@pytest.mark.parametrize("shape", SHAPES)
def test_hidden_states_are_transformers_last_ones(shape, kind):
    config = tiny_config(**SHAPES[shape])
    ids = np.random.default_rng(1).integers(0, config.vocab_size, 37).tolist()
    with torch.no_grad():
        model = hf_model(config, tiny_tensors(config)).model
        expected = model(torch.tensor([ids])).last_hidden_state[0].numpy()
    for chunk in (5, 512):
        engine = Engine(backend_of(kind, config), EngineOptions(max_batch_tokens=chunk))
        np.testing.assert_allclose(hidden(engine, ids), expected, atol=0.02 if kind == "cpu" else 1e-4)
        np.testing.assert_allclose(mean_hidden(engine, ids), hidden(engine, ids).mean(axis=0), atol=1e-5)
        assert engine.pages.n_available == engine.pages.n_pages


@pytest.mark.parametrize("kind", ["numpy", "torch", "cpu"])
def test_hidden_states_of_wanted_rows_lead_to_their_logits(kind):
    config = tiny_config(vocab_size=333)
    backend = backend_of(kind, config)
    backend.allocate(8)
    asked = (((4, 5), 0, (1,), "last"), ((9,), 0, (2,), "none"), ((1, 2, 3), 0, (0,), "all"))
    states, logits = (forward(backend, *(span(*each, kind) for each in asked)) for kind in ("hidden", "logits"))
    assert (states.shape, states.dtype) == ((4, config.dim), np.float32)
    np.testing.assert_allclose(states @ tiny_tensors(config)["lm_head"].T, logits, atol=2e-3)


@pytest.mark.parametrize("kind", ["numpy", "torch", "cpu"])
def test_a_pass_may_give_logits_and_hidden_states_and_any_stretch_of_rows(kind):
    config = tiny_config(vocab_size=333)
    backend = backend_of(kind, config)
    backend.allocate(8)
    ids = (((4, 5), range(2)), ((9, 8, 7), range(1, 2)), ((1, 2, 3), range(0)), ((6, 5, 4, 3), range(1, 4)))
    kinds = ("hidden", "logits", "logits", "hidden")

    def rows(*numbers):
        spans = tuple(Span(ids[at][0], 0, (at,), ids[at][1], kinds[at]) for at in numbers)
        return backend.forward(Batch(spans))

    together = rows(0, 1, 2, 3)
    assert [part.shape for part in together] == [(2, config.dim), (1, 333), (0, 333), (3, config.dim)]
    for number, part in enumerate(together):
        (alone,) = rows(number)
        np.testing.assert_allclose(part, alone, rtol=0 if kind == "cpu" else 1e-4, atol=0 if kind == "cpu" else 1e-5)


def test_hidden_states_that_are_no_numbers_are_an_error():
    config = tiny_config()
    tensors = tiny_tensors(config)
    tensors["norm"][3] = np.nan
    with pytest.raises(NumericsError, match="hidden states are not finite"):
        hidden(Engine(NumpyBackend(config, tensors)), [1, 2])


def test_a_text_is_embedded_as_the_mean_of_its_hidden_states(smollm2_path):
    llama = camelid.load(smollm2_path)
    texts = ["A dog runs in the park.", "The puppy is running through a garden.", "Interest rates rose by a quarter."]
    vectors = [llama.embed(text) for text in texts]
    assert {(v.shape, v.dtype) for v in vectors} == {((llama.config.dim,), np.dtype(np.float32))}
    np.testing.assert_allclose(vectors[0], hidden(llama.engine, llama.prompt_ids(texts[0])).mean(axis=0), atol=1e-4)
    units = [v / np.linalg.norm(v) for v in vectors]
    assert units[0] @ units[1] > max(units[0] @ units[2], units[1] @ units[2])
    with pytest.raises(OptionError, match="empty"):
        llama.embed("")
