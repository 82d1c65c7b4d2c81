"""A choice of a reply: from tokens to content, calls and log-probabilities."""

from __future__ import annotations

from camelid.chat.answer import Answer
from camelid.engine.request import Request, SamplingParams, Token
from camelid.serve.openai.choices import Choice, Speller, Tools
from camelid.tokens.tool_calls import gathered
from camelid.tokens.tool_styles import STYLES, control_ids
from tests.tokens.vocabularies import small_bytes

END, OPEN, CLOSE = 256, 257, 258
CONTROL = ("<|im_end|>", "<tool_call>", "</tool_call>")


def pieces(ids, *stop):
    """What a choice makes of written ids, in a vocabulary where calls stand between control tokens."""
    tokenizer, style = small_bytes(*CONTROL), STYLES["hermes"]
    shown = control_ids(tokenizer, style)
    request = Request(ids=(1,), params=SamplingParams(stop=stop, logprobs=0), stop_ids=(END,))
    answer = Answer(tokenizer, request, shown=shown)
    choice = Choice(0, speller=Speller(tokenizer, shown=shown), tools=Tools(style, ("f",)))
    made = []
    for index, id in enumerate(ids):
        reason = "stop" if id == END else None
        delta = answer.push(Token(0, 0, index, id, -0.5, 1, -0.5, (), reason, 0))
        made.append(choice.take(delta) if delta is not None else None)
    return [piece for piece in made if piece is not None]


def test_calls_between_control_tokens_are_found_behind_what_a_stop_string_held_back():
    arguments = '{"a": 1}'
    call = f'{{"name": "f", "arguments": {arguments}}}'.encode()
    ids = [*b"So:", OPEN, *call, CLOSE, END]
    for stop in ((), ("}}x",), ("}\n", ":<x")):
        found = pieces(ids, *stop)
        _, calls = gathered(event for piece in found for event in piece.calls)
        assert "".join(piece.text for piece in found) == "So:"
        assert [(one.name, one.arguments) for one in calls] == [("f", arguments)]
        assert found[-1].finish_reason == "tool_calls"
        logged = [one for piece in found for one in piece.logged]
        assert [one.token.text for one in logged] == [
            *"So:", "<tool_call>", *call.decode(), "</tool_call>"
        ]  # fmt: skip
        assert logged[-1].offset == len("So:<tool_call>") + len(call)


def test_control_tokens_that_open_no_call_are_content():
    found = pieces([*b"Hi", OPEN, *b"there", CLOSE, END])
    assert "".join(piece.text for piece in found) == "Hi<tool_call>there</tool_call>"
    assert found[-1].finish_reason == "stop"
