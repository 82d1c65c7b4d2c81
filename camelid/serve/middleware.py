"""What stands between the network and the application: who may come in, with how much, for how long.

One ASGI layer, since every token that is streamed passes it. It reads a request's body before the application runs,
so that sizes and times are bounded in one place, and then watches the connection: a handler whose client hangs up is
cancelled, whatever it is doing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from camelid.errors import CamelidError
from camelid.serve.addresses import ROOT, at_root, check_origin, cors_headers, link, preflight_headers
from camelid.serve.body import IGNORED, check_json, ignored_header
from camelid.serve.errors import ApiError, error_body, error_response, internal_error
from camelid.serve.keys import Keys
from camelid.serve.options import ServeOptions

log = logging.getLogger(__name__)

BODY_SECONDS = 60  # for a request's body to arrive
MOST_DISCARDED = 2**26  # bytes of a body that is too large, read before it is refused
MOST_DIGITS = 20  # of a Content-Length
LONG_BODY = 2**16  # bytes; looking at more is a thread's work
LOGIN = "/login"
OPEN_PATHS = ("/health", LOGIN)  # and what lies under STATIC: no key is asked for
FORMS = (LOGIN, "/arena/admin")  # pages that take a key, as a browser sends a form
STATIC = "/static/"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class RequestMiddleware:
    """The layer around an application.

    Args:
        app: what it stands before.
        options: limits, and who may come.
        keys: which keys are good.
    """

    def __init__(self, app: ASGIApp, options: ServeOptions, keys: Keys) -> None:
        self.app, self.options, self.keys = app, options, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"
        scope.setdefault("state", {})["request_id"] = request_id
        scope, root = at_root(scope, headers, self.options.root_path)
        ROOT.set(root)
        ignored: list[str] | None = [] if self.options.lenient else None
        IGNORED.set(ignored)
        extra = [(b"x-request-id", request_id.encode()), *_HEADERS, *cors_headers(headers, self.options)]
        reply = _Reply(send, extra, ignored)
        try:
            early = self._refuse_or_answer(scope, headers)
            if early is None:
                body = await self._body(headers, receive)
                if body and scope["path"] not in FORMS and scope["method"] in ("POST", "PUT", "PATCH"):
                    await _check_json(body, headers)
                    scope = {**scope, "headers": _as_json(scope["headers"])}
                await self._run(scope, body, receive, reply)
            else:
                await early(scope, receive, reply.send)
        except CamelidError as error:
            await reply.fail(error, scope, receive)
        except Exception as error:
            log.error("%s %s: %s failed", scope["method"], scope["path"], request_id, exc_info=error)
            await reply.fail(internal_error(), scope, receive)

    def _refuse_or_answer(self, scope: Scope, headers: dict[bytes, bytes]) -> Response | None:
        """An answer that needs no handler.

        Raises:
            ApiError: the request may not come in.
        """
        check_origin(scope["method"], headers, self.options)
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            return Response(status_code=204, headers=preflight_headers(headers))
        path = scope["path"]
        if path in OPEN_PATHS or path.startswith(STATIC) or self.keys.allow(headers):
            return None
        if scope["method"] in ("GET", "HEAD") and b"text/html" in headers.get(b"accept", b""):
            return RedirectResponse(link(f"/login?next={quote(path)}"), 303)
        raise self.keys.refuse(headers)

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes | None:
        """The whole body; None if the client has gone.

        One that is too large is read to its end where that is bearable, since many clients look for an answer only
        when they have sent everything.

        Raises:
            ApiError: it is too large, or takes too long.
        """
        limit, declared = self.options.max_body_bytes, headers.get(b"content-length", b"")
        if len(declared) > MOST_DIGITS:
            raise ApiError(400, f"Content-Length: has {len(declared)} digits", "bad_request")
        n_declared = int(declared) if declared.isdigit() else 0
        n_bytes, parts, more = 0, [], n_declared <= limit or b"expect" not in headers
        try:
            async with asyncio.timeout(min(BODY_SECONDS, self.options.request_seconds)):
                while more and max(n_bytes, n_declared) <= MOST_DISCARDED:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    part = message.get("body", b"")
                    n_bytes += len(part)
                    more = message.get("more_body", False)
                    if n_bytes <= limit:
                        parts.append(part)
                    else:
                        parts.clear()
        except TimeoutError:
            if n_bytes <= limit:
                late = f"body: did not arrive within {BODY_SECONDS} seconds; send it faster"
                raise ApiError(408, late, "body_timeout") from None
        n_bytes = max(n_bytes, n_declared)
        if n_bytes > limit:
            raise ApiError(413, f"body: has {n_bytes} bytes, the limit is {limit}; shorten it", "body_too_large")
        return b"".join(parts)

    async def _run(self, scope: Scope, body: bytes | None, receive: Receive, reply: _Reply) -> None:
        """Run the application until it is done, its time is over or its client has gone."""
        if body is None:
            return
        gone, whole = asyncio.Event(), [body]

        async def replay() -> Message:
            if whole:
                return {"type": "http.request", "body": whole.pop(), "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        task = asyncio.current_task()
        assert task is not None
        watcher = asyncio.create_task(_watch(receive, reply, task, gone))
        seconds = self.options.request_seconds
        try:
            async with asyncio.timeout(seconds):
                if scope["method"] == "HEAD":  # what GET gives, without its body
                    reply.is_head, scope = True, {**scope, "method": "GET"}
                await self.app(scope, replay, reply.send)
        except TimeoutError:
            raise ApiError(504, f"took longer than the {seconds:g} seconds that a request has", "timeout") from None
        except asyncio.CancelledError:
            if not gone.is_set():
                raise
            task.uncancel()
        finally:
            watcher.cancel()


class _Reply:
    """Sends a response with headers added, and knows how far it has come."""

    def __init__(self, send: Send, extra: Iterable[tuple[bytes, bytes]], ignored: list[str] | None) -> None:
        self._send, self._extra, self._ignored = send, list(extra), ignored
        self._started = self._streams_events = False
        self.complete = self.is_head = False

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            own = list(message.get("headers", []))
            names = {name.lower() for name, _ in own}
            extra = [(name, value) for name, value in self._extra if name not in names]
            if self._ignored:
                extra.append((b"x-camelid-ignored", ignored_header(self._ignored).encode()))
            if b"cache-control" not in names:
                extra.append((b"cache-control", b"no-store"))
            self._started = True
            self._streams_events = any(value.startswith(b"text/event-stream") for _, value in own)
            message = {**message, "headers": own + extra}
        else:
            self.complete = not message.get("more_body", False)
            if self.is_head:
                message = {**message, "body": b""}
        await self._send(message)

    async def fail(self, error: CamelidError, scope: Scope, receive: Receive) -> None:
        """Answer with an error, or end a stream of events with one; any other answer is cut off where it is."""
        if not self._started:
            await error_response(error)(scope, receive, self.send)
        elif self._streams_events and not self.complete:
            data = f"data: {json.dumps(error_body(error))}\n\n"
            await self.send({"type": "http.response.body", "body": data.encode(), "more_body": False})


async def _watch(receive: Receive, reply: _Reply, task: asyncio.Task[Any], gone: asyncio.Event) -> None:
    """Cancel the handler when its client hangs up before the answer is complete."""
    while (await receive())["type"] != "http.disconnect":
        pass
    if not reply.complete:
        gone.set()
        task.cancel()


async def _check_json(body: bytes, headers: dict[bytes, bytes]) -> None:
    if len(body) > LONG_BODY:
        await asyncio.to_thread(check_json, body, headers)
    else:
        check_json(body, headers)


def _as_json(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Headers that say that a body is the JSON that it was seen to be."""
    return [
        *((name, value) for name, value in headers if name != b"content-type"),
        (b"content-type", b"application/json"),
    ]
