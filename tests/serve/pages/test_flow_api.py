"""What the Flow page is told, over HTTP: the model's own numbers, and mistakes by name."""

from __future__ import annotations

import asyncio
import base64
import threading

import numpy as np
import pytest

import camelid
from camelid.engine import EngineOptions
from camelid.engine.sampling import steps as sampling
from camelid.serve.errors import ApiError
from camelid.serve.pages import flows

DECK = "The best thing about AI is its ability to"


def ask(client, path="", status=200, **body):
    answer = client.post(f"/api/flow{path}", json=body)
    assert answer.status_code == status, answer.text
    return answer if path == "/attention" and status == 200 else answer.json()


@pytest.fixture(scope="module")
def stage(client):
    return ask(client, text=DECK, params={"temperature": 1, "top_p": 1})


@pytest.mark.slow
def test_the_stage_is_the_models(stage, llama, smollm2_path):
    ids = llama.prompt_ids(DECK)
    assert stage["ids"] == ids
    assert stage["n_prompt"] == len(ids)
    assert [token["piece"] for token in stage["tokens"]] == [llama.tokenizer.piece(id) for id in ids]
    assert b"".join(bytes.fromhex(token["bytes"]) for token in stage["tokens"]).decode() == DECK
    exactly = camelid.load(smollm2_path, backend="cpu", options=EngineOptions(threads=1, activation_bits=15))
    table = exactly.next(DECK, 5)
    rows = stage["outcome"]["rows"]
    assert [row["id"] for row in rows[:3]] == [row.id for row in table.tokens[:3]]
    for row, exact in zip(rows, table.tokens, strict=False):
        assert row["probability"] == pytest.approx(exact.probability, abs=0.003)
        assert row["left"] == pytest.approx(row["probability"])  # temperature 1 and no cut: sampling changes nothing
    assert sum(row["probability"] for row in rows) + stage["outcome"]["others"][0] == pytest.approx(1)
    last = stage["lens"]["layers"][-1]["top"]
    assert [piece for piece, _ in last] == [row["piece"] for row in rows[:5]]
    assert [share for _, share in last] == pytest.approx([row["probability"] for row in rows[:5]], abs=1e-4)
    assert len(stage["lens"]["layers"]) == stage["shape"]["n_layers"] == 30


@pytest.mark.slow
def test_embeddings_and_positions_are_the_models(stage, llama):
    rows = llama.weights.tensors["embed_tokens"].rows(np.array(stage["ids"]))
    strips = stage["embedding"]
    levels = np.frombuffer(base64.b64decode(strips["levels"]), np.int8).reshape(len(rows), strips["width"])
    np.testing.assert_allclose(levels / 127 * strips["scale"], rows[:, : strips["width"]], atol=strips["scale"] / 200)
    np.testing.assert_allclose(strips["norms"], np.linalg.norm(rows, axis=1), atol=1e-3)
    assert len(stage["frequencies"]) == llama.config.head_dim / 2
    assert stage["frequencies"][0] == 1


def test_attention_rows_sum_to_one(client, stage):
    n_heads, length = stage["shape"]["n_heads"], len(stage["ids"])
    for layer in (0, 29):
        weights = np.frombuffer(ask(client, "/attention", ids=stage["ids"], layer=layer).content, np.uint8)
        heads = weights.reshape(n_heads, length * (length + 1) // 2)
        for position in range(length):
            row = heads[:, position * (position + 1) // 2 :][:, : position + 1].sum(axis=1, dtype=int)
            assert (abs(row - 255) <= (position + 1) / 2).all()
    telling = stage["telling"]
    assert 0 <= telling["head"] < n_heads


def test_a_lens_for_any_position(client, stage):
    for position in (0, 4):
        beginning = ask(client, ids=stage["ids"][: position + 1])
        found = ask(client, "/lens", ids=stage["ids"], position=position)
        assert found["position"] == position
        for one, other in zip(found["layers"], beginning["lens"]["layers"], strict=True):
            assert one["top"][0][0] == other["top"][0][0]
            assert one["entropy"] == pytest.approx(other["entropy"], abs=0.01)


def test_a_step_appends_what_was_chosen(client, stage):
    ids, best = stage["ids"], stage["outcome"]["rows"][0]
    done = ask(client, "/step", ids=ids, take="greedy")
    assert done["chosen"]["id"] == best["id"]
    assert done["chosen"]["number"] is None
    assert done["stage"]["ids"] == [*ids, best["id"]]
    assert done["stage"]["n_prompt"] == len(ids)
    picked = ask(client, "/step", ids=ids, n_prompt=len(ids), take=1000)
    assert picked["stage"]["ids"] == [*ids, 1000]


def test_steps_draw_as_the_engine_does(client, stage):
    """The n-th written token is drawn by the seed's n-th number, and penalties see what was written."""
    ids, n_prompt = stage["ids"], stage["n_prompt"]
    params = {"temperature": 0.9, "top_p": 1, "seed": 5, "frequency_penalty": 2}
    shown = stage["outcome"]["rows"]
    for index in range(3):
        before = ask(client, "/outcome", ids=ids, n_prompt=n_prompt, params=params)
        done = ask(client, "/step", ids=ids, n_prompt=n_prompt, params=params)
        number, chosen = done["chosen"]["number"], done["chosen"]["id"]
        assert number == sampling.chance(5, 0, index)
        for row in before["rows"]:
            assert (row["id"] == chosen) == (row["begins"] <= number < row["begins"] + row["left"])
        ids = done["stage"]["ids"]
    repeated = ask(client, ids=[*stage["ids"], shown[0]["id"]], n_prompt=n_prompt, params=params)
    steps = [step["name"] for step in repeated["outcome"]["steps"]]
    assert steps == ["all", "frequency", "temperature", "draw"]


def test_the_outcome_alone_follows_the_sliders(client, stage):
    found = ask(client, "/outcome", ids=stage["ids"], params={"temperature": 0.5, "top_k": 3, "top_p": 0.99})
    assert found["params"] == {"temperature": 0.5, "top_k": 3, "top_p": 0.99, "min_p": 0.0}
    assert [step["name"] for step in found["steps"]] == ["all", "temperature", "top_k", "top_p", "draw"]
    assert [row["fell"] for row in found["rows"]] == [None] * 3 + ["top_k"] * 9
    assert sum(row["left"] for row in found["rows"]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("", {}, "text: give either it or ids"),
        ("", {"text": "a", "ids": [1]}, "text: give either it or ids"),
        ("", {"text": ""}, "prompt: is empty"),
        ("", {"text": "word " * 600}, "the flow shows up to 256 at once"),
        ("", {"text": "a", "params": {"temprature": 1}}, "temprature: no such option; did you mean 'temperature'?"),
        ("", {"text": "a", "params": {"top_p": 7}}, "top_p: "),
        ("", {"text": "a", "colour": 1}, "colour: is not supported here"),
        ("", {"ids": [1], "n_prompt": 2}, "n_prompt: 2 is more than the 1 ids"),
        ("", {"ids": [10**7]}, "prompt: id 10000000 lies outside"),
        ("/step", {"ids": [1], "take": -1}, "take: id -1 lies outside"),
        ("/step", {"ids": [1], "take": "dice"}, "take"),
        ("/lens", {"ids": [1], "position": 1}, "position: 1 lies behind the 1 ids"),
        ("/attention", {"ids": [1], "layer": 30}, "layer: 30 lies outside the model's 30 layers"),
    ],
)
def test_mistakes_are_told_by_name(client, path, body, words):
    told = ask(client, path, status=400, **body)["error"]
    assert words in told["message"]
    assert told["type"] == "invalid_request_error"


def test_an_unknown_model_is_404(client):
    assert "choose smollm2 or tiny" in ask(client, status=404, text="a", model="gpt")["error"]["message"]


def test_pages_of_other_sites_may_not_ask(client):
    answer = client.post("/api/flow", json={"text": "a"}, headers={"origin": "http://elsewhere.example"})
    assert answer.status_code == 403


def test_too_many_are_refused(client, llama, monkeypatch):
    """While one works, two may wait; a fourth is told to retry."""
    monkeypatch.setattr(flows, "MOST_WAITING", 2)
    them, held, free = flows.Flows(), threading.Event(), threading.Event()

    def work(flow):
        held.set()
        assert free.wait(20)
        return flow.longest

    async def crowd():
        first = asyncio.create_task(them.run(llama, work))
        await asyncio.to_thread(held.wait, 20)
        others = [asyncio.create_task(them.run(llama, lambda flow: flow.longest)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(ApiError) as refused:
            await them.run(llama, work)
        free.set()
        return refused.value, await asyncio.gather(first, *others)

    refused, results = asyncio.run(crowd())
    assert refused.status == 429
    assert "Retry-After" in refused.headers
    assert results == [256] * 3


def test_the_models_page_tells_what_is_loaded(client):
    page = client.get("/models").text
    for words in ("SmolLM2 135M", "134,515,008", "30 layers, 576 wide", "Q4_1", "the model&#39;s own template", "idle"):
        assert words in page
    before = client.get("/api/models").json()["smollm2"]
    client.post("/v1/completions", json={"model": "smollm2", "prompt": "Hi", "max_tokens": 4, "temperature": 0})
    after = client.get("/api/models").json()["smollm2"]
    assert int(after["written"]) == int(before["written"]) + 4
    assert after["first"] != "–"
