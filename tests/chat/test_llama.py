"""Llama with the real default model: answers, streams, tables, likelihoods."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import camelid
from camelid.chat.answer import Answer, collect
from camelid.errors import ContextError, OptionError
from camelid.tokens.templates.chat_format import Message

DECK = "The best thing about AI is its ability to"


def test_paris(llama):
    answer = llama.chat("What is the capital of France?", temperature=0, max_tokens=40)
    assert "Paris" in answer.text
    assert answer.finish_reason == "stop"
    assert answer.text == llama.tokenizer.decode(answer.ids)
    assert answer.usage.completion_tokens == len(answer.ids) + 1  # the stop id is counted, not shown


@pytest.mark.slow
def test_streamed_pieces_join_to_the_whole_answer(llama):
    choices = {"temperature": 0.9, "seed": 11, "max_tokens": 40, "stop": (" the",)}
    whole = llama.generate(DECK, **choices)
    pieces = list(llama.stream(DECK, **choices))
    assert "".join(piece.text for piece in pieces) == whole.text
    assert pieces[-1].finish_reason == whole.finish_reason
    assert " the" not in whole.text


def test_the_next_token_table_is_a_distribution_whose_first_row_is_greedy(llama):
    table = llama.next(DECK, 20)
    assert table.sum == pytest.approx(1, abs=1e-6)
    assert table.tokens[0].id == llama.generate(DECK, temperature=0, max_tokens=1).ids[0]
    assert [row.rank for row in table.tokens] == list(range(1, 21))
    total = 0.0
    for row, after in zip(table.tokens, [*table.tokens[1:], None], strict=True):
        total += row.probability
        assert row.cumulative == pytest.approx(total)
        assert row.logprob == pytest.approx(math.log(row.probability))
        assert after is None or after.probability <= row.probability


def test_the_table_after_sampling_steps_keeps_what_they_leave(llama):
    table = llama.next(DECK, 20, camelid.SamplingParams(temperature=1, top_k=3, top_p=1, min_p=0))
    assert table.sum == pytest.approx(1, abs=1e-6)
    assert table.tokens[2].cumulative == pytest.approx(1)
    assert table.tokens[3].probability == 0


def test_logits_have_a_row_for_each_id(llama):
    ids = llama.prompt_ids(DECK)
    logits = llama.logits(ids)
    assert logits.shape == (len(ids), llama.config.vocab_size)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits[:4], llama.logits(ids[:4]), atol=1e-3)


@pytest.mark.slow
def test_a_second_turn_does_not_read_the_first_again(llama):
    first = [Message("user", "Name a colour, in one word please, and nothing else at all, thank you.")]
    answer = llama.chat(first, temperature=0, max_tokens=20)
    second = [*first, Message("assistant", answer.text), Message("user", "Another?")]
    again = llama.chat(second, temperature=0, max_tokens=5)
    assert again.usage.cached_tokens >= answer.usage.prompt_tokens - llama.engine.backend.page_size


def test_loglikelihood_is_the_sum_over_the_continuation(llama):
    found = llama.loglikelihood("The capital of France is", " Paris")
    rows = llama.logits(llama.prompt_ids("The capital of France is")).astype(np.float64)
    paris = llama.tokenizer.encode_segment(" Paris")
    assert len(paris) == 1
    assert found.logprob == pytest.approx(rows[-1][paris[0]] - np.logaddexp.reduce(rows[-1]), abs=1e-3)
    assert found.is_greedy == (int(rows[-1].argmax()) == paris[0])
    moved = llama.loglikelihood("The capital of France is ", "Paris")  # the space counts to the continuation's tokens
    assert (found.n_chars, moved.n_chars) == (6, 5)
    assert replace(moved, n_chars=6, n_bytes=6) == found


def test_perplexity_prefers_english_to_noise(llama):
    english = llama.perplexity("The quick brown fox jumps over the lazy dog.")
    noise = llama.perplexity("dog lazy the over qx jumps fxo wbron kcuiq The.")
    assert 1 < english.perplexity < noise.perplexity
    assert english.bits_per_byte == pytest.approx(english.nll / math.log(2) / 44)


@pytest.mark.slow
def test_perplexity_in_windows_counts_every_token_once(smollm2_path):
    options = camelid.engine.EngineOptions(context=32)
    short = camelid.load(smollm2_path, backend="numpy", options=options)
    text = "One two three four five six seven eight nine ten. " * 8
    assert short.perplexity(text).n_tokens == len(short.prompt_ids(text)) - 1


@pytest.mark.slow
def test_several_samples_differ_and_come_back(llama):
    runs = [llama.generate(DECK, temperature=1.0, seed=5, n=3, max_tokens=8) for _ in range(2)]
    assert runs[0].ids == runs[1].ids
    assert [other.ids for other in runs[0].others] == [other.ids for other in runs[1].others]
    assert len({runs[0].ids, *(other.ids for other in runs[0].others)}) == 3


@pytest.mark.parametrize(
    ("prompt", "changes", "words"),
    [
        ("", {}, "empty"),
        ([10**9], {}, "outside the vocabulary"),
        ("a", {"temperature": -1}, "temperature"),
        ("a", {"temprature": 1}, "temperature"),
        ("word " * 9000, {}, "8192"),
        ("half a \ud83d character", {}, "surrogate"),
    ],
)
def test_mistakes_are_told_at_once(llama, prompt, changes, words):
    with pytest.raises(OptionError, match=words):
        llama.stream(prompt, **changes)


@pytest.mark.slow
def test_a_request_and_its_tokens_make_the_same_answer(llama):
    choices = {"temperature": 0, "max_tokens": 12, "stop": ("\n",)}
    request = llama.chat_request("What is the capital of France?", **choices)
    answer = Answer(llama.tokenizer, request)
    deltas = [answer.push(token) for token in llama.engine.stream(request)]
    whole = collect(filter(None, deltas))
    again = llama.chat("What is the capital of France?", **choices)
    assert (whole.text, whole.ids, whole.finish_reason) == (again.text, again.ids, again.finish_reason)
    assert answer.done


def test_a_prompt_too_long_tells_both_numbers(llama):
    with pytest.raises(ContextError, match="8192") as told:
        llama.request("word " * 9000)
    assert told.value.n_tokens >= 9000
    assert told.value.context == 8192


def test_a_model_without_infill_tokens_says_so(llama):
    with pytest.raises(OptionError, match="infill"):
        llama.infill("def f(", "):")


def test_a_control_token_as_a_stop_string_ends_the_text(llama):
    id = llama.tokenizer.special_ids["<|im_start|>"]
    answer = llama.generate(DECK, temperature=0, max_tokens=9, stop=("<|im_start|>",), logit_bias={id: 100.0})
    assert (answer.text, answer.finish_reason, answer.ids) == ("", "stop", (id,))


@pytest.mark.slow
def test_min_tokens_holds_against_stop_strings_too(llama):
    early = llama.generate(DECK, temperature=0, max_tokens=20, stop=(" and",))
    late = llama.generate(DECK, temperature=0, max_tokens=20, min_tokens=8, stop=(" and",))
    assert len(early.ids) < 8 < len(late.ids)
    assert late.text.startswith(early.text + " and")
