"""Server-sent events: status, heartbeats, failures on the way, and clients that go away."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from contextlib import closing

import openai
import pytest

from camelid.errors import NumericsError
from camelid.serve import event_stream
from camelid.serve.errors import ApiError
from camelid.serve.event_stream import EventStream
from tests.serve.conftest import wait_until
from tests.serve.openai.official import SKY, official

LONG = {"model": "tiny", "messages": SKY, "max_tokens": 200, "seed": 1}


@pytest.fixture(scope="module")
def client(server):
    with official(server) as it:
        yield it


class Wire:
    """A connection to an ASGI server."""

    def __init__(self):
        self.sent, self.task = [], asyncio.current_task()

    async def receive(self):
        raise AssertionError("the body has been read")

    async def send(self, message):
        self.sent.append(message)

    @property
    def body(self):
        return b"".join(message.get("body", b"") for message in self.sent)


def run(events, during=None):
    """Send a stream over a wire."""

    async def all_of_it():
        wire = Wire()
        stream = EventStream(events(wire))
        await stream({"type": "http"}, wire.receive, wire.send)
        return wire

    return asyncio.run(all_of_it())


def test_events_are_sent_one_by_one_and_the_stream_ends():
    async def events(wire):
        yield b"data: 1\n\n"
        assert wire.body == b"data: 1\n\n"
        yield b"data: 2\n\n"

    start, *bodies = run(events).sent
    headers = dict(start["headers"])
    assert start["status"] == 200
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert headers[b"cache-control"] == b"no-store"
    assert b"content-length" not in headers
    assert [message["more_body"] for message in bodies] == [True, True, False]


def test_silence_is_broken_by_comments(monkeypatch):
    monkeypatch.setattr(event_stream, "HEARTBEAT", 0.02)

    async def events(wire):
        await asyncio.sleep(0.1)
        assert wire.body.count(b": waiting\n\n") >= 2
        for number in range(10):
            yield b"data: %d\n\n" % number
            await asyncio.sleep(0.005)

    body = run(events).body
    data = body[body.index(b"data: 0") :]
    assert b"waiting" not in data  # nobody waits while something comes


def test_what_fails_at_once_has_its_own_status():
    async def events(wire):
        raise ApiError(429, "too many", "queue_full")
        yield b""

    with pytest.raises(ApiError, match="too many"):
        run(events)


@pytest.mark.parametrize(
    ("error", "words", "kind"),
    [
        (ApiError(503, "no room"), "no room", "server_error"),
        (NumericsError("not finite"), "not finite", "invalid_request_error"),
        (RuntimeError("secret"), "went wrong", "server_error"),
    ],
)
def test_what_fails_later_is_told_in_the_stream(error, words, kind):
    async def events(wire):
        yield b"data: 1\n\n"
        raise error

    first, last, end = run(events).body.split(b"\n\n")
    told = json.loads(last.removeprefix(b"data: "))["error"]
    assert (first, end) == (b"data: 1", b"")
    assert words in told["message"]
    assert told["type"] == kind
    assert "secret" not in told["message"]


def test_a_stream_is_closed_when_it_is_cancelled():
    closed = []

    async def events(wire):
        try:
            yield b"data: 1\n\n"
            wire.task.cancel()
            await asyncio.sleep(10)
        finally:
            closed.append(True)

    with pytest.raises(asyncio.CancelledError):
        run(events)
    assert closed == [True]


def running(server):
    return server.models.get("tiny").stats().running


def cancelled(server):
    return server.models.get("tiny").stats().outcomes.get("cancelled", 0)


@pytest.mark.parametrize("route", ["chat/completions", "completions"])
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_a_client_that_hangs_up_is_cancelled(server, route, stream):
    before = cancelled(server)
    prompt = {"prompt": ["a", "b"]} if route == "completions" else {"messages": SKY}
    body = json.dumps({"model": "tiny", "max_tokens": 240, "stream": stream, "seed": 1, **prompt}).encode()
    host, port = server.url.removeprefix("http://").split(":")
    with closing(socket.create_connection((host, int(port)))) as wire:
        head = f"POST /v1/{route} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        wire.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_until(lambda: running(server) > 0)
        if stream:
            assert wire.recv(100).startswith(b"HTTP/1.1 200")
    wait_until(lambda: cancelled(server) == before + (2 if route == "completions" else 1))
    wait_until(lambda: running(server) == 0)


def test_leaving_the_clients_iterator_early_cancels(server, client):
    before = cancelled(server)
    stream = client.chat.completions.create(**LONG, stream=True)
    next(iter(stream))
    stream.close()
    wait_until(lambda: cancelled(server) == before + 1)


def test_many_streams_at_once_are_those_that_run_alone(server, client):
    alone = [client.chat.completions.create(**{**LONG, "max_tokens": 10, "seed": seed}) for seed in range(6)]
    found = {}

    def one(seed):
        with official(server) as own:
            chunks = own.chat.completions.create(**{**LONG, "max_tokens": 10, "seed": seed}, stream=True)
            found[seed] = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[seed] for seed in range(6)] == [reply.choices[0].message.content for reply in alone]


def test_a_full_queue_is_told_with_its_own_status(server, client, monkeypatch):
    monkeypatch.setattr(server.models.get("tiny"), "_most_open", 0)
    for asked in ({"stream": True}, {}):
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(**LONG, **asked)
        assert caught.value.code == "queue_full"
        assert int(caught.value.response.headers["retry-after"]) > 0


def test_an_engine_that_fails_on_the_way_is_told_to_the_client(server, client, monkeypatch):
    engine = server.models.get("tiny").llama.engine
    forward, passes = engine.backend.forward, []

    def spoiled(batch):
        rows = forward(batch)
        passes.append(len(passes))
        return [own * float("nan") for own in rows] if len(passes) > 3 else rows

    monkeypatch.setattr(engine.backend, "forward", spoiled)
    stream = client.chat.completions.create(**LONG, stream=True)
    with pytest.raises(openai.APIError, match="not finite"):
        list(stream)
    monkeypatch.undo()
    assert client.chat.completions.create(**{**LONG, "max_tokens": 2}).choices[0].finish_reason == "length"
