"""How a browser gets in where keys are asked for."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from camelid.serve.app import create_app
from camelid.serve.keys import COOKIE
from camelid.serve.pages import login

KEY = "a-key-of-this-server"


@pytest.fixture
def browser(models, options, monkeypatch):
    """A browser that has no key yet; the workers are not started, since no model is asked."""
    monkeypatch.setattr(login, "WRONG_KEY_SECONDS", 0)
    app = create_app(models, options.with_(api_keys=(KEY,)))
    return TestClient(app, base_url="http://127.0.0.1", headers={"accept": "text/html"}, follow_redirects=False)


def enter(browser, key, next="/docs"):
    return browser.post("/login", data={"key": key, "next": next})


def test_the_key_is_entered_once(browser):
    sent = browser.get("/docs")
    assert sent.headers["location"] == "/login?next=/docs"
    form = browser.get(sent.headers["location"])
    assert form.status_code == 200
    assert 'type="password"' in form.text
    assert 'value="/docs"' in form.text
    entered = enter(browser, KEY)
    assert entered.status_code == 303
    assert entered.headers["location"] == "/docs"
    assert browser.get("/docs").status_code == 200


def test_the_cookie_is_for_this_server_only_and_holds_no_key(browser):
    cookie = enter(browser, KEY).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert KEY not in cookie
    value = cookie.partition(f"{COOKIE}=")[2].partition(";")[0]
    assert len(value) > 64


@pytest.mark.parametrize("key", ["", "wrong", KEY + "x"])
def test_a_wrong_key_is_told_and_opens_nothing(browser, key):
    answer = enter(browser, key)
    assert answer.status_code == 401
    assert "not a key" in answer.text
    assert "set-cookie" not in answer.headers
    assert browser.get("/docs").status_code == 303


@pytest.mark.parametrize("next", ["https://evil.example", "//evil.example", "/\\evil.example", "/a\r\nb", "chat", ""])
def test_it_leads_nowhere_else(browser, next):
    assert enter(browser, KEY, next).headers["location"] == "/"
    assert "evil" not in browser.get("/login", params={"next": next}).text


def test_other_sites_cannot_enter_a_key(browser):
    answer = browser.post("/login", data={"key": KEY}, headers={"origin": "https://evil.example"})
    assert answer.status_code == 403


def test_a_form_of_millions_of_fields_is_not_read(browser):
    answer = browser.post("/login", content=b"a&" * 10**6)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"
