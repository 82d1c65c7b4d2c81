"""The arena's pages without a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camelid.arena.pages.direct import HIDDEN
from camelid.arena.pages.rendering import Rendering
from camelid.arena.pages.routes import NOTICE
from camelid.serve.pages.markdown import to_html
from tests.arena.pages.fake import MODELS


@pytest.fixture(scope="module")
def client(server) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, timeout=60) as it:
        yield it


def test_the_arena_is_the_first_page_and_has_its_tabs(client):
    assert client.get("/").headers["location"] == "/battle"
    tabs = re.findall(r'<li><a href="([^"]+)"[^>]*>([^<]+)</a></li>', client.get("/battle").text)
    assert tabs == [
        ("/battle", "Arena (battle)"),
        ("/side-by-side", "Arena (side-by-side)"),
        ("/chat", "Direct Chat"),
        ("/about", "About"),
    ]


def test_nothing_tells_which_model_works(client):
    for path in (*HIDDEN, "/runs/live"):
        assert client.get(path).status_code in (404, 405), path
    assert client.get("/health").status_code == 200


def test_nobody_is_shown_other_peoples_conversations(client):
    made = client.post("/api/conversations", json={"title": "My secret"}).json()
    assert client.get("/api/conversations").json() == []
    assert "My secret" not in client.get("/chat").text
    assert "My secret" in client.get(f"/chat/{made['id']}").text
    assert client.get("/chat/nowhere").status_code == 404


def test_a_battle_names_nobody(client):
    html = client.get("/battle").text
    told = [text for model in MODELS for text in (model.name, model.organisation, model.description) if text]
    assert not [text for text in told if text in html]


def test_about_describes_every_model(client):
    html = client.get("/about").text
    for text in ("Andes Lab", "Small, woolly and quick.", "Pampas &amp; Co", "third-wheel", *NOTICE):
        assert text in html


@pytest.mark.parametrize("path", ["/battle", "/side-by-side", "/about"])
def test_a_page_names_its_files_and_nothing_from_elsewhere(client, path):
    answer = client.get(path)
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    html = answer.text
    for file in re.findall(r'(?:src|href)="(/static/[^"#]+)', html):
        assert client.get(file).status_code == 200
    assert not re.findall(r'(?:src|action)="(?:https?:)?//', html)
    assert not re.search(r"<style| style=|<script(?![^>]* src=)|\son[a-z]+=", html)


@pytest.mark.parametrize(
    ("address", "chosen"),
    [
        ("", ["vicuna-of-the-andes", "guanaco-2"]),
        ("?a=guanaco-2", ["guanaco-2", "vicuna-of-the-andes"]),
        ("?a=nobody&b=third-wheel", ["vicuna-of-the-andes", "third-wheel"]),
        ("?a=third-wheel&b=third-wheel", ["third-wheel", "third-wheel"]),
    ],
)
def test_the_address_chooses_models(client, address, chosen):
    html = client.get(f"/side-by-side{address}").text
    assert re.findall("<option selected>([^<]+)</option>", html) == chosen


def test_what_is_shared_names_nobody_before_the_vote(client, arena):
    id = client.post("/arena/api/battles", json={"mode": "battle"}).json()["id"]
    client.post(f"/arena/api/battles/{id}/messages", json={"text": "<b>Where?</b>"})
    missing = client.get(f"/arena/share/{id}")
    assert (missing.status_code, "It was not shared" in missing.text) == (404, True)
    address = client.post(f"/arena/api/battles/{id}/share").json()["address"]
    html = client.get(address).text
    for text in ("Nobody has voted yet", "&lt;b&gt;Where?", "<strong>Andes</strong>", "&lt;script&gt;alert(1)"):
        assert text in html
    assert not [model.name for model in MODELS if model.name in html]
    client.post("/arena/api/votes", json={"ticket": f"ticket-{id}-1", "vote": "BOTH_BAD"})
    html = client.get(address).text
    for text in ("found both bad", "vicuna-of-the-andes", "guanaco-2"):
        assert text in html
    assert "✓ better" not in html


@given(st.lists(st.tuples(st.sampled_from("ab"), st.text("a*_`\n-1. #<[]()>", max_size=6)), max_size=30))
def test_events_become_the_html_of_their_texts(pieces):
    rendering, blocks, texts = Rendering(), {"a": {}, "b": {}}, {"a": "", "b": ""}
    events = [{"type": "delta", "side": side, "text": text} for side, text in pieces]
    for event in [*events, *({"type": "end", "side": side} for side in "ab")]:
        texts[event["side"]] += event.get("text", "")
        made = rendering.of(event)
        assert "text" not in made
        blocks[event["side"]].update(made["blocks"])
    for side, text in texts.items():
        assert "".join(blocks[side][index] for index in sorted(blocks[side])) == to_html(text)
    assert rendering.of({"type": "ready", "ticket": "t"}) == {"type": "ready", "ticket": "t"}
