"""An answer of Direct Chat while it is written: sent as HTML as it grows, and kept as far as it has come.

The answer runs in a task of its own, beside the responses that show it. Who leaves the page finds it there again,
further on or complete. Only where it cannot be kept does it end with the response that shows it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from camelid.chat.answer import TextRequest
from camelid.chat.results import Delta
from camelid.errors import CamelidError, ResourceError
from camelid.serve.errors import internal_error
from camelid.serve.pages.markdown import Block, MarkdownStream
from camelid.serve.storage.conversations import Store
from camelid.serve.storage.tables import StoredMessage
from camelid.serve.worker import Worker

KEEP_SECONDS = 0.4  # how often the text so far is kept; a kill loses no more than what came since
SHOW_SECONDS = 0.05  # how often it is shown, more seldom where rendering takes long
BUSY_SHARE = 0.2  # of the time that rendering one answer may take

log = logging.getLogger(__name__)


class Answering:
    """One answer on its way.

    Args:
        worker: owns the model.
        request: what is asked.
        message: the row that it fills.
        store: where that row is; None if it could not be made.
        seconds: that it may take.

    Attributes:
        message: always as far as the answer has come; complete when `task` is done.
        warning: why it could not be kept, if so.
    """

    def __init__(
        self,
        worker: Worker,
        request: TextRequest,
        message: StoredMessage,
        store: Store | None,
        seconds: float | None = None,
    ) -> None:
        self.worker, self.request, self.message, self.store = worker, request, message, store
        self._seconds = seconds
        self.warning: str | None = None
        self._ending = False
        self._first: Delta | None = None
        self._watchers: set[asyncio.Event] = set()  # one for each response that shows it
        self.task = asyncio.create_task(self._run())
        self.task.add_done_callback(lambda _: self._tell())

    def stop(self) -> None:
        """End the answer where it is; it is kept when `task` is done."""
        if not self._ending:  # keeping the end must not be cut short by a second wish to stop
            self._ending = True
            asyncio.get_running_loop().call_soon(self.task.cancel)  # behind the task's first step, so that it begins

    async def blocks(self) -> AsyncGenerator[list[Block]]:
        """Blocks of HTML as they change, from the first one on, until the answer is complete."""
        stream, shown, news = MarkdownStream(), 0, asyncio.Event()
        self._watchers.add(news)
        news.set()  # there may be some text already
        try:
            while not self.task.done():
                await news.wait()
                news.clear()
                started, text = time.perf_counter(), self.message.content[shown:]
                shown += len(text)
                yield stream.push(text)
                await asyncio.sleep(max(SHOW_SECONDS, (time.perf_counter() - started) / BUSY_SHARE))
            stream.push(self.message.content[shown:])
            yield stream.finish()
        finally:
            self._watchers.discard(news)
            if self.store is None:
                self.stop()

    def _tell(self) -> None:
        for news in self._watchers:
            news.set()

    async def _run(self) -> None:
        keeping = asyncio.create_task(self._keep_often())
        message = self.message
        try:
            async with asyncio.timeout(self._seconds):
                await self._write()
            message.state = "complete"
        except TimeoutError:
            message.state, message.error = "failed", f"took longer than {self._seconds:g} seconds"
        except asyncio.CancelledError:
            message.state = "stopped"
        except Exception as error:
            if not isinstance(error, CamelidError):
                log.error("an answer failed", exc_info=error)
                error = internal_error()
            message.state, message.error = "failed", str(error)
        self._ending = True
        keeping.cancel()
        await self._keep()

    async def _write(self) -> None:
        async with aclosing(self.worker.stream(self.request)) as running:
            n_tokens = 0
            async for deltas in running:
                for delta in deltas:
                    n_tokens += 1
                    self._take(delta, n_tokens)
                self._tell()

    def _take(self, delta: Delta, n_tokens: int) -> None:
        message, first = self.message, self._first or delta
        self._first = first
        message.content += delta.text
        message.finish_reason, message.seconds = delta.finish_reason, round(delta.seconds, 3)
        writing = delta.seconds - first.seconds
        message.usage = {
            "prompt_tokens": delta.n_prompt,
            "completion_tokens": n_tokens,
            "cached_tokens": first.token.n_cached,
            "tokens_per_second": round((n_tokens - 1) / writing, 1) if writing > 0 else 0.0,
        }

    async def _keep_often(self) -> None:
        n_saved = 0
        while True:
            await asyncio.sleep(KEEP_SECONDS)
            if n_saved != len(self.message.content):
                n_saved = len(self.message.content)
                await self._keep()

    async def _keep(self) -> None:
        if self.store is None:
            return
        names = ("content", "state", "finish_reason", "error", "usage", "seconds")
        try:
            await self.store.save(self.message.id, **{name: getattr(self.message, name) for name in names})
        except ResourceError as error:
            self.warning = str(error)
            self._tell()


class Answers:
    """The answers that are being written.

    Args:
        seconds: that each may take.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds
        self._running: set[Answering] = set()

    def start(self, worker: Worker, request: TextRequest, message: StoredMessage, store: Store | None) -> Answering:
        """Begin one."""
        answering = Answering(worker, request, message, store, self._seconds)
        self._running.add(answering)
        answering.task.add_done_callback(lambda _: self._running.discard(answering))
        return answering

    def get(self, conversation: str, message: int) -> Answering | None:
        """The answer that fills a message; None if none does any more."""
        return next(
            (it for it in self._running if (it.message.conversation, it.message.id) == (conversation, message)), None
        )

    async def stop(self, conversation: str | None = None, message: int | None = None) -> None:
        """Stop one answer, all of a conversation, or all; they are kept when this returns."""
        chosen = [
            answering
            for answering in self._running
            if conversation in (None, answering.message.conversation) and message in (None, answering.message.id)
        ]
        for answering in chosen:
            answering.stop()
        if chosen:
            await asyncio.wait({answering.task for answering in chosen})
