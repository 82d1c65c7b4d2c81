"""What Direct Chat is told: conversations, answers as they are written, branches, and mistakes by name."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest

from camelid.engine.request import SamplingParams
from camelid.errors import ResourceError
from camelid.serve.pages import panel
from camelid.serve.pages.markdown import to_html
from camelid.serve.storage.conversations import Store
from camelid.tokens.templates.chat_format import Message
from tests.serve.conftest import MODEL, TINY, wait_until

GREEDY = {"temperature": 0, "max_tokens": 24}
ENDLESS = {"temperature": 1.5, "ignore_stop": True, "seed": 1}


@pytest.fixture(scope="module")
def http(server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{server.url}/api", timeout=60) as client:
        yield client


def begin(http: httpx.Client, **settings: Any) -> str:
    made = http.post("/conversations", json={"model": MODEL, "params": GREEDY, **settings})
    assert made.status_code == 201, made.text
    return made.json()["id"]


def events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    assert response.status_code == 200, response.read()
    assert response.headers["content-type"].startswith("text/event-stream")
    for line in response.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def ask(http: httpx.Client, path: str, **body: Any) -> list[dict[str, Any]]:
    with http.stream("POST", f"/conversations/{path}", json=body or None) as response:
        return list(events(response))


def html_of(told: list[dict[str, Any]]) -> str:
    blocks: dict[int, str] = {}
    for event in told:
        blocks |= dict(event.get("blocks", []))
    return "".join(blocks[index] for index in sorted(blocks))


@pytest.mark.slow
def test_an_answer_is_the_models_own(http, llama, server):
    id = begin(http, system="You are brief.")
    told = ask(http, f"{id}/messages", content="What is the capital of France?")
    assert [event["type"] for event in told][:2] == ["start", "blocks"]
    question, answer = told[0]["messages"]
    assert (question["role"], question["html"]) == ("user", "<p>What is the capital of France?</p>")
    done = told[-1]
    assert done["type"] == "done"
    message = done["message"]
    assert message["id"] == answer["id"]
    assert message["html"] == html_of(told) == to_html(message["content"])
    assert message["state"] == "complete"
    messages = [
        {"role": "system", "content": "You are brief."},
        {"role": "user", "content": "What is the capital of France?"},
    ]
    asked = httpx.post(f"{server.url}/v1/chat/completions", json={"model": MODEL, "messages": messages, **GREEDY})
    assert message["content"] == asked.json()["choices"][0]["message"]["content"]
    usage = message["usage"]
    assert usage["prompt_tokens"] == len(llama.chat_request([Message(**turn) for turn in messages]).ids)
    assert 0 < usage["completion_tokens"] <= 24
    assert usage["tokens_per_second"] > 0
    assert f"{usage['completion_tokens']} tokens · " in message["note"]
    kept = http.get(f"/conversations/{id}").json()
    assert kept["title"] == "What is the capital of France?"
    assert kept["path"] == [question["id"], answer["id"]]
    assert kept["messages"][1] == message


def test_the_conversation_so_far_is_read(http):
    id = begin(http)
    ask(http, f"{id}/messages", content="My name is Quetzal.")
    told = ask(http, f"{id}/messages", content="Name a colour.")
    first = http.get(f"/conversations/{id}").json()["messages"][1]
    assert told[-1]["message"]["usage"]["prompt_tokens"] > first["usage"]["prompt_tokens"]
    assert told[-1]["message"]["usage"]["cached_tokens"] > 0


@pytest.mark.slow
def test_branches(http):
    id = begin(http)
    ask(http, f"{id}/messages", content="Say yes.")
    q1, a1 = http.get(f"/conversations/{id}").json()["path"]
    a2 = ask(http, f"{id}/messages/{a1}/regenerate")[0]["messages"][0]
    assert (a2["parent"], a2["versions"]) == (q1, [a1, a2["id"]])
    q2, a3 = ask(http, f"{id}/messages/{q1}/edit", content="Say no.")[0]["messages"]
    assert (q2["parent"], q2["versions"], a3["parent"]) == (None, [q1, q2["id"]], q2["id"])
    conversation = http.get(f"/conversations/{id}").json()
    assert conversation["path"] == [q2["id"], a3["id"]]
    assert len(conversation["messages"]) == 5
    chosen = http.post(f"/conversations/{id}/messages/{q1}/choose").json()
    assert chosen["path"] == [q1, a2["id"]]  # by its newest answer
    assert http.post(f"/conversations/{id}/messages/{a1}/choose").json()["path"] == [q1, a1]
    assert http.get(f"/conversations/{id}").json()["path"] == [q1, a1]
    assert conversation["title"] == "Say yes."


def test_greedy_answers_to_the_same_are_the_same(http):
    id = begin(http)
    first = ask(http, f"{id}/messages", content="Count to five.")[-1]["message"]
    again = ask(http, f"{id}/messages/{first['id']}/regenerate")[-1]["message"]
    assert again["content"] == first["content"]


def stream_until(http: httpx.Client, id: str, n_events: int) -> int:
    """Read some of an endless answer, then hang up; gives its id."""
    told: list[dict[str, Any]] = []
    with http.stream("POST", f"/conversations/{id}/messages", json={"content": "Tell me a story."}) as response:
        for event in events(response):
            told.append(event)
            if len(told) == n_events:
                break
    return told[0]["messages"][1]["id"]


def state_of(http: httpx.Client, id: str, message: int) -> dict[str, Any]:
    messages = http.get(f"/conversations/{id}").json()["messages"]
    return next(m for m in messages if m["id"] == message)


def test_an_answer_goes_on_when_its_page_is_left_and_can_be_followed(http, server):
    id = begin(http, params=ENDLESS)
    answer = stream_until(http, id, 6)
    size = len(state_of(http, id, answer)["content"])
    wait_until(lambda: len(state_of(http, id, answer)["content"]) > size)
    told: list[dict[str, Any]] = []
    with http.stream("POST", f"/conversations/{id}/messages/{answer}/follow") as response:
        for event in events(response):
            told.append(event)
            if len(told) == 4:
                stop(http, id, answer)
    message = state_of(http, id, answer)
    assert (told[0]["type"], told[-1]["type"], message["state"]) == ("start", "done", "stopped")
    assert told[-1]["message"] == message
    assert html_of(told) == message["html"]
    assert "stopped" in message["note"]
    wait_until(lambda: server.models.get(MODEL).stats().running == 0)
    again = ask(http, f"{id}/messages/{answer}/follow")
    assert [event["type"] for event in again] == ["start", "done"]
    assert again[-1]["message"] == message


def stop(http: httpx.Client, id: str, answer: int) -> None:
    assert httpx.post(f"{http.base_url}conversations/{id}/messages/{answer}/stop").status_code == 204


def test_conversations_come_in_pages(http):
    ids = [begin(http) for _ in range(5)][::-1]
    first = http.get("/conversations", params={"limit": 2}).json()
    assert [conversation["id"] for conversation in first] == ids[:2]
    rest = http.get("/conversations", params={"limit": 3, "before": ids[1]}).json()
    assert [conversation["id"] for conversation in rest] == ids[2:]
    assert http.get("/conversations", params={"before": "nowhere"}).status_code == 404
    assert http.get("/conversations", params={"limit": 100_000}).status_code == 400


def test_stop_ends_the_stream_with_what_there_is(http):
    id = begin(http, params=ENDLESS)
    told: list[dict[str, Any]] = []
    with http.stream("POST", f"/conversations/{id}/messages", json={"content": "Tell me a story."}) as response:
        for event in events(response):
            told.append(event)
            if len(told) == 5:
                answer = told[0]["messages"][1]["id"]
                assert httpx.post(f"{http.base_url}conversations/{id}/messages/{answer}/stop").status_code == 204
    message = told[-1]["message"]
    assert (told[-1]["type"], message["state"]) == ("done", "stopped")
    assert message["html"] == html_of(told) == to_html(message["content"])
    assert state_of(http, id, answer) == message


def test_what_is_being_written_is_kept_all_along(http):
    """A kill at any time finds text in the file that is no older than half a second."""
    id = begin(http, params=ENDLESS)
    sizes: set[int] = set()
    with http.stream("POST", f"/conversations/{id}/messages", json={"content": "Tell me a story."}) as response:
        told = events(response)
        answer = next(told)["messages"][1]["id"]
        for _ in told:
            sizes.add(len(state_of(http, id, answer)["content"]))
            if len(sizes) == 4:
                break
        assert state_of(http, id, answer)["state"] == "streaming"
    stop(http, id, answer)
    assert len(sizes) == 4


def test_deleting_stops_the_answer(http, server):
    id = begin(http, params=ENDLESS)
    with http.stream("POST", f"/conversations/{id}/messages", json={"content": "Tell me a story."}) as response:
        told = events(response)
        next(told)
        assert httpx.delete(f"{http.base_url}conversations/{id}").status_code == 204
        assert list(told)[-1]["message"]["state"] == "stopped"
    assert http.get(f"/conversations/{id}").status_code == 404
    wait_until(lambda: server.models.get(MODEL).stats().running == 0)


def test_several_at_once(http):
    ids = [begin(http) for _ in range(4)]
    found: dict[str, str] = {}

    def one(id: str) -> None:
        with httpx.Client(base_url=http.base_url, timeout=60) as client:
            found[id] = ask(client, f"{id}/messages", content="What is the capital of Peru?")[-1]["message"]["content"]

    threads = [threading.Thread(target=one, args=(id,)) for id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == set(ids)
    assert len(set(found.values())) == 1


@pytest.mark.slow
def test_list_rename_settings(http):
    id = begin(http)
    renamed = http.patch(f"/conversations/{id}", json={"title": "Renamed", "system": "Be kind.", "model": TINY}).json()
    assert (renamed["title"], renamed["system"], renamed["model"]) == ("Renamed", "Be kind.", TINY)
    assert renamed["params"] == GREEDY
    assert http.get("/conversations").json()[0]["id"] == id
    assert http.patch(f"/conversations/{id}", json={"system": "", "params": {}}).json()["system"] == ""
    assert ask(http, f"{id}/messages", content="?")[-1]["message"]["model"] == TINY
    assert http.get(f"/conversations/{id}").json()["title"] == "Renamed"


def test_export(http):
    id = begin(http, system="Be brief.")
    ask(http, f"{id}/messages", content="Say *hi* & bye.")
    first = http.get(f"/conversations/{id}").json()
    ask(http, f"{id}/messages/{first['path'][1]}/regenerate")
    markdown = http.get(f"/conversations/{id}/export")
    assert markdown.headers["content-disposition"] == 'attachment; filename="say-hi-bye.md"'
    assert markdown.text.startswith("# Say *hi* & bye.\n\n*smollm2, 20")
    assert "\n\n> Be brief.\n\n## You\n\nSay *hi* & bye.\n\n## smollm2\n\n" in markdown.text
    exported = http.get(f"/conversations/{id}/export?format=json").json()
    assert [message["parent"] for message in exported["messages"]] == [None, first["path"][0], first["path"][0]]
    assert exported["params"] == GREEDY
    assert http.get(f"/conversations/{id}/export?format=pdf").status_code == 400


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("", {"model": "gpt-9"}, 404, "choose smollm2 or tiny"),
        ("", {"params": {"temperatur": 1}}, 400, "did you mean 'temperature'"),
        ("", {"params": {"temperature": -1}}, 400, "temperature: must be"),
        ("", {"params": {"n": 2}}, 400, "n: cannot be chosen here"),
        ("", {"colour": "red"}, 400, "colour: is not supported"),
        ("", {"title": "x" * 300}, 400, "title"),
        ("/{id}/messages", {"content": ""}, 400, "content"),
        ("/{id}/messages", {"content": " \n"}, 400, "content"),
        ("/{id}/messages", {}, 400, "content"),
        ("/{id}/messages", {"content": "word " * 3000}, 400, "context"),
        ("/{id}/messages/999999/regenerate", None, 404, "not an answer of this conversation"),
        ("/{id}/messages/999999/choose", None, 404, "not a message"),
        ("/nowhere/messages", {"content": "?"}, 404, "not here"),
    ],
)
def test_mistakes_are_named(http, path, body, status, words):
    id = begin(http)
    answer = http.post(f"/conversations{path.format(id=id)}", json=body)
    assert (answer.status_code, words in answer.json()["error"]["message"]) == (status, True), answer.text
    assert http.get(f"/conversations/{id}").json()["messages"] == []


def test_infinity_is_refused(http):
    answer = http.post(
        "/conversations", content='{"params": {"top_n_sigma": 1e999}}', headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "top_n_sigma")


def test_a_question_is_no_answer(http):
    id = begin(http)
    question, answer = (m["id"] for m in ask(http, f"{id}/messages", content="Hi.")[0]["messages"])
    assert http.post(f"/conversations/{id}/messages/{question}/regenerate").status_code == 404
    assert http.post(f"/conversations/{id}/messages/{answer}/edit", json={"content": "x"}).status_code == 404


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_sites_are_refused(http, site):
    answer = http.get("/conversations", headers={"sec-fetch-site": site})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "wrong_origin")
    assert http.post("/conversations", json={}, headers={"origin": "https://elsewhere.example"}).status_code == 403


def test_a_form_of_another_site_is_no_json(http):
    answer = http.post("/conversations", content='{"title": "x"}', headers={"content-type": "text/plain"})
    assert answer.status_code == 415


def test_a_full_disk_stops_no_answer(http, server, monkeypatch):
    id, other = begin(http), begin(http)
    expected = ask(http, f"{other}/messages", content="What is the capital of France?")[-1]["message"]["content"]

    async def full(self: Store, *_: Any, **__: Any) -> None:
        raise ResourceError("serve.db: database or disk is full; this was not kept")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "add", full)
        told = ask(http, f"{id}/messages", content="What is the capital of France?")
    assert [event["message"] for event in told if event["type"] == "warning"] == [
        "serve.db: database or disk is full; this was not kept"
    ]
    assert told[-1]["message"]["content"] == expected
    assert told[-1]["message"]["id"] is None
    assert http.get(f"/conversations/{id}").json()["messages"] == []


def test_a_disk_that_fills_up_while_answering(http, server, monkeypatch):
    id = begin(http, params={"temperature": 0, "max_tokens": 60, "ignore_stop": True})
    attempts = []

    async def full(self: Store, message: int, **values: Any) -> None:
        attempts.append(values)
        raise ResourceError("serve.db: database or disk is full; this was not kept")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "save", full)
        told = ask(http, f"{id}/messages", content="Tell me about Peru.")
    assert len([event for event in told if event["type"] == "warning"]) == 1
    assert attempts
    assert told[-1]["message"]["usage"]["completion_tokens"] == 60
    assert http.get(f"/conversations/{id}").json()["messages"][1]["content"] == ""


def test_a_failure_is_told_and_kept(http, server, monkeypatch):
    id = begin(http)

    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("secret")

    with monkeypatch.context() as patch:
        patch.setattr(server.models.get(MODEL).llama.engine, "step", broken)
        told = ask(http, f"{id}/messages", content="Hi.")
    message = told[-1]["message"]
    assert message["state"] == "failed"
    assert "went wrong" in message["error"]
    assert "secret" not in json.dumps(told)
    assert http.get(f"/conversations/{id}").json()["messages"][1] == message


def test_the_panel_is_made_from_the_fields(http, llama):
    rows = {row["name"]: row for row in http.get("/panel").json()}
    assert set(rows) == set(SamplingParams.model_fields) - set(panel.NOT_HERE)
    temperature = rows["temperature"]
    assert temperature["help"] == SamplingParams.model_fields["temperature"].description
    assert (temperature["minimum"], temperature["maximum"], temperature["default"]) == (
        0,
        100,
        llama.params.temperature,
    )
    assert rows["order"]["choices"] == ["camelid", "llama.cpp", "vllm", "hf", "meta"]
    assert (rows["max_tokens"]["kind"], rows["max_tokens"]["default"]) == ("integer", None)
    assert (rows["stop"]["kind"], rows["ignore_stop"]["kind"]) == ("lines", "switch")
    assert http.get("/panel", params={"model": "gpt-9"}).status_code == 404
