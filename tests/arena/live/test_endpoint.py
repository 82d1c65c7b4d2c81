"""Servers that speak OpenAI's API, and what they may do wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import httpx2 as httpx
import pytest

from camelid.arena.config import ArenaModel, LimitOptions
from camelid.arena.live.contenders import Side, write
from camelid.arena.live.endpoint import EndpointContender
from camelid.errors import MissingError
from camelid.tokens.templates.message import Message

MODEL = ArenaModel(name="hosted", url="http://upstream.test/v1", model="its-name", key_env="UPSTREAM_KEY")
LIMITS = LimitOptions(first_seconds=0.3, silent_seconds=0.3, seconds=2, answer=1000)


def chunk(text: str | None = None, finish: str | None = None, model: str | None = "its-name") -> bytes:
    choice = {"index": 0, "delta": {} if text is None else {"content": text}, "finish_reason": finish}
    return b"data: " + json.dumps({"model": model, "choices": [choice]}).encode() + b"\n\n"


def asked(respond: Callable[[httpx.Request], httpx.Response], model: ArenaModel = MODEL) -> Side:
    async def work() -> Side:
        contender, side = EndpointContender(model, httpx.MockTransport(respond)), Side()
        await write(contender, [Message("user", "Hello")], {"temperature": 0.5}, 2**40 + 7, side, LIMITS)
        await contender.close()
        return side

    return asyncio.run(work())


def streamed(*parts: bytes, status: int = 200, kind: str = "text/event-stream") -> httpx.Response:
    return httpx.Response(status, content=b"".join(parts), headers={"content-type": kind})


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("UPSTREAM_KEY", "sk-secret")


def test_an_answer_and_what_was_asked():
    requests = []

    def respond(request):
        requests.append(request)
        usage = b'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}\n\n'
        return streamed(
            b": hi\n\n", chunk(""), chunk("Good "), chunk("day"), chunk(None, "stop"), usage, b"data: [DONE]\n\n"
        )

    side = asked(respond)
    assert (side.text, side.problem, side.ended) == ("Good day", None, True)
    assert (side.record.n_prompt, side.record.n_tokens, side.record.finish_reason) == (9, 2, "stop")
    body = json.loads(requests[0].content)
    assert requests[0].headers["authorization"] == "Bearer sk-secret"
    assert str(requests[0].url) == "http://upstream.test/v1/chat/completions"
    assert body["messages"] == [{"role": "user", "content": "Hello"}]
    assert (body["model"], body["stream"], body["temperature"]) == ("its-name", True, 0.5)
    assert 0 <= body["seed"] < 2**31


@pytest.mark.parametrize(
    ("response", "problem"),
    [
        (lambda: streamed(b'{"error": "no"}', status=500), "status 500"),
        (lambda: streamed(status=302), "status 302"),
        (lambda: streamed(b"<html>", kind="text/html"), "no events"),
        (lambda: streamed(chunk("Half an")), "in the middle"),
        (lambda: streamed(chunk(" "), chunk(None, "stop")), "answered nothing"),
        (lambda: streamed(b"data: [DONE]\n\n"), "answered nothing"),
        (lambda: streamed(chunk("Hi", model="gpt-9")), "another model"),
        (lambda: streamed(b"data: {nonsense\n\n"), "not an event"),
        (lambda: streamed(b'data: {"choices": [[]]}\n\n'), "not an event"),
        (lambda: streamed(b"data: []\n\n"), "not an event"),
        (lambda: streamed(b'data: {"error": {"message": "overloaded"}}\n\n'), "overloaded"),
        (lambda: streamed(chunk("x" * 1001), chunk(None, "stop")), "more than 1000"),
    ],
)
def test_what_an_upstream_does_wrong(response, problem):
    side = asked(lambda request: response())
    assert side.ended
    assert problem in side.problem


def test_an_upstream_that_breaks_or_hangs():
    def refuse(request):
        raise httpx.ConnectError("refused")

    class Hangs(httpx.AsyncByteStream):
        async def __aiter__(self):
            yield chunk("Hel")
            await asyncio.sleep(1000)

    class Breaks(httpx.AsyncByteStream):
        async def __aiter__(self):
            yield chunk("Hel")
            raise httpx.ReadError("gone")

    def with_stream(stream):
        return lambda request: httpx.Response(200, stream=stream, headers={"content-type": "text/event-stream"})

    assert "ConnectError" in asked(refuse).problem
    assert "silent" in asked(with_stream(Hangs())).problem
    assert "ReadError" in asked(with_stream(Breaks())).problem


@pytest.mark.parametrize(
    ("name", "is_taken"),
    [
        ("its-name", True),
        ("hosted", True),
        (None, True),
        ("its-name-2024-08-06", True),
        ("its-name-mini", False),
        ("other-1", True),
    ],
)
def test_names_that_a_server_may_answer_under(name, is_taken):
    model = MODEL.with_(answers_as=("other-*",))
    side = asked(lambda request: streamed(chunk("Hi", "stop", model=name)), model)
    assert (side.problem is None) is is_taken


def test_a_key_that_is_missing(monkeypatch):
    monkeypatch.delenv("UPSTREAM_KEY")
    with pytest.raises(MissingError, match="UPSTREAM_KEY"):
        EndpointContender(MODEL)
