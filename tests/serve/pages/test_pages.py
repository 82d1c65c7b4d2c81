"""The shell of all pages: tabs, files under a hash, and pages that stand by themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

import camelid
from camelid.serve.pages import shell
from tests.serve.pages.watched import Watched

PAGES = ("/chat", "/flow", "/models", "/runs", "/about", "/docs", "/login", "/chat/nowhere")
STATIC, TEMPLATES = shell.HERE / "static", shell.HERE / "templates"


@pytest.fixture(scope="module")
def client(server) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, follow_redirects=True, timeout=60) as it:
        yield it


@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES)
def test_a_page_names_its_files_and_nothing_from_elsewhere(client, path):
    html = client.get(path, headers={"accept": "text/html"}).text
    files = re.findall(r'(?:src|href)="(/static/[^"#]+)', html)
    assert any(file.endswith("/style.css") for file in files)
    for file in files:
        answer = client.get(file)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert not re.findall(r'(?:src|href|action)="(?:https?:)?//', html)
    assert "<style" not in html
    assert " style=" not in html
    assert not re.search(r"<script(?![^>]* src=)", html)
    assert not re.search(r"\son[a-z]+=", html)


def test_only_pages_that_are_there_have_tabs(client):
    tabs = dict(re.findall(r'<li><a href="([^"]+)"[^>]*>([^<]+)</a></li>', client.get("/about").text))
    assert tabs == {"/chat": "Direct Chat", "/flow": "Flow", "/models": "Models", "/runs": "Runs", "/about": "About"}
    assert list(tabs) == [tab.path for tab in shell.TABS if tab.path in tabs]
    for path in tabs:
        current = re.findall(r'<a href="([^"]+)" aria-current="page">', client.get(path).text)
        assert current == [path]


def test_the_first_page_is_the_chat(client):
    answer = client.get("/", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, "/chat")
    assert client.get("/favicon.ico").headers["content-type"] == "image/svg+xml"


def test_about_says_what_is_loaded(client, llama):
    html = client.get("/about").text
    assert "SmolLM2 135M" in html
    assert "134,515,008" in html
    assert "Apache License 2.0" in html


def test_an_old_address_gives_the_file_of_today_unkept(client):
    answer = client.get("/static/0123456789/style.css")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-cache")
    for name in ("nothing.css", "shell.py", "..%2fshell.py"):
        assert client.get(f"/static/{shell.static_version()}/{name}").status_code == 404


def test_a_change_of_a_file_changes_all_addresses(monkeypatch):
    before = shell.static_version()
    files = {**shell.static_files(), "style.css": b"body {}"}
    monkeypatch.setattr(shell, "static_files", lambda: files)
    shell.static_version.cache_clear()
    try:
        assert shell.static_version() != before
    finally:
        shell.static_version.cache_clear()


def test_a_guest_brings_its_own_templates_and_files(client, tmp_path, monkeypatch):
    monkeypatch.setattr(shell, "_GUESTS", {})
    before = shell.static_version()
    for name, text in (("templates/hut.html", '{% extends "base.html" %}'), ("static/hut.css", "hut {}")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    shell.take_in("hut", tmp_path)
    try:
        assert shell.environment().get_template("hut/hut.html")
        assert shell.static_version() != before
        address = shell.asset("hut/hut.css")
        shell.take_in("hut", tmp_path)
        assert shell.asset("hut/hut.css") == address
        assert client.get(address).text == "hut {}"
    finally:
        for cached in (shell.static_files, shell.static_version, shell.environment):
            cached.cache_clear()


def test_a_conversation_that_is_not_there(client):
    answer = client.get("/chat/nowhere")
    assert answer.status_code == 404
    assert "This conversation is not here" in answer.text


def test_a_model_can_be_named_in_the_address(client):
    assert "<option selected>tiny</option>" in client.get("/chat?model=tiny").text
    assert "<option selected>smollm2</option>" in client.get("/chat?model=nowhere").text


def test_what_users_write_is_escaped(client):
    made = client.post("/api/conversations", json={"title": "<script>x</script>", "system": "</textarea><b>"}).json()
    html = client.get(f"/chat/{made['id']}").text
    assert "<script>x" not in html
    assert "</textarea><b>" not in html
    assert "&lt;script&gt;x" in html


@pytest.mark.parametrize("path", sorted(STATIC.glob("*.js")), ids=lambda path: path.name)
def test_modules_are_small_and_import_their_neighbours_only(path: Path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 300
    for name in re.findall(r'from "([^"]+)"', text):
        assert name.startswith("./")
        assert (STATIC / name).is_file()
    assert "//" not in re.sub(r"\s//.*|^//.*|/\*.*?\*/|http://www.w3.org/\S+", "", text, flags=re.M | re.S)


def test_every_icon_that_is_used_is_drawn():
    drawn = set(re.findall(r'<symbol id="([\w-]+)"', (STATIC / "icons.svg").read_text(encoding="utf-8")))
    used = {
        name
        for template in Path(camelid.__file__).parent.rglob("templates/*.html")  # of guests, too
        for name in re.findall(r'icon\("([\w-]+)"\)', template.read_text(encoding="utf-8"))
    }
    assert used
    assert used <= drawn
    assert drawn <= used


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_stands_in_anybodys_way(browser, server, scheme, width):
    watched = Watched(browser, server.url, viewport={"width": width, "height": 800}, color_scheme=scheme)
    for path in ("/about", "/docs", "/login"):
        watched.page.goto(path, wait_until="networkidle")
        assert watched.barriers() == []
        assert watched.page.evaluate("() => document.documentElement.scrollWidth") <= width
    watched.context.close()
    assert not watched.wrong
