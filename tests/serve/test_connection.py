"""What a connection may send before a request is known, and how soon it is answered."""

from __future__ import annotations

import json
import re
import socket
from urllib.parse import urlsplit

import pytest

from camelid.serve.connection import MOST_HEAD_BYTES, MOST_HEAD_LINES
from camelid.serve.models import Models
from camelid.serve.worker import Worker
from tests.serve.conftest import random_llama

HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def models(smollm2_path):
    return Models([Worker("tiny", random_llama(smollm2_path), 8)])


@pytest.fixture
def connection(server):
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), 30) as it:
        yield it


def answer(connection):
    """Status and JSON of one answer."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head)[1])
    while len(body) < length:
        body += connection.recv(65536)
    return int(head.split()[1]), json.loads(body)


def flood(connection, piece):
    """Send a piece again and again until the server hangs up; returns how many bytes it took."""
    n_bytes = 0
    try:
        while n_bytes < 2**26:
            connection.sendall(piece)
            n_bytes += len(piece)
    except OSError:
        return n_bytes
    return n_bytes


@pytest.mark.parametrize(
    "lines",
    [
        b"a:\r\n" * MOST_HEAD_LINES,
        b"a: " + b"x" * MOST_HEAD_BYTES + b"\r\n",
        b"x" * MOST_HEAD_BYTES + b": a\r\n",
    ],
    ids=["lines", "a value", "a name"],
)
def test_a_head_that_is_too_large_is_431(connection, lines):
    connection.sendall(HEALTH + lines + b"\r\n")
    status, told = answer(connection)
    assert status == 431
    assert told["error"]["code"] == "head_too_large"


def test_an_address_that_is_too_long_is_431(connection):
    connection.sendall(b"GET /" + b"x" * MOST_HEAD_BYTES + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer(connection)[0] == 431


def test_a_head_as_large_as_is_allowed_is_taken(connection):
    lines = b"".join(b"x-%d: %s\r\n" % (number, b"y" * 400) for number in range(MOST_HEAD_LINES - 1))
    connection.sendall(HEALTH + lines + b"\r\n")
    assert answer(connection)[0] == 200


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (HEALTH, b"a:\r\n" * 10_000),
        (HEALTH + b"a: ", b"x" * 40_000),
        (b"GET /", b"x" * 40_000),
        (HEALTH + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n" * 10_000),
        (HEALTH + b"Transfer-Encoding: chunked\r\n\r\n5;", b"x" * 40_000),
    ],
    ids=["lines", "a value", "an address", "trailers", "an extension of a chunk"],
)
def test_a_flood_is_not_taken(connection, begin, piece):
    connection.sendall(begin)
    assert flood(connection, piece) < 2**24  # what lies in the buffers of both ends


@pytest.mark.parametrize("length", [b"9" * 5000, b"0" * 5000 + b"2", b"99999999999999999999999"])
def test_a_length_of_many_digits_is_400(connection, length):
    connection.sendall(b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + length + b"\r\n\r\n{}")
    status, told = answer(connection)
    assert status == 400
    assert told["error"]["type"] == "invalid_request_error"


def test_what_is_no_http_is_400(connection):
    connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
    assert answer(connection)[0] == 400


def test_small_packets_are_sent_at_once(server, connection):
    """Else an answer on a connection that is kept waits 40 ms for the client's acknowledgement."""
    connection.sendall(HEALTH + b"\r\n")
    assert answer(connection)[0] == 200
    (kept,) = server.server.server_state.connections
    assert kept.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
