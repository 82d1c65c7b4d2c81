"""Health, metrics, tokens, and the page about them."""

from __future__ import annotations

import json
import re

import pytest

from camelid.serve.pages import api_page


def test_health_names_the_models(client):
    answer = client.get("/health")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ok", "models": ["smollm2", "tiny"]}


@pytest.mark.parametrize("text", ["Hello world", "naïve 🦙 <|im_end|>", "", " a\n\nb"])
def test_what_is_cut_is_joined_again(client, llama, text):
    cut = client.post("/tokenize", json={"text": text}).json()
    assert cut["ids"] == llama.tokenizer.encode(text)
    assert len(cut["pieces"]) == len(cut["ids"])
    joined = client.post("/detokenize", json={"ids": cut["ids"]}).json()
    assert joined == {"text": text, "pieces": cut["pieces"]}


def test_control_tokens_are_text_unless_asked_for(client, llama):
    text = "<|im_end|>"
    plain = client.post("/tokenize", json={"text": text}).json()["ids"]
    special = client.post("/tokenize", json={"text": text, "special": True, "bos": True}).json()["ids"]
    assert len(plain) > 1
    assert special == [llama.tokenizer.bos_id, llama.tokenizer.special_ids[text]]
    assert client.post("/detokenize", json={"ids": special}).json()["text"] == ""
    assert client.post("/detokenize", json={"ids": special, "special": True}).json()["text"].endswith(text)


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/tokenize", {}, 400, "text"),
        ("/tokenize", {"text": 1}, 400, "text"),
        ("/tokenize", {"text": "a", "txet": 1}, 400, "txet"),
        ("/tokenize", {"text": "a", "model": "none"}, 404, "model"),
        ("/tokenize", {"text": "\ud83d"}, 400, None),
        ("/tokenize", {"text": "a", "\ud83d": 1}, 400, None),
        ("/detokenize", {"ids": [0, 49152]}, 400, None),
        ("/detokenize", {"ids": [-1]}, 400, None),
        ("/detokenize", {"ids": ["a"]}, 400, "ids.0"),
    ],
)
def test_mistakes_are_told_in_one_shape(client, path, body, status, param):
    answer = client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert param is None or error["param"] == param


def test_what_is_not_json_says_where(client):
    answer = client.post("/tokenize", content='{"text": ', headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_json"
    assert "character 9" in answer.json()["error"]["message"]


def metrics(client):
    """Name with labels → value, and name → type."""
    answer = client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.text.endswith("\n")
    values, kinds, meanings = {}, {}, {}
    for line in answer.text.splitlines():
        if line.startswith("# "):
            _, word, name, rest = line.split(" ", 3)
            (kinds if word == "TYPE" else meanings)[name] = rest
            continue
        name, _, value = line.rpartition(" ")
        assert re.fullmatch(r'[a-z_]+\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\}', name)
        assert name not in values
        values[name] = float(value)
    assert kinds.keys() == meanings.keys()
    return values, kinds


def test_metrics_count_what_happens(client):
    before, kinds = metrics(client)
    body = {"model": "tiny", "prompt": "Once", "max_tokens": 5, "temperature": 0, "ignore_stop": True}
    assert client.post("/v1/completions", json=body).status_code == 200
    after, _ = metrics(client)

    def grown(name):
        return after[name] - before.get(name, 0)

    assert grown('camelid_completion_tokens_total{model="tiny"}') == 5
    assert grown('camelid_completion_tokens_total{model="smollm2"}') == 0
    assert grown('camelid_prompt_tokens_total{model="tiny"}') > 0
    assert grown('camelid_accepted_tokens_total{model="tiny"}') <= grown('camelid_drafted_tokens_total{model="tiny"}')
    assert grown('camelid_requests_total{model="tiny",outcome="length"}') == 1
    assert grown('camelid_time_to_first_token_seconds_count{model="tiny"}') == 1
    assert grown('camelid_time_per_output_token_seconds_count{model="tiny"}') == 4
    assert grown('camelid_time_per_output_token_seconds_bucket{le="+Inf",model="tiny"}') == 4
    assert after['camelid_running_sequences{model="tiny"}'] == 0
    assert after['camelid_cache_pages{model="tiny"}'] > 0
    assert kinds["camelid_completion_tokens_total"] == "counter"
    assert kinds["camelid_running_sequences"] == "gauge"
    assert kinds["camelid_time_to_first_token_seconds"] == "histogram"


def test_histograms_only_grow_along_their_bounds(client):
    values, _ = metrics(client)
    buckets = [value for name, value in values.items() if name.startswith("camelid_time_to_first_token_seconds_bucket")]
    half = len(buckets) // 2
    for model in (buckets[:half], buckets[half:]):
        assert model == sorted(model)


def test_the_page_about_the_api_tells_of_every_route_and_loads_nothing_from_elsewhere(client, app):
    page = client.get("/docs").text
    for path, methods in app.openapi()["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}" in page
    for name in app.openapi()["components"]["schemas"]:
        assert f'id="shape-{name}"' in page
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert links
    assert all(link.startswith(("/", "#")) for link in links)
    anchors = set(re.findall(r'id="([^"]*)"', page))
    assert {link[1:] for link in links if link.startswith("#")} <= anchors


def test_types_are_told_in_words():
    things = {"type": "array", "items": {"$ref": "#/components/schemas/Thing"}}
    fields = {
        "a": {"anyOf": [things, {"type": "null"}]},
        "b": {"type": "integer", "minimum": 0, "maximum": 5, "default": 3, "description": "How many."},
        "c": {"enum": ["x", "y"]},
        "d": {},
    }
    thing = {"description": "A thing.", "required": ["a"], "properties": fields}
    (shape,) = api_page.describe({"paths": {}, "components": {"schemas": {"Thing": thing}}}).shapes
    assert ["".join(kind.text for kind in row.kind) for row in shape.rows] == [
        "list of Thing or null",
        "integer (≥ 0, ≤ 5)",
        '"x" or "y"',
        "anything",
    ]
    assert [row.required for row in shape.rows] == [True, False, False, False]
    assert shape.rows[1].default == "3"
    assert shape.rows[1].meaning == "How many."
