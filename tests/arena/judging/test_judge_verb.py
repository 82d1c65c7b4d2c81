"""`camelid arena judge`, asking a server."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from camelid.arena.logs import read_battles
from camelid.cli import main


class Server(BaseHTTPRequestHandler):
    """A judge that sees which answer is four."""

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).seen.append(body)
        first = body["messages"][1]["content"].split("[The End of Assistant A's Answer]")[0]
        told = {"choices": [{"message": {"content": "[[A]]" if "four" in first else "[[B]]"}, "finish_reason": "stop"}]}
        data = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server():
    kind = type("Own", (Server,), {"seen": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as own:
        thread = threading.Thread(target=own.serve_forever, daemon=True)
        thread.start()
        kind.url = f"http://127.0.0.1:{own.server_address[1]}/v1"
        yield kind
        own.shutdown()
        thread.join()


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main(["arena", "judge", *map(str, arguments)])
    said = capsys.readouterr()
    return end.value.code, said.out, said.err


def log_in(folder):
    def side(answer):
        return [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": answer}]

    rows = [
        {"question_id": name, "model_a": "good", "model_b": "bad", "winner": "tie"}
        | {"conversation_a": side(a), "conversation_b": side(b)}
        for name, a, b in (("1", "four", "five"), ("2", "three", "five"))
    ]
    path = folder / "votes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_server_judges_and_is_asked_once(server, tmp_path, capsys):
    log, out = log_in(tmp_path), tmp_path / "judged"
    status, said, _ = run(capsys, log, "--judge", "oracle", "--url", server.url, "--out", out, "--json")
    assert status == 0
    assert json.loads(said)["winners"] == {"model_a": 1, "tie": 1}
    assert len(server.seen) == 4
    assert {(body["model"], body["temperature"], body["messages"][0]["role"]) for body in server.seen} == {
        ("oracle", 0.0, "system")
    }
    votes = read_battles([out])
    assert votes.voters == ("oracle",)
    assert dict(zip(votes.ids.tolist(), votes.winner.tolist(), strict=True)) == {"1": 0, "2": 2}
    status, said, _ = run(capsys, log, "--judge", "oracle", "--url", server.url, "--out", out)
    assert (status, len(server.seen)) == (0, 4)
    assert "1 pairs contradict themselves" in said


def test_mistakes_are_told_in_a_line(server, tmp_path, capsys):
    log, out = log_in(tmp_path), tmp_path / "judged"
    status, _, said = run(capsys, log, "--out", out)
    assert (status, "name the model that judges" in said) == (2, True)
    run(capsys, log, "--judge", "oracle", "--url", server.url, "--out", out)
    status, _, said = run(capsys, log, "--judge", "other", "--url", server.url, "--out", out)
    assert (status, "was judged with another judge" in said) == (2, True)
