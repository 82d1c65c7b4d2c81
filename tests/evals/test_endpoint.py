"""A server with OpenAI's API is measured: log-probabilities by echo, texts, retries, refusals."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from camelid.errors import MissingError, OptionError, ResourceError, UnsupportedError
from camelid.evals import endpoint, evaluate
from camelid.evals.endpoint import EndpointAsker
from camelid.evals.task import Choices, Generate
from camelid.tokens.templates.message import Message
from tests.evals.asking import write_mmlu


class Server(BaseHTTPRequestHandler):
    """Tokens are words with the space before them; a word's log-probability is less its length."""

    has_echo, fails, status, seen = True, 0, 503, []

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send({"data": [{"id": "words"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        kind = type(self)
        kind.seen.append((self.path, body, self.headers.get("Authorization")))
        if kind.fails:
            kind.fails -= 1
            self.send({"error": {"message": "not\nnow"}}, kind.status)
        elif "messages" in body:
            self.send({"choices": [{"message": {"content": "B"}, "finish_reason": "stop"}] * body["n"]})
        elif not body.get("echo"):
            self.send({"choices": [{"text": " B", "finish_reason": "stop"}], "usage": {"prompt_tokens": 3}})
        else:
            self.send({"choices": [{"logprobs": self.logprobs(body["prompt"]) if kind.has_echo else None}]})

    def logprobs(self, prompt):
        words = prompt.replace(" ", "\0 ").split("\0")
        words = [word for word in words if word] + [" more"]
        return {
            "tokens": words,
            "token_logprobs": [None, *(-float(len(word)) for word in words[1:])],
            "top_logprobs": [None, *({word if len(word) == 2 else "x": -0.5} for word in words[1:])],
            "text_offset": [sum(map(len, words[:at])) for at in range(len(words))],
        }

    def send(self, value, status=200):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server(monkeypatch):
    kind = type("Own", (Server,), {"seen": []})
    monkeypatch.setattr(endpoint, "PAUSES", (0.0, 0.0))
    for name in endpoint.KEYS:
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as own:
        thread = threading.Thread(target=own.serve_forever, daemon=True)
        thread.start()
        kind.url = f"http://127.0.0.1:{own.server_address[1]}/v1"
        yield kind
        own.shutdown()
        thread.join()


def test_log_probabilities_by_echo(server):
    asker = EndpointAsker(server.url)
    assert asker.name == "words"
    request = Choices("the answer is", (" A", " quite long"), "so:")
    ((_, reply),) = asker.ask([(request, "")])
    assert reply.answer.logprobs == (-2.0, -11.0)
    assert reply.answer.unconditioned == (-2.0, -11.0)
    assert reply.answer.n_tokens == (1, 2)
    assert reply.answer.greedy == (True, False)
    assert reply.n_prompt == 3


def test_a_token_over_the_boundary_is_told(server):
    ((_, reply),) = EndpointAsker(server.url).ask([(Choices("the ans", ("wer is", "x")), "")])
    assert reply.notes == ("boundary moved",)
    assert reply.answer.logprobs == (-7.0 - 3.0, -5.0)


def test_texts_and_chats(server, monkeypatch):
    monkeypatch.setenv("CAMELID_EVAL_KEY", "secret")
    asker = EndpointAsker(server.url, "words")
    chat = Generate((Message("user", "A or B?"),), stops=(".",), n=2, temperature=0.5)
    replies = dict(asker.ask([(Generate("A or B?"), "a"), (chat, "b")]))
    assert replies[0].answer.texts == (" B",)
    assert replies[1].answer.texts == ("B", "B")
    bodies = {path: (body, key) for path, body, key in server.seen}
    body, key = bodies["/v1/chat/completions"]
    assert key == "Bearer secret"
    assert body["stop"] == ["."]
    assert body["seed"] == endpoint.seed_of(1234, "b") % 2**31


def test_a_whole_task(server, tmp_path):
    result = evaluate(EndpointAsker(server.url), "mmlu:chat", data=write_mmlu(tmp_path / "m.tgz"))
    assert result.metrics["acc"].value == pytest.approx(0.25)
    assert result.conditions["model"] == {"url": server.url, "name": "words"}


def test_what_may_pass_is_repeated_and_the_rest_is_told(server):
    asker = EndpointAsker(server.url, "words")
    server.fails = 2
    ((_, reply),) = asker.ask([(Generate("?"), "")])
    assert reply.answer.text == " B"
    server.fails = 9
    with pytest.raises(ResourceError, match=r"no answer after 3 attempts .503: not now"):
        list(asker.ask([(Generate("?"), "")]))
    server.fails, server.status = 1, 401
    with pytest.raises(MissingError, match="set CAMELID_EVAL_KEY"):
        list(asker.ask([(Generate("?"), "")]))
    server.fails, server.status = 1, 400
    with pytest.raises(OptionError, match=r"refuses .400: not now"):
        list(asker.ask([(Generate("?"), "")]))


def test_a_server_without_log_probabilities_is_told(server):
    server.has_echo = False
    with pytest.raises(UnsupportedError, match="gives no log-probabilities of a prompt"):
        list(EndpointAsker(server.url).ask([(Choices("a", (" b", " c")), "")]))
    with pytest.raises(OptionError, match="no URL of a server"):
        EndpointAsker("127.0.0.1:8000", "x")
