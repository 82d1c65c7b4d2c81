"""Tokens become pieces and pieces chunks, without a server."""

from __future__ import annotations

import json
import random

import pytest

from camelid.chat.answer import Answer
from camelid.chat.results import Delta
from camelid.engine.request import Request, SamplingParams, Token
from camelid.serve.openai.choices import Choice, Piece, Speller, Tools, whole
from camelid.serve.openai.chunks import ChatChunks, TextChunks
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
    chat.piece(Piece(3, "the first one brings the role"))
    quick = chat.piece(Piece(3, text))
    slow, _ = events(chat.piece(Piece(3, text, finish_reason="stop")))
    assert events(quick) == [slow]
    assert slow["choices"] == [{"index": 3, "delta": {"content": text}, "logprobs": None, "finish_reason": None}]
    assert {**slow, "choices": None} == {**HEAD, "choices": None, "usage": None}
    assert quick.count(b"\n") == 2  # one event on one line
    texts = TextChunks(HEAD, False, None)
    (quick,) = events(texts.piece(Piece(3, text)))
    (slow,) = events(texts.piece(Piece(3, text, finish_reason="stop")))
    assert quick == {**HEAD, "choices": [{**slow["choices"][0], "finish_reason": None}]}


def spoken(tokenizer, text, stop=()):
    """Deltas of an answer that says a text, and then stops."""
    request = Request(ids=(0,), params=SamplingParams(stop=stop), stop_ids=(256,))
    answer = Answer(tokenizer, request)
    for id in [*tokenizer.encode(text), 256]:
        found = answer.push(token(id, "stop" if id == 256 else None))
        if found is not None:
            yield found


@pytest.mark.parametrize("seed", range(30))
def test_logged_tokens_are_those_whose_text_has_left(seed):
    rng = random.Random(seed)
    tokenizer = small_bytes("<|im_end|>")
    text = "".join(rng.choice(["a", "b", "ab", "é", "漢", "😀", " "]) for _ in range(20))
    stop = "".join(rng.choice("ab ") for _ in range(rng.randint(1, 3)))
    choice = Choice(0, speller=Speller(tokenizer))
    pieces = [piece for one in spoken(tokenizer, text, (stop,)) if (piece := choice.take(one)) is not None]
    answer = whole(0, pieces)
    assert answer.text == text.partition(stop)[0]
    data = b"".join(one.token.bytes for one in answer.logged)
    assert data.decode("utf-8", "replace").startswith(answer.text)
    n_seen = 0
    for piece in pieces:  # nothing is told of a token before its text
        n_seen += len(piece.text)
        assert all(one.offset < n_seen for one in piece.logged)
    for one in answer.logged:
        if one.token.text.isascii():
            assert text[one.offset :].startswith(one.token.text)


def test_an_answer_ends_with_its_only_call():
    choice = Choice(0, tools=Tools(STYLES["function"], ("f",), only_one=True))
    parts = ("Hm ", "<function=f>{}", "</function>", "<function=f>", "{}")
    pieces = [piece for part in parts if (piece := choice.take(delta(part))) is not None]
    answer = whole(0, pieces)
    assert (answer.text.strip(), len(answer.calls), answer.finish_reason) == ("Hm", 1, "tool_calls")
    assert choice.done
    cut = Choice(0, tools=Tools(STYLES["function"], ("f",), only_one=True))
    found = cut.take(delta('<function=f>{"a": ', "length"))
    assert found is not None
    assert found.finish_reason == "length"


CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'


@pytest.mark.parametrize("reason", ["length", "stop"])  # a stop string cuts too
def test_a_promised_call_that_is_cut_leaks_no_markup(reason):
    for end in range(1, len(CALL)):
        choice = Choice(0, tools=Tools(STYLES["hermes"], ("f",)), promise="calls" if reason == "length" else None)
        start = len("<tool_call>") if reason == "stop" else 1
        if end < start:
            continue
        pieces = [choice.take(delta(CALL[:end])), choice.take(delta("", reason))]
        found = whole(0, [piece for piece in pieces if piece is not None])
        assert found.text == ""
        assert [call.name for call in found.calls] == (["f"] if end > CALL.index('f"') + 1 else [])
        assert found.finish_reason == (reason if reason == "length" or not found.calls else "tool_calls")
