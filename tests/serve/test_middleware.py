"""Who may come in, with how much, and for how long; and what every answer carries."""

from __future__ import annotations

import asyncio
import re

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from starlette.responses import StreamingResponse

from camelid.errors import OptionError, ResourceError
from camelid.serve import errors, keys
from camelid.serve.keys import COOKIE, Keys
from camelid.serve.middleware import RequestMiddleware
from camelid.serve.options import ServeOptions

KEY = "a-key-of-this-server"


def guarded(**changes):
    """An application of a few routes behind the guards."""
    options = ServeOptions(**changes)
    app = FastAPI()
    errors.install(app)
    app.add_middleware(RequestMiddleware, options=options, keys=Keys(options.api_keys))

    @app.post("/size")
    async def size(request: Request):
        return {"bytes": len(await request.body())}

    @app.get("/health")
    async def health():
        return {}

    @app.get("/private")
    async def private():
        return {}

    @app.get("/slow")
    async def slow():
        await asyncio.sleep(60)

    @app.get("/broken")
    async def broken():
        raise RuntimeError("a secret path")

    @app.get("/no-memory")
    async def no_memory():
        raise ResourceError("cache: no room")

    @app.get("/events")
    async def events(breaks: str):
        async def parts():
            yield b"data: one\n\n"
            if breaks == "late":
                await asyncio.sleep(60)
            raise OptionError("it: breaks")

        return StreamingResponse(parts(), media_type="text/event-stream")

    return app


def client(base_url="http://127.0.0.1", **changes):
    return TestClient(guarded(**changes), base_url=base_url)


def code(response):
    return response.json()["error"]["code"]


def test_answers_carry_a_request_id_and_strict_headers():
    answer = client().get("/private")
    assert re.fullmatch(r"req_[0-9a-f]{24}", answer.headers["x-request-id"])
    assert answer.headers["content-security-policy"].startswith("default-src 'self';")
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(("given", "kept"), [("my-id_1.2", True), ("a b", False), ("x" * 65, False), ("é", False)])
def test_a_sane_request_id_comes_back(given, kept):
    answer = client().get("/private", headers={"x-request-id": given.encode("latin-1")})
    assert (answer.headers["x-request-id"] == given) == kept


def test_errors_carry_them_too():
    for path, status in (("/nowhere", 404), ("/broken", 500), ("/no-memory", 503)):
        answer = client().get(path, headers={"x-request-id": "mine"})
        assert answer.status_code == status
        assert answer.headers["x-request-id"] == "mine"
        assert ("retry-after" in answer.headers) == (status == 503)
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_our_own_faults_are_told_without_their_insides(caplog):
    answer = client().get("/broken")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "a secret path" in caplog.text
    assert answer.headers["x-request-id"] in caplog.text


def test_a_body_up_to_the_limit_is_taken_and_one_byte_more_is_not():
    app = client(max_body_bytes=2000)
    assert app.post("/size", content=b"x" * 2000).json() == {"bytes": 2000}
    answer = app.post("/size", content=b"x" * 2001)
    assert answer.status_code == 413
    assert code(answer) == "body_too_large"
    assert "2001" in answer.text
    assert "2000" in answer.text


def test_a_body_without_a_length_has_the_same_limit():
    app = client(max_body_bytes=2000)
    assert app.post("/size", content=iter([b"x" * 1000, b"y" * 1000])).json() == {"bytes": 2000}
    assert app.post("/size", content=iter([b"x" * 1500] * 100)).status_code == 413


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000", "127.8.8.8"])
def test_this_machine_is_called_by_its_names(host):
    assert client().get("/private", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *(
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example:8000",
            "[::1",
            "",
            "127.0.0.1:8301.evil.com",
        ),
        *("localhost:80:80", "evil.example@127.0.0.1", "127.0.0.1@evil.example", "127.0.0.1/evil.example", "[::1]evil"),
        *("127.0.0.1:", "127.0.0.1 evil.example", "127.0.0.1#evil.example", "localhost.", "127.0.0.1\\evil.example"),
    ],
)
def test_a_name_that_points_here_from_elsewhere_is_refused(host):
    answer = client().get("/private", headers={"host": host})
    assert answer.status_code == 403
    assert code(answer) == "wrong_host"


def test_a_server_for_others_is_called_as_they_like():
    app = client(host="0.0.0.0", api_keys=(KEY,))
    answer = app.get("/private", headers={"host": "gpu7.example", "authorization": f"Bearer {KEY}"})
    assert answer.status_code == 200


@pytest.mark.parametrize("given", [None, "Bearer", "Bearer wrong-key-entirely", f"Basic {KEY}", KEY, f"Bearer {KEY}x"])
def test_without_the_key_nothing_is_answered(given):
    headers = {"authorization": given} if given else {}
    answer = client(api_keys=("other-key-1", KEY)).get("/private", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    is_wrong = given is not None and len(given.removeprefix("Bearer ")) > 6 and given.startswith("Bearer ")
    assert code(answer) == ("invalid_api_key" if is_wrong else "missing_api_key")
    assert ("not a key" if is_wrong else "no key came") in answer.json()["error"]["message"]
    assert answer.json()["error"]["type"] == "authentication_error"


def test_any_of_the_keys_opens_and_health_is_open():
    app = client(api_keys=("other-key-1", KEY))
    for key in ("other-key-1", KEY):
        assert app.get("/private", headers={"authorization": f"Bearer {key}"}).status_code == 200
    assert app.get("/health").status_code == 200


def test_browsers_are_sent_to_the_form():
    app = client(api_keys=(KEY,))
    answer = app.get("/chat/7?x=1", headers={"accept": "text/html,*/*"}, follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=/chat/7"


def test_a_session_opens_until_it_ends_and_cannot_be_made_up(monkeypatch):
    ours, others = Keys((KEY,)), Keys((KEY,))
    cookie = {b"cookie": f"a=b; {COOKIE}={ours.session()}".encode()}
    assert ours.allow(cookie)
    assert not others.allow(cookie)
    end, _, signature = ours.session().partition(".")
    for forged in (f"{int(end) + 1}.{signature}", f"{end}.", end, "", "x.y", f"{end}.é{signature}"):
        assert not ours.allow({b"cookie": f"{COOKIE}={forged}".encode()})
    monkeypatch.setattr(keys.time, "time", lambda: int(end) + 1)
    assert not ours.allow(cookie)


def test_other_pages_may_not_call_and_are_not_told_anything():
    app = client()
    elsewhere = {"origin": "https://elsewhere.example"}
    assert app.post("/size", headers=elsewhere).status_code == 403
    assert app.post("/size", headers={"origin": "null"}).status_code == 403
    assert app.post("/size", headers={"origin": "http://127.0.0.1"}).status_code == 200
    assert "access-control-allow-origin" not in app.get("/private", headers=elsewhere).headers
    asked = {**elsewhere, "access-control-request-method": "POST"}
    assert app.options("/size", headers=asked).status_code == 403


def test_origins_on_the_list_may_call():
    app = client(cors_origins=("https://page.example",), api_keys=(KEY,))
    page = {"origin": "https://page.example"}
    asked = app.options("/size", headers={**page, "access-control-request-method": "POST"})
    assert asked.status_code == 204
    assert asked.headers["access-control-allow-origin"] == "https://page.example"
    assert "authorization" in asked.headers["access-control-allow-headers"]
    answer = app.post("/size", headers={**page, "authorization": f"Bearer {KEY}"})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://page.example"
    assert "access-control-allow-credentials" not in answer.headers
    assert answer.headers["vary"] == "Origin"
    assert app.post("/size", headers={**page, "origin": "https://page.example.evil"}).status_code == 403


STAINLESS = "authorization,content-type,x-stainless-arch,x-stainless-os,x-stainless-retry-count"


def test_a_page_is_told_that_its_clients_headers_may_be_sent():
    """OpenAI's JavaScript client sends a dozen of its own."""
    app = client(cors_origins=("http://localhost:8211",))
    asked = {"origin": "http://localhost:8211", "access-control-request-method": "POST"}
    answer = app.options("/size", headers={**asked, "access-control-request-headers": STAINLESS})
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-headers"] == STAINLESS
    assert "access-control-allow-private-network" not in answer.headers
    local = app.options("/size", headers={**asked, "access-control-request-private-network": "true"})
    assert local.headers["access-control-allow-private-network"] == "true"
    odd = app.options("/size", headers={**asked, "access-control-request-headers": "a: b"})
    assert odd.headers["access-control-allow-headers"] == "authorization, content-type"


@pytest.mark.parametrize(
    ("listed", "origin", "may"),
    [
        ("*", "https://any.example", True),
        ("*", "null", True),
        ("null", "null", True),
        ("null", "https://any.example", False),
        ("app://obsidian.md", "app://obsidian.md", True),
        ("app://obsidian.md", "app://other", False),
        ("chrome-extension://abc", "chrome-extension://abc", True),
        ("vscode-webview://*", "vscode-webview://1a2b", True),
        ("vscode-webview://*", "https://any.example", False),
        ("HTTPS://Page.example", "https://page.example", True),
    ],
)
def test_origins_of_every_kind_can_be_allowed(listed, origin, may):
    app = client(cors_origins=(listed,))
    answer = app.post("/size", headers={"origin": origin})
    assert answer.status_code == (200 if may else 403)
    assert answer.headers.get("access-control-allow-origin") == (origin if may else None)
    asked = app.options("/size", headers={"origin": origin, "access-control-request-method": "POST"})
    assert asked.status_code == (204 if may else 403)


def test_a_proxys_name_can_be_allowed():
    app = client(allowed_hosts=("Chat.example.org",))
    for host in ("chat.example.org", "chat.example.org:8443", "localhost"):
        assert app.get("/private", headers={"host": host}).status_code == 200
        assert app.post("/size", headers={"host": host, "origin": "https://chat.example.org"}).status_code == 200
    assert app.get("/private", headers={"host": "chat.example.org.evil"}).status_code == 403
    assert app.post("/size", headers={"origin": "https://elsewhere.example"}).status_code == 403
    assert client(allowed_hosts=("*",)).get("/private", headers={"host": "any.example"}).status_code == 200


def test_head_is_get_without_the_body():
    app = client()
    got, asked = app.get("/health"), app.head("/health")
    assert asked.status_code == 200
    assert asked.headers["content-length"] == got.headers["content-length"]
    assert asked.content == b""
    assert app.head("/size").status_code == 405
    assert app.head("/nowhere").status_code == 404


@pytest.mark.parametrize("path", ["/llm/private", "/private"], ids=["left in", "taken away"])
def test_a_path_of_a_proxy(path):
    app = client(root_path="/llm/", api_keys=(KEY,))
    assert app.get(path, headers={"authorization": f"Bearer {KEY}"}).status_code == 200
    assert app.get("/llm/health").status_code == 200
    asked = app.get(path, headers={"accept": "text/html"}, follow_redirects=False)
    assert asked.headers["location"] == "/llm/login?next=/private"


@pytest.mark.parametrize(("told", "at"), [("/llm", "/llm"), ("//evil.example", ""), ("/a/../b", ""), ("/<x>", "")])
def test_a_proxy_may_tell_its_path(told, at):
    asked = client(api_keys=(KEY,)).get(
        "/private", headers={"accept": "text/html", "x-forwarded-prefix": told}, follow_redirects=False
    )
    assert asked.headers["location"] == f"{at}/login?next=/private"


def test_a_request_that_takes_too_long_ends():
    answer = client(request_seconds=0.05).get("/slow")
    assert answer.status_code == 504
    assert code(answer) == "timeout"


def speak(app, *messages):
    """Send an application ASGI's own messages, then hang up; returns what it sends."""
    sent, left = [], list(messages)

    async def receive():
        if left:
            return {"type": "http.request", **left.pop(0)}
        await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"host", b"localhost")]}
    asyncio.run(RequestMiddleware(app, ServeOptions(), Keys(()))(scope, receive, send))
    return sent


@pytest.mark.parametrize("streams", [True, False])
def test_a_handler_whose_client_hangs_up_is_cancelled(streams):
    ends = []

    async def app(scope, receive, send):
        assert (await receive())["body"] == b"abc"
        if streams:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            await asyncio.sleep(10)
        finally:
            ends.append("cancelled")

    assert len(speak(app, {"body": b"a", "more_body": True}, {"body": b"bc"})) == streams
    assert ends == ["cancelled"]


def test_who_hangs_up_before_the_body_is_complete_starts_nothing():
    async def app(scope, receive, send):
        raise AssertionError("it has no body")

    assert speak(app, {"body": b"a", "more_body": True}) == []


def test_what_a_handler_does_behind_its_answer_is_not_cancelled():
    ends = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})
        await asyncio.sleep(0.05)
        ends.append("finished")

    assert len(speak(app, {"body": b""})) == 2
    assert ends == ["finished"]


@pytest.mark.parametrize(("breaks", "told"), [("late", '"code": "timeout"'), ("now", "something went wrong")])
def test_a_stream_that_breaks_says_so_in_its_last_event(breaks, told):
    answer = client(request_seconds=0.3).get(f"/events?breaks={breaks}")
    assert answer.status_code == 200
    assert answer.text.startswith("data: one\n\ndata: {")
    assert told in answer.text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"api_keys": ("short",)}, "at least 8"),
        ({"api_keys": ("with space",)}, "visible ASCII"),
        ({"cors_origins": ("page.example",)}, "https://example.org"),
        ({"cors_origins": ("https://*.example",)}, "https://example.org"),
        ({"allowed_hosts": ("https://chat.example",)}, "without scheme"),
        ({"allowed_hosts": ("chat.example:80",)}, "without scheme"),
        ({"root_path": "llm"}, "such as /llm"),
        ({"root_path": "/a//b"}, "such as /llm"),
        ({"cors_origins": ("https://a.example/path",)}, "https://example.org"),
        ({"port": 70000}, "port"),
    ],
)
def test_options_that_cannot_be(changes, words):
    with pytest.raises(OptionError, match=words):
        ServeOptions(**changes)


def test_a_body_of_get_is_nobodys_business():
    answer = client().request("GET", "/health", content=b"\xff", headers={"content-type": "text/plain"})
    assert answer.status_code == 200
