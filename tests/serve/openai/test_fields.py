"""What OpenAI's API takes and its clients send back is taken, and what says nothing is let pass."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from fastapi.testclient import TestClient

from camelid.engine.request import Order, SamplingParams
from camelid.serve.app import create_app
from camelid.serve.body import IGNORED, ignored_header
from camelid.serve.models import Models
from camelid.serve.openai.messages import to_messages
from camelid.serve.openai.requests import ChatRequest, EmbeddingRequest
from camelid.serve.options import ServeOptions
from camelid.serve.worker import Worker
from camelid.tokens.templates.message import Message
from tests.serve.conftest import random_llama

ASK = {"role": "user", "content": "hi"}
CHAT = {"messages": [ASK], "max_tokens": 2, "temperature": 0}


@pytest.fixture(scope="module")
def client(smollm2_path, tmp_path_factory):
    """Requests that nothing is left out of silently; `lenient` beside it."""
    options = ServeOptions(data=tmp_path_factory.mktemp("data") / "serve.db")
    with TestClient(create_app(Models([Worker("tiny", random_llama(smollm2_path))]), options)) as it:
        it.base_url = "http://127.0.0.1"
        yield it


@pytest.fixture(scope="module")
def lenient(smollm2_path, tmp_path_factory):
    options = ServeOptions(data=tmp_path_factory.mktemp("data") / "serve.db", lenient=True)
    with TestClient(create_app(Models([Worker("tiny", random_llama(smollm2_path))]), options)) as it:
        it.base_url = "http://127.0.0.1"
        yield it


def read(*messages):
    return to_messages(ChatRequest.model_validate({"messages": list(messages)}).messages)


def test_names_of_speakers_reach_the_template():
    given = [
        {"role": "system", "name": "example", "content": "x"},
        {"role": "user", "name": "ann", "content": "hi"},
        {"role": "assistant", "name": "bob", "content": "yes"},
    ]
    assert [message.name for message in read(*given)] == ["example", "ann", "bob"]


def test_a_refusal_is_what_the_assistant_said():
    """As vLLM reads it."""
    no = Message("assistant", "I cannot.")
    assert read(ASK, {"role": "assistant", "content": None, "refusal": "I cannot."})[1] == no
    assert read(ASK, {"role": "assistant", "content": [{"type": "refusal", "refusal": "I cannot."}]})[1] == no
    both = [{"type": "text", "text": "Well."}, {"type": "refusal", "refusal": "I cannot."}]
    assert read(ASK, {"role": "assistant", "content": both})[1].content == "Well.\nI cannot."


ECHOES = [
    {"reasoning_content": None},
    {"reasoning_content": ""},
    {"provider_specific_fields": {"refusal": None, "citations": []}},
    {"cache_control": None},
    {"audio": None, "function_call": None, "annotations": [], "refusal": None, "tool_calls": None},
]


@pytest.mark.parametrize("echo", ECHOES, ids=range(len(ECHOES)))
def test_what_clients_send_back_and_says_nothing_passes(client, echo):
    said = [ASK, {"role": "assistant", "content": "yes", **echo}, {**ASK, "content": [{"type": "text", "text": "a"}]}]
    assert client.post("/v1/chat/completions", json={**CHAT, "messages": said}).status_code == 200


NOTHING = ["reasoning_effort", "functions", "audio", "prediction", "verbosity", "web_search_options", "store", "n"]


@pytest.mark.parametrize("name", NOTHING)
def test_null_says_nothing(client, name):
    assert client.post("/v1/chat/completions", json={**CHAT, name: None}).status_code == 200


def test_lists_and_objects_that_mean_something_are_not_passed_over(client):
    answer = client.post("/v1/chat/completions", json={**CHAT, "web_search_options": {}})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "web_search_options")


def test_a_top_p_of_nothing_keeps_the_likeliest_token(client):
    greedy = client.post("/v1/chat/completions", json={**CHAT, "max_tokens": 8, "temperature": 0}).json()
    asked = {**CHAT, "max_tokens": 8, "temperature": 1.5, "top_p": 0}
    for order in get_args(Order):
        answer = client.post("/v1/chat/completions", json={**asked, "order": order}).json()
        assert answer["choices"] == greedy["choices"]


def test_negative_seeds_are_seeds():
    made = [
        ChatRequest.model_validate({**CHAT, "seed": seed}).params(SamplingParams()).seed for seed in (-1, -(2**63), 7)
    ]
    assert made == [2**63 - 1, 0, 7]


def test_dimensions_may_be_those_that_there_are(client):
    width = len(client.post("/v1/embeddings", json={"input": "a"}).json()["data"][0]["embedding"])
    for dimensions in (width, None):
        assert client.post("/v1/embeddings", json={"input": "a", "dimensions": dimensions}).status_code == 200
    EmbeddingRequest.model_validate({"input": "a", "dimensions": width})


def test_a_stop_may_end_a_form_early(client):
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"enum": ["one two three"]}}}
    asked = {**CHAT, "max_tokens": 50, "response_format": form, "stop": "two"}
    for stream in (False, True):
        answer = client.post("/v1/chat/completions", json={**asked, "stream": stream})
        assert answer.status_code == 200
        assert "constraint_violated" not in answer.text
    choice = client.post("/v1/chat/completions", json=asked).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ('"one ', "stop")


def test_a_body_without_a_kind_is_json(client):
    body = json.dumps(CHAT).encode()
    for headers in ({}, {"content-type": "application/x-www-form-urlencoded"}):
        assert client.post("/v1/chat/completions", content=body, headers=headers).status_code == 200


def test_lenient_drops_what_it_does_not_know_and_says_so(client, lenient):
    told = {"cache_control": {"type": "ephemeral"}, "bad name": 1}
    asked = {**CHAT, "messages": [{**ASK, **told}], "reasoning_effort": "low", "verbosity": None}
    answer = lenient.post("/v1/chat/completions", json=asked)
    assert answer.status_code == 200
    assert answer.headers["x-camelid-ignored"] == "cache_control, other, reasoning_effort"
    plain = client.post("/v1/chat/completions", json=CHAT)
    assert answer.json()["choices"] == plain.json()["choices"]
    assert "x-camelid-ignored" not in lenient.post("/v1/chat/completions", json=CHAT).headers
    assert lenient.post("/v1/chat/completions", json={**CHAT, "temperature": "hot"}).status_code == 400
    assert IGNORED.get() is None
    assert ignored_header([f"x{number}" for number in range(1000)]).count(",") == 19


MISLED = [
    ("/v1/embeddings", {"input": ["a"] * 2049}, "input", "has 2049 items, the limit is 2048"),
    ("/v1/completions", {"prompt": ["a"] * 257}, "prompt", "has 257 items, the limit is 256"),
    ("/v1/chat/completions", {"messages": [{**ASK, "content": "cut \ud83d"}]}, "messages", "messages: lone surrogate"),
    ("/v1/completions", {"prompt": "cut \ud83d here"}, "prompt", "prompt: lone surrogate"),
    ("/v1/embeddings", {"input": "cut \ud83d here"}, "input", "input: lone surrogate"),
    (
        "/v1/chat/completions",
        {"messages": [{**ASK, "content": {"text": "x"}}]},
        "messages.0.content",
        "a list of parts",
    ),
    ("/v1/embeddings", {"input": [99999999]}, "input", "input: id 99999999"),
    ("/v1/chat/completions", {"messages": [ASK], "store": True}, "store", "store: must be false"),
    ("/v1/chat/completions", {"messages": []}, "messages", "messages: must have at least 1 item, not 0"),
    ("/v1/chat/completions", {"messages": ["hi"]}, "messages.0", "must be a JSON object"),
    ("/v1/chat/completions", [], "body", "body: must be a JSON object"),
    ("/v1/chat/completions", {"messages": [{"content": "a"}]}, "messages.0", "must be an object with 'role'"),
    ("/v1/chat/completions", {"messages": [{"role": "bard"}]}, "messages.0", "'role' is 'bard'; choose 'system'"),
]


@pytest.mark.parametrize(("path", "body", "param", "words"), MISLED, ids=range(len(MISLED)))
def test_errors_name_the_place_and_the_mistake(client, path, body, param, words):
    answer = client.post(path, content=json.dumps(body).encode(), headers={"content-type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert words in error["message"]
    assert "List" not in error["message"]
