"""`camelid serve` as it is started from a shell: what it says, what it refuses, how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request

import pytest

from camelid.errors import OptionError
from camelid.serve.app import create_app
from camelid.serve.models import Models
from camelid.serve.options import ServeOptions, is_loopback
from camelid.serve.server import Server, check_reach
from camelid.serve.worker import Worker
from tests.serve.conftest import random_llama


@contextlib.contextmanager
def start(tmp_path, *arguments, **environment):
    command = [sys.executable, "-m", "camelid", "serve", *map(str, arguments), "--data", str(tmp_path / "serve.db")]
    clean = {name: value for name, value in os.environ.items() if name != "CAMELID_API_KEY"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**clean, **environment})
    try:
        yield process
    finally:
        process.kill()  # where a test fails before it ends by itself
        process.communicate()


def refused(tmp_path, *arguments):
    with start(tmp_path, *arguments) as process:
        _, told = process.communicate(timeout=300)
    assert process.returncode == 2
    assert told.startswith("camelid: ")
    assert told.count("\n") == 1
    return told


def get(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=120) as answer:
        return json.load(answer)


@pytest.fixture
def tiny_file(tmp_path, smollm2_path):
    """The default model under a name of its own."""
    path = tmp_path / "my-model.gguf"
    path.symlink_to(smollm2_path)
    return path


def read_url(process):
    """The address, once it is told; and all lines up to the last."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "Ctrl-C" in line:
            break
    return re.search(r"http://127\.0\.0\.1:\d+", lines[1])[0], "".join(lines)


@pytest.mark.slow
def test_it_says_what_it_serves_and_finishes_what_runs(tmp_path, tiny_file):
    with start(tmp_path, tiny_file, "--port", 0, "--context", 512, CAMELID_API_KEY="key-of-a-test") as process:
        url, told = read_url(process)
        assert "my-model" in told
        assert "512 tokens of context" in told
        assert "need a key" in told
        assert "key-of-a-test" not in told
        key = {"Authorization": "Bearer key-of-a-test"}
        assert [model["id"] for model in get(f"{url}/v1/models", **key)["data"]] == ["my-model"]

        body = json.dumps({"model": "my-model", "prompt": "Once", "max_tokens": 100, "temperature": 0}).encode()
        asked = urllib.request.Request(f"{url}/v1/completions", body, {"Content-Type": "application/json", **key})
        answers = []
        client = threading.Thread(target=lambda: answers.append(json.load(urllib.request.urlopen(asked, timeout=300))))
        client.start()
        while (
            'running_sequences{model="my-model"} 1'
            not in urllib.request.urlopen(urllib.request.Request(f"{url}/metrics", headers=key)).read().decode()
        ):
            assert client.is_alive()
        process.send_signal(signal.SIGTERM)
        client.join(300)
        assert process.wait(120) == 0
    assert answers[0]["choices"][0]["finish_reason"] == "length"
    assert answers[0]["usage"]["completion_tokens"] == 100


@pytest.mark.slow
def test_a_port_in_use_is_one_line(tmp_path, tiny_file):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        told = refused(tmp_path, tiny_file, "--port", taken.getsockname()[1])
    assert "in use" in told
    assert "--port" in told


def test_two_models_of_one_name_are_refused(tmp_path, tiny_file, smollm2_path):
    assert "my-model is taken" in refused(tmp_path, tiny_file, smollm2_path, tiny_file)


@pytest.mark.slow
def test_an_address_that_is_not_ours_is_refused(tmp_path, tiny_file):
    assert "203.0.113.7" in refused(tmp_path, tiny_file, "--host", "203.0.113.7", "--api-key", "key-of-a-test")


def test_others_need_a_key():
    with pytest.raises(OptionError, match="--api-key"):
        check_reach(ServeOptions(host="0.0.0.0"))
    check_reach(ServeOptions(host="0.0.0.0", api_keys=("key-of-a-test",)))
    check_reach(ServeOptions(host="0.0.0.0", open_to_all=True))
    check_reach(ServeOptions(host="localhost"))


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("127.0.0.1.example.org", False),
        ("", False),
    ],
)
def test_what_is_loopback(host, ours):
    assert is_loopback(host) is ours


@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN], ids=["a terminal", "nohup"])
def test_a_terminal_that_is_closed_lets_requests_finish(smollm2_path, before):
    app = create_app(Models([Worker("tiny", random_llama(smollm2_path))]))
    server = Server(app, ServeOptions())
    kept = signal.signal(signal.SIGHUP, before)
    try:
        with server.capture_signals():
            now = signal.getsignal(signal.SIGHUP)
        assert now == (server.handle_exit if before == signal.SIG_DFL else signal.SIG_IGN)
        assert signal.getsignal(signal.SIGHUP) == before
    finally:
        signal.signal(signal.SIGHUP, kept)
