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
from urllib.parse import quote, urlsplit

from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from camelid.errors import CamelidError
from camelid.serve.errors import ApiError, error_body, error_response, internal_error
from camelid.serve.keys import Keys
from camelid.serve.options import ServeOptions, is_loopback

log = logging.getLogger(__name__)

BODY_SECONDS = 60  # for a request's body to arrive
MOST_DISCARDED = 2**26  # bytes of a body that is too large, read before it is refused
MOST_DIGITS = 20  # of a Content-Length
OPEN_PATHS = ("/health", "/login")  # and what lies under STATIC: no key is asked for
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
_CORS_HEADERS = {
    "access-control-allow-methods": "GET, POST",
    "access-control-allow-headers": "authorization, content-type, x-request-id",
    "access-control-max-age": "600",
}


class Guards:
    """The layer around an application.

    Args:
        app: what is guarded.
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
        reply = _Reply(send, self._extra_headers(headers, request_id))
        try:
            early = self._refuse_or_answer(scope, headers)
            if early is None:
                body = await self._body(headers, receive)
                await self._run(scope, body, receive, reply)
            else:
                await early(scope, receive, reply.send)
        except CamelidError as error:
            await reply.fail(error, scope, receive)
        except Exception as error:
            log.error("%s %s: %s failed", scope["method"], scope["path"], request_id, exc_info=error)
            await reply.fail(internal_error(), scope, receive)

    def _extra_headers(self, headers: dict[bytes, bytes], request_id: str) -> list[tuple[bytes, bytes]]:
        extra = [(b"x-request-id", request_id.encode()), *_HEADERS]
        if self.options.cors_origins:
            extra.append((b"vary", b"Origin"))
        origin = headers.get(b"origin", b"")
        if origin.decode("latin-1").lower() in self.options.cors_origins:
            extra += [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", b"x-request-id")]
        return extra

    def _refuse_or_answer(self, scope: Scope, headers: dict[bytes, bytes]) -> Response | None:
        """An answer that needs no handler.

        Raises:
            ApiError: the request may not come in.
        """
        host, origin = (headers.get(name, b"").decode("latin-1").lower() for name in (b"host", b"origin"))
        if self.options.is_loopback and not _is_this_machine(host):
            # A name that someone else's DNS points here would make their page same-origin with this server.
            raise ApiError(403, f"Host: {host!r} is not this machine; call it by 127.0.0.1 or localhost", "wrong_host")
        if origin and scope["method"] not in ("GET", "HEAD") and not self._is_welcome(origin, host):
            raise ApiError(403, f"Origin: {origin} may not call; allow it with --cors-origin", "wrong_origin")
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            return Response(status_code=204, headers=_CORS_HEADERS)
        path = scope["path"]
        if path in OPEN_PATHS or path.startswith(STATIC) or self.keys.allow(headers):
            return None
        if scope["method"] == "GET" and b"text/html" in headers.get(b"accept", b""):
            return RedirectResponse(f"/login?next={quote(path)}", 303)
        raise ApiError(
            401,
            "Authorization: a key of this server is needed: Authorization: Bearer KEY",
            "invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )

    def _is_welcome(self, origin: str, host: str) -> bool:
        return origin in self.options.cors_origins or urlsplit(origin).netloc == host

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
                told = f"body: did not arrive within {BODY_SECONDS} seconds; send it faster"
                raise ApiError(408, told, "body_timeout") from None
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

    def __init__(self, send: Send, extra: Iterable[tuple[bytes, bytes]]) -> None:
        self._send, self._extra = send, list(extra)
        self._started = self._streams_events = False
        self.complete = False

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            own = list(message.get("headers", []))
            names = {name.lower() for name, _ in own}
            extra = [(name, value) for name, value in self._extra if name not in names]
            if b"cache-control" not in names:
                extra.append((b"cache-control", b"no-store"))
            self._started = True
            self._streams_events = any(value.startswith(b"text/event-stream") for _, value in own)
            message = {**message, "headers": own + extra}
        else:
            self.complete = not message.get("more_body", False)
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


def _is_this_machine(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return name is not None and is_loopback(name)
