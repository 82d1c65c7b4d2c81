"""What clients do wrong, against a real server: it answers rightly, forgets them, and serves the others."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import pytest

from camelid.serve import connection as connection_module
from camelid.serve import middleware
from camelid.serve.models import Models
from camelid.serve.options import ServeOptions
from camelid.serve.worker import Worker
from tests.serve.conftest import random_llama, running, wait_until

LONG = {"model": "tiny", "prompt": "Once", "max_tokens": 3000, "temperature": 0, "ignore_stop": True}
SHORT = {**LONG, "max_tokens": 5}


@pytest.fixture(scope="module")
def models(smollm2_path):
    """One quick model with a context so long that its answers take seconds."""
    return Models([Worker("tiny", random_llama(smollm2_path, 4096, max_running=16), 8)])


@pytest.fixture
def worker(models):
    return models.get(None)


def connect(server, **options):
    address = urlsplit(server.url)
    connection = socket.socket()
    for name, value in options.items():
        connection.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
    connection.settimeout(120)
    try:
        connection.connect((address.hostname, address.port))
    except OSError:
        connection.close()
        raise
    return connection


def head(server, length, path="/v1/completions", **more):
    lines = [f"POST {path} HTTP/1.1", f"Host: {urlsplit(server.url).netloc}", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in more.items()]
    lines += [f"Content-Length: {length}"] if length is not None else []
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def send(server, connection, body, **more):
    content = json.dumps(body).encode()
    connection.sendall(head(server, len(content), **more) + content)


def post(server, body, path="/v1/completions"):
    """Status, headers and the answer's JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    asked = urllib.request.Request(server.url + path, content, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return answer.status, answer.headers, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, json.load(error)


def send_chunks(connection, n_chunks):
    """Chunks of 64 KiB."""
    for _ in range(n_chunks):
        connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


def read_all(connection):
    data = b""
    while not data.endswith(b"0\r\n\r\n"):
        part = connection.recv(65536)
        assert part, "closed before the end"
        data += part
    return data


def streamed_text(data):
    events = (json.loads(line) for line in re.findall(rb"data: (\{.*\})\n", data))
    return "".join(choice["text"] for event in events for choice in event["choices"])


def is_idle(worker):
    stats = worker.stats()
    return stats.running == stats.waiting == 0


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_is_cancelled_and_its_pages_come_back(server, worker, stream):
    before = worker.stats()
    connection = connect(server)
    send(server, connection, {**LONG, "stream": stream})
    if stream:
        assert b"200 OK" in connection.recv(4096)
    wait_until(lambda: worker.stats().running == 1)
    connection.close()
    wait_until(lambda: is_idle(worker))
    after = worker.stats()
    assert after.outcomes["cancelled"] == before.outcomes.get("cancelled", 0) + 1
    assert after.completion_tokens - before.completion_tokens < 1000
    assert after.pages_held == before.pages_held


def test_hanging_up_costs_at_most_one_step(server, worker):
    """Steps that end after the cancellation has reached the worker write nothing for it."""
    engine, cancelled_at = worker.llama.engine, []
    cancel, step = engine.cancel, engine.step
    written_after = []

    def watched_cancel(number):
        cancelled_at.append(number)
        cancel(number)

    def watched_step():
        tokens = step()
        written_after.extend(token for token in tokens if token.request in cancelled_at)
        return tokens

    engine.cancel, engine.step = watched_cancel, watched_step
    try:
        connection = connect(server)
        send(server, connection, {**LONG, "stream": True})
        connection.recv(4096)
        connection.close()
        wait_until(lambda: is_idle(worker))
        post(server, SHORT)
    finally:
        del engine.cancel, engine.step
    assert cancelled_at
    assert not written_after


@pytest.mark.parametrize(
    "body", [b"{", b"", b"[1]", b'{"prompt": "a", "max_tokens": }', b"\xff\xfe", b'"text"', b"nul"]
)
def test_what_is_not_a_request_is_400(server, body):
    status, headers, answer = post(server, body)
    assert status == 400
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert answer["error"]["type"] == "invalid_request_error"
    assert headers["x-request-id"]


def test_a_prompt_of_ten_megabytes_is_413_with_both_numbers(server):
    body = json.dumps({**SHORT, "prompt": "word " * 2_000_000}).encode()
    status, _, answer = post(server, body)
    assert status == 413
    assert str(len(body)) in answer["error"]["message"]
    assert str(8 * 2**20) in answer["error"]["message"]
    assert post(server, SHORT)[0] == 200


def test_ten_megabytes_without_a_length_are_413_too(server):
    with connect(server) as connection:
        connection.sendall(head(server, None, **{"Transfer-Encoding": "chunked"}))
        send_chunks(connection, 160)
        connection.sendall(b"0\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


def test_a_body_without_end_is_refused_in_the_end(server, monkeypatch):
    monkeypatch.setattr(middleware, "MOST_DISCARDED", 2**24)
    with connect(server) as connection:
        connection.sendall(head(server, None, **{"Transfer-Encoding": "chunked", "Connection": "close"}))
        with pytest.raises(ConnectionError):
            send_chunks(connection, 10**6)


def test_who_asks_first_is_refused_before_sending(server):
    with connect(server) as connection:
        connection.sendall(head(server, 10**7, Expect="100-continue"))
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


def test_a_prompt_beyond_the_context_is_400_with_both_numbers(server):
    status, _, answer = post(server, {**SHORT, "prompt": "word " * 5000})
    assert status == 400
    assert answer["error"]["code"] == "context_length_exceeded"
    assert answer["error"]["type"] == "invalid_request_error"
    n_tokens = int(re.search(r"has (\d+) tokens", answer["error"]["message"])[1])
    assert n_tokens >= 5000
    assert "4096" in answer["error"]["message"]


@pytest.mark.slow
def test_a_slow_reader_holds_up_nobody_and_gets_all(server, worker):
    whole = post(server, {**LONG, "max_tokens": 1000})[2]["choices"][0]["text"]
    with connect(server, SO_RCVBUF=2048) as slow:
        send(server, slow, {**LONG, "max_tokens": 1000, "stream": True})
        wait_until(lambda: worker.stats().running == 1)
        assert post(server, SHORT)[0] == 200
        wait_until(lambda: is_idle(worker))
        assert streamed_text(read_all(slow)) == whole


def test_connections_opened_and_left_are_closed_and_others_served(server, monkeypatch):
    monkeypatch.setattr(connection_module, "HEADER_SECONDS", 3)
    with contextlib.ExitStack() as stack:
        left = [stack.enter_context(connect(server)) for _ in range(300)]
        for connection in left[::3]:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        started = time.monotonic()
        assert post(server, SHORT)[0] == 200
        assert time.monotonic() - started < 3  # not only after those have been closed
        assert all(connection.recv(1) == b"" for connection in left)
    wait_until(lambda: len(server.server.server_state.connections) == 0)


def test_a_head_that_drips_is_closed(server, monkeypatch):
    monkeypatch.setattr(connection_module, "HEADER_SECONDS", 0.5)
    with connect(server) as connection:
        closed = False
        for byte in head(server, 10):
            try:
                connection.sendall(bytes([byte]))
            except ConnectionError:
                closed = True
                break
            time.sleep(0.02)
        assert closed or connection.recv(1) == b""


def test_a_body_that_does_not_come_is_408(server, monkeypatch):
    monkeypatch.setattr(middleware, "BODY_SECONDS", 0.3)
    with connect(server) as connection:
        connection.sendall(head(server, 100) + b'{"prompt"')
        assert connection.recv(4096).startswith(b"HTTP/1.1 408")


@pytest.mark.slow
def test_a_connection_serves_one_request_after_the_other_even_if_sent_at_once(server, monkeypatch):
    monkeypatch.setattr(connection_module, "HEADER_SECONDS", 0.3)
    with connect(server) as connection:
        content = json.dumps({**LONG, "max_tokens": 1000, "stream": True}).encode()
        connection.sendall((head(server, len(content)) + content) * 2)
        data = b""
        while data.count(b"[DONE]") < 2:  # each answer takes longer than a head may
            data += connection.recv(65536)
    first, second, _ = data.split(b"[DONE]")
    assert streamed_text(first) == streamed_text(second) != ""


def test_a_full_queue_is_429_and_says_when_to_come_again(smollm2_path, options):
    few = Models([Worker("tiny", random_llama(smollm2_path, 4096, max_running=1), 1)])
    with running(few, options) as server, contextlib.ExitStack() as stack:
        worker = few.get(None)
        for _ in range(2):
            send(server, stack.enter_context(connect(server)), {**LONG, "stream": True})
        wait_until(lambda: worker.stats().running + worker.stats().waiting == 2)
        status, headers, answer = post(server, SHORT)
        assert status == 429
        assert int(headers["Retry-After"]) > 0
        assert answer["error"]["type"] == "rate_limit_error"
        assert answer["error"]["code"] == "queue_full"
        assert post(server, {"text": "a"}, "/tokenize")[0] == 200
        stack.close()
        wait_until(lambda: is_idle(worker))
        assert post(server, SHORT)[0] == 200


@pytest.mark.slow
def test_shutting_down_finishes_what_runs_and_refuses_the_rest(smollm2_path, options: ServeOptions):
    models = Models([Worker("tiny", random_llama(smollm2_path, 4096), 8)])
    with running(models, options) as server, connect(server) as connection:
        send(server, connection, {**LONG, "max_tokens": 1000, "stream": True})
        wait_until(lambda: models.get(None).stats().running == 1)
        server.server.handle_exit(15, None)
        wait_until(lambda: not models.get(None).is_alive)
        status, headers, answer = post(server, SHORT)
        assert (status, answer["error"]["code"]) == (503, "shutting_down")
        assert headers["Retry-After"]
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"{server.url}/health")
        data = read_all(connection)
        assert b'"finish_reason":"length"' in data
        assert data.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        wait_until(lambda: server.server.should_exit)
    with pytest.raises(ConnectionError):
        connect(server)


def test_what_does_not_finish_in_time_is_told(smollm2_path, options: ServeOptions):
    models = Models([Worker("tiny", random_llama(smollm2_path, 4096), 8)])
    with running(models, options.with_(shutdown_seconds=0.2)) as server, connect(server) as connection:
        send(server, connection, {**LONG, "stream": True})
        wait_until(lambda: models.get(None).stats().running == 1)
        server.server.handle_exit(15, None)
        data = read_all(connection)
    assert b'"code":"shutting_down"' in data
    assert b"[DONE]" not in data


@pytest.mark.slow
def test_many_at_once_do_not_mix(server):
    prompts = [f"Tale {n}" for n in range(24)]
    alone = [post(server, {**SHORT, "prompt": prompt, "max_tokens": 40})[2]["choices"][0]["text"] for prompt in prompts]
    together = [""] * len(prompts)

    def ask(place):
        with connect(server) as connection:
            send(server, connection, {**SHORT, "prompt": prompts[place], "max_tokens": 40, "stream": True})
            together[place] = streamed_text(read_all(connection))

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone
    assert len(set(alone)) > 1
