"""Who answers and who judges: the engine alone and in a crowd, a server, the gate between two reward models."""

from __future__ import annotations

import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from camelid.errors import MissingError, NumericsError, OptionError
from camelid.tokens.templates.message import Message
from camelid.train.makers import endpoint
from camelid.train.makers.asking import Asked, EngineWriter
from camelid.train.makers.endpoint import EndpointWriter
from camelid.train.makers.judging import Answered, CodeJudge, ModelJudge, gate
from tests.train.chatty import make_chat_model


def asked(text: str, n: int = 3, temperature: float = 1.0) -> Asked:
    return Asked((Message("user", text),), n, temperature)


def test_an_answer_is_the_same_alone_and_in_a_crowd(tmp_path):
    writer = EngineWriter(make_chat_model(tmp_path / "model"), seed=3, max_tokens=24, context=128)
    questions = [asked(f"{number} llama?") for number in range(7)]
    together = {each.key: written for each, written in writer.write(questions)}
    for each in questions:
        ((_, alone),) = writer.write([each])
        assert alone == together[each.key]
        ((_, fewer),) = writer.write([asked(each.messages[0].text, n=1)])
        assert fewer == alone[:1]  # the number of an answer counts, not how many there are
    assert len({written.text for own in together.values() for written in own}) > 15
    other = EngineWriter(tmp_path / "model", seed=4, max_tokens=24, context=128)
    assert {each.key: written for each, written in other.write(questions)} != together
    assert writer.fits(questions[0].messages)
    assert not writer.fits([Message("user", "llama " * 40)])


def test_what_ended_an_answer_is_not_in_its_text(tmp_path):
    writer = EngineWriter(make_chat_model(tmp_path / "model"), seed=3, max_tokens=64, context=128)
    ((_, written),) = writer.write([asked("hill?", n=32)])
    ended = [each for each in written if each.finished]
    assert ended
    assert len(ended) < 32
    assert all("<|" not in each.text for each in written)
    assert all(each.n_tokens == 64 for each in written if not each.finished)


@pytest.fixture
def server():
    """A server that answers with what it was asked, and keeps it."""
    bodies: list[dict] = []
    failures = [503, 429]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.say(200, {"data": [{"id": "only"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if body["messages"][0]["content"] == "refused":
                self.say(400, {"error": {"message": "no"}})
            elif body["messages"][0]["content"] == "key":
                self.say(401, {})
            elif failures:
                self.say(failures.pop(), {})
            else:
                bodies.append(body)
                texts = [f"{body['messages'][0]['content']} {number}" for number in range(body["n"])]
                choices = [
                    {"index": at, "message": {"content": text}, "finish_reason": "stop" if at else "length"}
                    for at, text in enumerate(texts)
                ]
                self.say(200, {"choices": choices[::-1], "usage": {"completion_tokens": 6}})

        def say(self, status: int, content: dict) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *words: object) -> None:
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_address[1]}/v1", bodies
    made.shutdown()
    made.server_close()


def test_a_server_is_asked_for_several_answers_at_a_time(server, monkeypatch):
    monkeypatch.setattr(endpoint, "PAUSES", (0.0, 0.0))
    url, bodies = server
    writer = EndpointWriter(url, None, seed=1, max_tokens=9, top_p=0.5)
    found = {each.messages[0].text: written for each, written in writer.write([asked("a"), asked("b", 2)])}
    assert [each.text for each in found["a"]] == ["a 0", "a 1", "a 2"]
    assert [each.finished for each in found["b"]] == [False, True]
    assert found["a"][0].n_tokens == 2
    body = next(body for body in bodies if body["n"] == 3)
    assert {**body, "seed": 0} == {
        "model": "only",
        "messages": [{"role": "user", "content": "a"}],
        "max_tokens": 9,
        "top_p": 0.5,
        "temperature": 1.0,
        "n": 3,
        "seed": 0,
    }
    assert len({body["seed"] for body in bodies}) == 2
    with pytest.raises(OptionError, match=r"refuses \(400"):
        list(writer.write([asked("refused")]))
    with pytest.raises(MissingError, match="set OPENAI_API_KEY"):
        list(writer.write([asked("key")]))
    with pytest.raises(OptionError, match="no URL of a server"):
        EndpointWriter("ftp://x", None, seed=1, max_tokens=9)


def test_the_gate_is_at_the_threshold():
    assert gate(9.0, -1.74, marked=False) == -1.74  # a probability of .1493
    assert gate(9.0, -1.73, marked=False) == 9.0  # of .1506
    for probability, wins in ((0.149, True), (0.151, False)):
        safety = math.log(probability / (1 - probability))
        assert gate(9.0, safety, marked=False) == (safety if wins else 9.0)
    assert gate(9.0, 3.0, marked=True) == 3.0
    assert gate(9.0, -0.1, marked=False, threshold=0.5) == -0.1


class Scores:
    """Reads a reward out of an answer."""

    def __init__(self, place: int) -> None:
        self.place = place

    def ids(self, messages: list[Message]) -> float:
        return float(messages[-1].text.split()[self.place])

    def scores(self, values) -> list[float]:
        return list(values)


def test_two_models_judge_with_the_gate_between_them():
    judge = ModelJudge(Scores(0), Scores(1))  # type: ignore[arg-type]
    question = (Message("user", "?"),)
    scores = judge.scores(
        [Answered(question, "2 1", {}), Answered(question, "2 -5", {}), Answered(question, "2 1", {"safety": True})]
    )
    assert [score.reward for score in scores] == [2.0, -5.0, 1.0]
    assert scores[1].as_json() == {"reward": -5.0, "helpfulness": 2.0, "safety": -5.0}
    assert ModelJudge(Scores(0)).scores([Answered(question, "3 1", {})])[0].as_json() == {  # type: ignore[arg-type]
        "reward": 3.0,
        "helpfulness": 3.0,
    }
    with pytest.raises(NumericsError, match="nan"):
        judge.scores([Answered(question, "nan 1", {})])
    with pytest.raises(NumericsError, match="right gives inf"):
        CodeJudge("right", lambda answer, about: float("inf")).scores([Answered(question, "", {})])
