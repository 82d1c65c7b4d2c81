"""Server-sent events."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from camelid.errors import CamelidError
from camelid.serve.errors import error_body, internal_error

HEARTBEAT = 15.0  # seconds of silence after which a comment keeps the connection open

log = logging.getLogger(__name__)


def event(data: object) -> bytes:
    """An event whose data is JSON, on one line."""
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


class EventStream(Response):
    """Events as they come, each sent at once.

    The status is sent with the first event, or after `HEARTBEAT` seconds without one: what fails before that has its
    own status. What fails later is told in the last event. When the client goes away, which the middleware notices,
    `events` is closed.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None], status_code: int = 200) -> None:
        # nginx would otherwise collect what should be seen at once
        super().__init__(status_code=status_code, headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._begun, self._silent = False, True
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all events.

        Raises:
            CamelidError: before anything was sent.
        """
        # in a task of its own each event wakes this class, and not first the twenty calls of the layers around it
        writing = asyncio.create_task(self._write(send))
        try:
            while not (await asyncio.wait((writing,), timeout=HEARTBEAT))[0]:
                if self._silent:
                    await self._send(send, b": waiting\n\n")
                self._silent = True
            await writing
        finally:
            if writing.cancel():
                await asyncio.wait((writing,))

    async def _write(self, send: Send) -> None:
        async with aclosing(self._events) as events:
            try:
                async for data in events:
                    await self._send(send, data)
            except Exception as error:
                if not self._begun:
                    raise
                if not isinstance(error, CamelidError):
                    log.error("a stream failed", exc_info=error)
                    error = internal_error()
                await self._send(send, event(error_body(error)))
        await self._send(send, b"", more=False)

    async def _send(self, send: Send, data: bytes, more: bool = True) -> None:
        await self._turn.acquire()
        try:
            self._silent = False
            if not self._begun:
                self._begun = True
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": data, "more_body": more})
        finally:
            self._turn.release()
