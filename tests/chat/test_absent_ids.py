"""Rows of a padded embedding, and unused pieces, are no tokens: no backend ever writes or counts one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from camelid.chat.activations import Flow
from camelid.chat.llama import Llama
from camelid.engine.backend import absent_ids
from camelid.engine.engine import Engine, EngineOptions
from camelid.engine.load import choose_backend
from camelid.errors import OptionError
from camelid.tokens.tokenizer import Tokenizer
from tests.tiny import tiny_config
from tests.tokens.vocabularies import small_bytes, small_llama2
from tests.weights.models import tiny_weights

N_TOKENS, ROWS = 300, 320


def _tokenizer() -> Tokenizer:
    """256 bytes, an end, two tokens, and what converters fill up with: unused, and called user-defined once."""
    fields = dict(small_bytes("<|end|>", "<|a|>", "<|b|>").to_gguf())
    n = N_TOKENS - 259
    fields["tokenizer.ggml.tokens"] += [f"[PAD{259 + at}]" for at in range(n)]
    fields["tokenizer.ggml.token_type"] += [5] * (n - 3) + [4, 4, 1]
    return Tokenizer.from_gguf(fields)


@pytest.fixture(scope="module", params=["numpy", "torch", "cpu"])
def llama(request: pytest.FixtureRequest) -> Llama:
    weights = tiny_weights(config=tiny_config(vocab_size=ROWS), load_tokenizer=_tokenizer, stop_ids=(256,))
    options = EngineOptions(threads=1)
    both = [choose_backend(weights, request.param, options) for weights in (weights, replace(weights))]
    return Llama(weights, Engine(both[0], options, both[1]), None)


def test_which_ids_are_absent() -> None:
    tokenizer = _tokenizer()
    assert tokenizer.absent_ids(ROWS).tolist() == [*range(259, ROWS)]
    assert tokenizer.encode("[PAD298][PAD299]") == [*tokenizer.encode("[PAD298]"), *tokenizer.encode("[PAD299]")]
    assert len(small_llama2().absent_ids(small_llama2().vocab_size)) == 0
    weights = tiny_weights(config=tiny_config(vocab_size=ROWS), load_tokenizer=_tokenizer, stop_ids=(256, 310))
    assert absent_ids(weights).tolist() == [id for id in range(259, ROWS) if id != 310]
    assert len(absent_ids(tiny_weights())) == 0


def test_none_is_drawn(llama: Llama) -> None:
    for seed in range(4):
        answer = llama.generate(
            "a", temperature=50, top_p=1, max_tokens=150, seed=seed, logprobs=1000, ignore_stop=True
        )
        assert max(answer.ids) < 259
        assert {len(token.top) for token in answer.tokens} == {259}
        assert np.logaddexp.reduce([likely.logprob for likely in answer.tokens[0].top]) == pytest.approx(0, abs=1e-6)
    guessed = llama.generate("a", temperature=50, top_p=1, max_tokens=150, seed=0, draft_tokens=3, ignore_stop=True)
    assert max(guessed.ids) < 259


def test_none_in_tables_beams_and_the_flow(llama: Llama) -> None:
    table = llama.next("a", 1000)
    assert len(table.tokens) == 259
    assert table.sum == pytest.approx(1)
    assert table.tokens[-1].cumulative == pytest.approx(1)
    for beam in (found := llama.beams("a", 3, max_tokens=20), *found.others):
        assert max(beam.ids) < 259
    rows = llama.logits([1, 2, 3])
    assert np.isneginf(rows[:, 259:]).all()
    assert np.isfinite(rows[:, :259]).all()
    assert np.isneginf(Flow(llama).read([97]).logits[259:]).all()


@pytest.mark.parametrize("choice", [{"logit_bias": {299: 5.0}}, {"stop_ids": (310,)}])
def test_a_choice_about_one_is_refused(llama: Llama, choice: dict[str, object]) -> None:
    with pytest.raises(OptionError, match="is no token of this model"):
        llama.generate("a", max_tokens=1, **choice)
