"""Tokens become pieces and pieces chunks, without a server."""

from __future__ import annotations

import json
import random

import pytest

from camelid.chat.answer import Answer, AnswerOptions, TextRequest, Tools, collect
from camelid.chat.results import Delta
from camelid.engine.request import SamplingParams, Token
from camelid.serve.openai.stream import ChatChunks, TextChunks
from camelid.tokens.templates.tool_styles import STYLES
from tests.tokens.vocabularies import small_bytes

HEAD = {"id": "1", "object": "x", "created": 1, "model": 'quoted "0.5" model', "system_fingerprint": "fp_1"}


def token(id=0, reason=None, logprob=-1.0):
    return Token(0, 0, 0, id, logprob, 1, logprob, (), reason, 0)


def delta(text, reason=None):
    """A piece of text, whatever its token."""
    return Delta(text, token(reason=reason), 0, reason, 0.0, 1, False)


def events(data):
    return [json.loads(event.removeprefix(b"data: ")) for event in data.split(b"\n\n") if event]


@pytest.mark.parametrize("text", ["a", '"', "\\", "\n\n", "data: x\n\n", "漢😀", "\u2028", "\x00"])
def test_the_quick_way_of_writing_text_is_the_slow_one(text):
    chat = ChatChunks(HEAD, True)
    chat.delta(3, delta("the first one brings the role"))
    quick = chat.delta(3, delta(text))
    slow, _ = events(chat.delta(3, delta(text, "stop")))
    assert events(quick) == [slow]
    assert slow["choices"] == [{"index": 3, "delta": {"content": text}, "logprobs": None, "finish_reason": None}]
    assert {**slow, "choices": None} == {**HEAD, "choices": None, "usage": None}
    assert quick.count(b"\n") == 2  # one event on one line
    texts = TextChunks(HEAD, False, None)
    (quick,) = events(texts.delta(3, delta(text)))
    (slow,) = events(texts.delta(3, delta(text, "stop")))
    assert quick == {**HEAD, "choices": [{**slow["choices"][0], "finish_reason": None}]}


def spoken(tokenizer, text, stop=(), end="stop", **options):
    """Deltas of an answer that says a text, and then ends."""
    params = SamplingParams(stop=stop, logprobs=0)
    request = TextRequest(ids=(0,), params=params, stop_ids=(256,), answer=AnswerOptions(**options))
    answer = Answer(tokenizer, request)
    ids = tokenizer.encode(text)
    last = [(256, "stop")] if end == "stop" else [(ids.pop(), end)]
    for id, reason in [*((id, None) for id in ids), *last]:
        found = answer.push(token(id, reason))
        if found is not None:
            yield found
    assert answer.done


@pytest.mark.parametrize("seed", range(30))
def test_logged_tokens_are_those_whose_text_has_left(seed):
    rng = random.Random(seed)
    tokenizer = small_bytes("<|im_end|>")
    text = "".join(rng.choice(["a", "b", "ab", "é", "漢", "😀", " "]) for _ in range(20))
    stop = "".join(rng.choice("ab ") for _ in range(rng.randint(1, 3)))
    pieces = list(spoken(tokenizer, text, (stop,)))
    answer = collect(pieces)
    assert answer.text == text.partition(stop)[0]
    data = b"".join(logprob.token.bytes for logprob in answer.logprobs)
    assert data.decode("utf-8", "replace").startswith(answer.text)
    n_seen = 0
    for piece in pieces:  # nothing is told of a token before its text
        n_seen += len(piece.text)
        assert all(logprob.offset < n_seen for logprob in piece.logprobs)
    for logprob in answer.logprobs:
        if logprob.token.text.isascii():
            assert text[logprob.offset :].startswith(logprob.token.text)


def test_an_answer_ends_with_its_only_call():
    tools = Tools(STYLES["function"], ("f",), only_one=True)
    tokenizer = small_bytes("<|im_end|>")
    answer = collect(spoken(tokenizer, "Hm <function=f>{}</function><function=f>{}", tools=tools))
    assert (answer.text.strip(), len(answer.tool_calls), answer.finish_reason) == ("Hm", 1, "tool_calls")
    assert len(answer.ids) < len(tokenizer.encode("Hm <function=f>{}</function><function=f>{}"))
    cut = list(spoken(tokenizer, '<function=f>{"a": ', end="length", tools=tools))
    assert cut[-1].finish_reason == "length"


CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'


@pytest.mark.parametrize("reason", ["length", "stop"])  # a stop string cuts too
def test_a_promised_call_that_is_cut_leaks_no_markup(reason):
    tokenizer = small_bytes("<|im_end|>")
    for end in range(1, len(CALL)):
        tools = Tools(STYLES["hermes"], ("f",))
        start = len("<tool_call>") if reason == "stop" else 1
        if end < start:
            continue
        if reason == "length":
            pieces = spoken(tokenizer, CALL[:end], end="length", tools=tools, promise="calls")
        else:
            pieces = spoken(tokenizer, CALL[:end] + "!", ("!",), tools=tools)
        found = collect(pieces)
        assert found.text == ""
        assert [call.name for call in found.tool_calls] == (["f"] if end > CALL.index('f"') + 1 else [])
        assert found.finish_reason == (reason if reason == "length" or not found.tool_calls else "tool_calls")
