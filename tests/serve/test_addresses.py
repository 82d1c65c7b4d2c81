"""Under a path of a proxy: no link, no redirect, no cookie and no script leaves it."""

from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient

from camelid.serve.app import create_app
from camelid.serve.keys import COOKIE
from camelid.serve.models import Models
from camelid.serve.options import ServeOptions
from camelid.serve.worker import Worker
from tests.serve.conftest import TINY, random_llama, running
from tests.serve.pages.watched import Watched, playwright
from tests.train.test_runs import made_run

KEY = "a-key-of-this-server"
PREFIX = {"x-forwarded-prefix": "/llm"}
expect = playwright.expect


@pytest.fixture(scope="module")
def client(smollm2_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    made_run(folder / "runs" / "done" / "pretrain", steps=4)
    options = ServeOptions(data=folder / "serve.db", runs=folder / "runs", api_keys=(KEY,))
    app = create_app(Models([Worker(TINY, random_llama(smollm2_path))]), options)
    with TestClient(app, base_url="http://127.0.0.1", headers=PREFIX, follow_redirects=False) as it:
        yield it


@pytest.mark.parametrize(
    "path", ["/chat", "/flow", "/models", "/runs", "/runs/done/pretrain", "/about", "/docs", "/login"]
)
def test_every_link_of_a_page_stays_below(client, path):
    html = client.get(path, headers={"authorization": f"Bearer {KEY}"}).text
    links = re.findall(r'(?:href|src|action|data-live)="(/[^"]*)"', html)
    assert len(links) > 5
    assert all(link.startswith("/llm/") for link in links)
    (script,) = {link for link in links if link.endswith("shell.js")}
    assert client.get(script.removeprefix("/llm")).status_code == 200


def test_redirects_and_the_session_stay_below(client):
    key = {"authorization": f"Bearer {KEY}"}
    assert client.get("/", headers=key).headers["location"] == "/llm/chat"
    assert client.get("/favicon.ico", headers=key).headers["location"].startswith("/llm/static/")
    asked = client.get("/runs", headers={"accept": "text/html"})
    assert asked.headers["location"] == "/llm/login?next=/runs"
    entered = client.post("/login", data={"key": KEY, "next": "/runs"})
    assert (entered.status_code, entered.headers["location"]) == (303, "/llm/runs")
    cookie = entered.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert "Path=/llm;" in cookie


def test_scripts_stay_below(browser, smollm2_path, options):
    models = Models([Worker(TINY, random_llama(smollm2_path))])
    with running(models, options.with_(root_path="/llm")) as server:
        watched = Watched(browser, server.url, viewport={"width": 1280, "height": 800})
        page = watched.page
        made = page.request.post("/llm/api/conversations", data={"params": {"max_tokens": 3}}).json()
        page.goto(f"/llm/chat/{made['id']}")
        page.get_by_label("Message", exact=True).fill("Hello")
        page.get_by_label("Message", exact=True).press("Enter")
        expect(page.locator("#messages article")).to_have_count(2, timeout=20_000)
        expect(page.locator("#chat:not([data-busy])")).to_be_attached(timeout=20_000)
        page.get_by_role("link", name="New conversation").click()
        expect(page).to_have_url(f"{server.url}/llm/chat")
        page.goto("/llm/models")
        page.goto("/llm")
        expect(page).to_have_url(f"{server.url}/llm/chat")
        assert all("/llm" in response.url for response in watched.responses)
        watched.context.close()
        assert not watched.wrong
