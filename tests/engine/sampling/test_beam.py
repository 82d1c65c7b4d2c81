"""Beam search finds what transformers' generate finds."""

from __future__ import annotations

import pytest
import torch

from camelid.engine.engine import Engine, EngineOptions
from camelid.engine.sampling.beam import beam_search
from tests.engine.backends import OracleBackend, score, tiny_backend
from tests.model.hf import hf_model
from tests.tiny import tiny_config, tiny_tensors

IDS = [5, 9, 200, 17, 3]


@pytest.mark.slow
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_texts_are_those_of_transformers(seed, width, penalty, early):
    config = tiny_config(vocab_size=24)
    oracle = hf_model(config, tiny_tensors(config, seed))
    oracle.generation_config.eos_token_id = 7
    ids = [id % 24 for id in IDS]
    found = oracle.generate(
        torch.tensor([ids]),
        num_beams=width,
        num_return_sequences=width,
        do_sample=False,
        max_new_tokens=10,
        length_penalty=penalty,
        early_stopping=early if width > 1 else False,
        pad_token_id=0,
    )
    expected = [row[len(ids) :] for row in found.tolist()]
    expected = [row[: row.index(7)] if 7 in row else row for row in expected]
    engine = Engine(tiny_backend(seed=seed, page_size=4, vocab_size=24), EngineOptions(context=64, cache_tokens=400))
    beams = beam_search(engine, ids, width, max_tokens=10, length_penalty=penalty, stop_ids=(7,), early_stopping=early)
    assert [list(beam.ids) for beam in beams] == expected
    assert engine.pages.n_available == engine.pages.n_pages


def test_pages_follow_their_beams():
    """A beam that read another's page would see other ids; the oracle backend's logits would tell."""
    engine = Engine(OracleBackend(), EngineOptions(context=64, cache_tokens=1000))
    beams = beam_search(engine, [1, 2, 3], 6, max_tokens=20)
    for beam in beams:
        scored, _ = score(engine, [1, 2, 3, *beam.ids])
        assert beam.logprob == pytest.approx(scored[2:].sum(), abs=1e-4)
