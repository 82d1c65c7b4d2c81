"""One connection: how much a client may send, and how long it may take, before a request is known."""

from __future__ import annotations

import asyncio
import json

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from camelid.serve.errors import ApiError, error_body

HEADER_SECONDS = 15  # for a new connection to send the head of a request, and for the next one on it
MOST_HEAD_BYTES, MOST_HEAD_LINES = 2**16, 128  # of a request's head, its trailers too; h11's and Apache's sizes


class Connection(HttpToolsProtocol):
    """One connection; closed when the head of a request does not come in time, so that those left open cost nothing.

    uvicorn's own clock starts only behind a response, and stops at the next byte; its parser takes heads of any length.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock."""
        super().connection_made(transport)
        self._n_head_lines = self._n_head_bytes = 0
        self._n_unused = 0  # bytes since the last head or piece of a body was complete
        self._is_refused = False
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Read on, unless this is no request any more."""
        if self._is_refused:
            return
        self._n_unused += len(data)
        super().data_received(data)
        if self._n_unused > MOST_HEAD_BYTES:
            self._refuse_head()

    def on_message_begin(self) -> None:
        """A head begins."""
        self._n_head_lines = self._n_head_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of the address."""
        if self._fits(len(url)):
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A line of a head, or of what may follow a body."""
        self._n_head_lines += 1
        if self._fits(len(name) + len(value)):
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A request begins."""
        if self._is_refused:
            return
        self._n_unused = 0
        self._head_timer.cancel()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._n_unused = 0
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is complete."""
        self._n_unused = 0
        if not self._is_refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """A request has ended; another may follow."""
        super().on_response_complete()
        if self.cycle.response_complete:  # else the next one has begun already
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._head_timer.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP."""
        if not self._is_refused:
            self._refuse(ApiError(400, "request: this is not HTTP/1.1, or its length is wrong", "bad_request"))

    def _fits(self, n_bytes: int) -> bool:
        """Count bytes of a head; False if it has too many, or too many lines."""
        self._n_head_bytes += n_bytes
        if self._n_head_lines > MOST_HEAD_LINES or self._n_head_bytes > MOST_HEAD_BYTES:
            self._refuse_head()
        return not self._is_refused

    def _refuse_head(self) -> None:
        if not self._is_refused:
            message = f"head: more than {MOST_HEAD_BYTES} bytes or {MOST_HEAD_LINES} lines; send fewer headers"
            self._refuse(ApiError(431, message, "head_too_large"))

    def _refuse(self, error: ApiError) -> None:
        """Answer, unless an earlier request is being answered, and hang up."""
        self._is_refused = True
        phrase = {400: "Bad Request", 431: "Request Header Fields Too Large"}[error.status]
        body = json.dumps(error_body(error)).encode()
        head = f"HTTP/1.1 {error.status} {phrase}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEADER_SECONDS, self.timeout_keep_alive_handler)
