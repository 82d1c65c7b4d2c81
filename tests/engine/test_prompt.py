"""What is read from a prompt without writing anything: how likely its ids are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from camelid.engine.engine import Engine, EngineOptions
from camelid.errors import OptionError
from tests.engine.backends import tiny_backend
from tests.model.hf import hf_logits, hf_model
from tests.tiny import tiny_config, tiny_tensors


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("chunk", [1, 7, 512])
def test_a_prompts_logprobs_are_those_of_transformers(kind, chunk):
    config = tiny_config()
    ids = np.random.default_rng(chunk).integers(0, config.vocab_size, 30).tolist()
    logits = hf_logits(hf_model(config, tiny_tensors(config)), ids)
    logs = torch.from_numpy(logits).double().log_softmax(-1)
    best, places = logs.topk(5)

    first, *tokens = Engine(tiny_backend(kind), EngineOptions(max_batch_tokens=chunk)).prompt_logprobs(ids, 5)
    assert first is None
    assert [token.id for token in tokens] == ids[1:]
    for place, token in enumerate(tokens):
        assert token.logprob == pytest.approx(float(logs[place, token.id]), abs=1e-4)
        assert token.rank == int((logs[place] > logs[place, token.id]).sum()) + 1
        assert [one.id for one in token.top] == places[place].tolist()
        assert [one.logprob for one in token.top] == pytest.approx(best[place].tolist(), abs=1e-4)
        assert {one.sampled_logprob for one in token.top} == {None}


def test_a_single_id_has_nothing_before_it_and_none_are_refused():
    engine = Engine(tiny_backend())
    assert engine.prompt_logprobs([5], 3) == [None]
    assert [token.top for token in engine.prompt_logprobs([5, 6, 7])[1:]] == [(), ()]
    assert engine.pages.n_available == engine.pages.n_pages
    with pytest.raises(OptionError, match="at least one"):
        engine.prompt_logprobs([])
