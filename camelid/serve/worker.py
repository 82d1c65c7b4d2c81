"""The thread that owns a model. Requests and tokens cross by queue; all that a step wrote crosses at once.

The event loop's side admits requests, holds what was written until the client takes it, and hangs up. The owner's side
runs the engine, and makes text of ids. What is passed between them is `_ServedRequest`; each of its fields belongs to
one side.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from hashlib import sha256
from typing import Any, TypeVar, cast

from camelid import __version__
from camelid.chat.answer import Answer, TextRequest
from camelid.chat.llama import Llama
from camelid.chat.results import Delta
from camelid.engine.request import Failed, Request, Rows, Scored, Token
from camelid.errors import CamelidError
from camelid.serve.errors import RETRY_SECONDS, ApiError, internal_error
from camelid.serve.stats import Counts, WorkerStats

log = logging.getLogger(__name__)

T = TypeVar("T")
MOST_HELD = 4096  # pieces that a slow reader may be behind, beyond what the connection's own buffers hold
MOST_TAKEN = 64  # pieces that such a reader is handed at once
MOST_PREPARED = 32  # requests with forms that are prepared at the same time; as many more wait for a thread
_Item = Delta | Scored | Rows | CamelidError | None  # None: the answer is complete


@dataclass(eq=False)
class _ServedRequest:
    """A request on its way."""

    request: Request
    answer: Answer | None  # None: nothing is written, one result comes
    started: float
    counts: Counts  # of the model that it asks for
    held: deque[_Item] = field(default_factory=deque)  # the loop's: written, and not taken yet
    waiter: asyncio.Future[None] | None = None  # the loop's: set while the client waits
    left: bool = False  # set by the loop: nobody will take anything any more
    number: int | None = None  # the owner's: the engine's number, while it runs
    latest: dict[int, float] = field(default_factory=dict)  # the owner's: sample → when its last token came


class Worker:
    """Owns one model's engine, in a thread of its own.

    Args:
        name: the model's, by which clients ask for it.
        llama: nobody else may run its engine from now on.
        max_waiting: requests beyond the engine's `max_running` that may wait.

    Attributes:
        created: Unix time in seconds.
    """

    def __init__(self, name: str, llama: Llama, max_waiting: int = 256) -> None:
        self.name, self.llama, self.created = name, llama, int(time.time())
        self._most_open = llama.engine.options.max_running + max_waiting
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._open: set[object] = set()  # the loop's: what was begun and has not ended
        self._preparing = 0  # the loop's
        self._preparers = concurrent.futures.ThreadPoolExecutor(MOST_PREPARED, f"forms of {name}")
        self._closing = False
        self._jobs: dict[int, _ServedRequest] = {}  # the owner's: the engine's number → the job
        self._calls: deque[Callable[[], None]] = deque()  # the owner's
        self._counts = Counts()
        self._thread = threading.Thread(target=self._run, name=f"model {name}", daemon=True)
        self._loop: asyncio.AbstractEventLoop

    def start(self) -> None:
        """Begin to serve the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self, seconds: float) -> None:
        """Take no new requests, give those that run `seconds` to finish, and end the thread. It may be called again."""
        self._closing = True
        end = self._loop.time() + seconds
        while self._open and self._loop.time() < end:
            await asyncio.sleep(0.01)
        for job in [job for job in self._open if isinstance(job, _ServedRequest)]:
            self._end(job, ApiError(503, "the server had to stop before this was finished", "shutting_down"))
        self._inbox.put(None)
        self._preparers.shutdown(wait=False, cancel_futures=True)
        self.llama.close_forms()
        await asyncio.to_thread(self._thread.join)

    def stream(self, request: TextRequest) -> AsyncGenerator[list[Delta], None]:
        """The pieces of an answer, read as `Answer` does, as they come: each time all there are, which is one where the
        reader keeps pace. Leaving early cancels the request within one step.

        A reader that falls behind by more than `MOST_HELD` pieces is cut off, so that memory stays bounded.

        Raises:
            ApiError: 429 when the queue is full, 503 when the server shuts down, or the reader is too slow.
            CamelidError: the engine refuses the request or cannot go on with it.
        """
        return self._items(request, Answer(self.llama.tokenizer, request))

    async def result(self, request: Request) -> Scored | Rows:
        """What comes of a request that writes nothing, beside what is written; leaving early ends it within one step.

        Raises:
            ApiError, CamelidError: as `stream`.
        """
        async with aclosing(self._items(request, None)) as items:
            ((result,),) = [results async for results in items]
        return cast("Scored | Rows", result)

    async def _items(self, request: Request, answer: Answer | None) -> AsyncGenerator[list[Any], None]:
        job = self._admit(request, answer)
        held = job.held
        try:
            while True:
                if not held:
                    job.waiter = self._loop.create_future()
                    await job.waiter
                taken: list[Any] = []
                while held and len(taken) < MOST_TAKEN and not _is_end(held[0]):
                    taken.append(held.popleft())
                if taken:
                    yield taken
                    continue
                end = held.popleft()
                if isinstance(end, CamelidError):
                    raise end
                return
        finally:
            self._leave(job)

    async def prepare(self, work: Callable[[], T]) -> T:
        """Run what may wait long for a form, in threads that nothing else waits for.

        Raises:
            ApiError: 429 when too many wait.
        """
        if self._preparing >= 2 * MOST_PREPARED:
            raise self._busy(f"{self._preparing} requests with forms to be prepared")
        self._preparing += 1
        try:
            return await self._loop.run_in_executor(self._preparers, work)
        finally:
            self._preparing -= 1

    async def call(self, work: Callable[[Llama], T]) -> T:
        """Run `work` on the owner's thread, between two steps; everything else waits meanwhile.

        Raises:
            ApiError: 429 or 503, as `stream`.
        """
        self._check_room()
        done: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._open.add(done)
        self._inbox.put(partial(self._calls.append, partial(_work, work, self.llama, done)))
        try:
            return await asyncio.wrap_future(done)
        finally:
            self._open.discard(done)

    @property
    def is_alive(self) -> bool:
        """Whether it serves requests."""
        return self._thread.is_alive() and not self._closing

    @cached_property
    def fingerprint(self) -> str:
        """A word for what answers are made with: camelid's version, the backend, the model's shape and its quants."""
        llama = self.llama
        quants = sorted({tensor.quant for tensor in llama.weights.tensors.values()})
        made_with = f"{__version__} {type(llama.engine.backend).__name__} {llama.config} {quants}"
        return f"fp_{sha256(made_with.encode()).hexdigest()[:12]}"

    def stats(self) -> WorkerStats:
        """How it stands."""
        counts, engine = self._counts, self.llama.engine
        running = engine.n_running
        return WorkerStats(
            running=running,
            waiting=max(0, engine.n_waiting),
            prompt_tokens=counts.prompt_tokens,
            completion_tokens=counts.completion_tokens,
            cached_tokens=counts.cached_tokens,
            drafted_tokens=engine.n_drafted,
            accepted_tokens=engine.n_accepted,
            outcomes=dict(counts.outcomes),
            first_token=counts.first_token.histogram(),
            per_token=counts.per_token.histogram(),
            tokens_per_second=counts.tokens_per_second(),
            pages_held=engine.pages.n_pages - engine.pages.n_available,
            n_pages=engine.pages.n_pages,
        )

    # The event loop's side.

    def _check_room(self) -> None:
        if self._closing:
            raise ApiError(503, "the server is shutting down", "shutting_down", headers={"Retry-After": "10"})
        if len(self._open) >= self._most_open:
            raise self._busy(f"{len(self._open)} requests")

    def _busy(self, what: str) -> ApiError:
        self._counts.outcomes["refused"] += 1
        message = f"model {self.name!r} has {what} already; try again in {RETRY_SECONDS} seconds"
        return ApiError(429, message, "queue_full", headers={"Retry-After": str(RETRY_SECONDS)})

    def _admit(self, request: Request, answer: Answer | None) -> _ServedRequest:
        self._check_room()
        job = _ServedRequest(request, answer, time.monotonic(), self._counts)
        self._open.add(job)
        self._inbox.put(partial(self._begin, job))
        return job

    def _leave(self, job: _ServedRequest) -> None:
        """The client has all, or has gone."""
        job.left = True
        job.held.clear()
        if job in self._open:
            self._open.discard(job)
            self._inbox.put(partial(self._cancel, job))

    def _deliver(self, items: Iterable[tuple[_ServedRequest, _Item]]) -> None:
        """Hand over what a step has written."""
        for job, item in items:
            if job.left:
                continue
            if _is_end(item):
                self._open.discard(job)
            job.held.append(item)
            if len(job.held) > MOST_HELD:
                self._end(job, ApiError(503, f"the reader is {MOST_HELD} tokens behind; cut off", "reader_too_slow"))
            elif job.waiter is not None and not job.waiter.done():
                job.waiter.set_result(None)

    def _end(self, job: _ServedRequest, error: ApiError) -> None:
        """Stop a job; its client is told instead of what it has not taken yet."""
        self._open.discard(job)
        job.held.clear()
        job.held.append(error)
        self._inbox.put(partial(self._cancel, job))
        if job.waiter is not None and not job.waiter.done():
            job.waiter.set_result(None)

    # The owner's side.

    def _run(self) -> None:
        engine = self.llama.engine
        while self._take_in(wait=not (engine.is_busy or self._calls)):
            try:
                if self._calls:
                    self._calls.popleft()()
                if engine.is_busy:
                    self._step()
            except Exception as error:
                self._fail(error)

    def _take_in(self, wait: bool) -> bool:
        """Do what the loop's side has asked for, waiting for the first of it if told so; False: end."""
        while True:
            try:
                todo = self._inbox.get(block=wait)
            except queue.Empty:
                return True
            if todo is None:
                return False
            todo()
            wait = False

    def _begin(self, job: _ServedRequest) -> None:
        if job.left:
            return
        try:
            job.number = self.llama.engine.add(job.request)
        except Exception as error:
            job.counts.outcomes["failed"] += 1
            self._send([(job, self._told(error))])
            return
        self._jobs[job.number] = job
        job.counts.prompt_tokens += len(job.request.ids)

    def _cancel(self, job: _ServedRequest) -> None:
        if job.number is not None:
            self._finish(job, "cancelled")

    def _step(self) -> None:
        outcomes, now = self.llama.engine.step(), time.monotonic()
        news: list[tuple[_ServedRequest, _Item]] = []
        written = Counter({self._counts: 0})
        for outcome in outcomes:
            job = self._jobs.get(outcome.request)
            if job is None:
                continue
            if isinstance(outcome, Token):
                written[job.counts] += 1
                news += [(job, item) for item in self._push(job, outcome, now)]
            elif isinstance(outcome, Failed):
                self._finish(job, "failed")
                news.append((job, outcome.error))
            else:
                self._finish(job, "stop")
                news += [(job, outcome), (job, None)]
        for counts, n_tokens in written.items():
            counts.step(now, n_tokens)
        self._send(news)

    def _push(self, job: _ServedRequest, token: Token, now: float) -> Iterator[_Item]:
        """What a token gives to a job's client."""
        assert job.answer is not None
        delta = job.answer.push(token)
        self._time(job, token, now)
        if delta is not None:
            yield delta
        if job.answer.done:
            self._finish(job, "length" if delta is not None and delta.finish_reason == "length" else "stop")
            yield None

    def _time(self, job: _ServedRequest, token: Token, now: float) -> None:
        if not job.latest:
            job.counts.first_token.add(now - job.started)
            job.counts.cached_tokens += token.n_cached
        if token.sample in job.latest:
            job.counts.per_token.add(now - job.latest[token.sample])
        job.latest[token.sample] = now

    def _finish(self, job: _ServedRequest, outcome: str) -> None:
        """The engine is done with a job, or is to be."""
        assert job.number is not None
        self.llama.engine.cancel(job.number)
        del self._jobs[job.number]
        job.number = None
        job.counts.outcomes[outcome] += 1

    def _fail(self, error: Exception) -> None:
        """A step has failed as a whole: whatever ran in it ends, and the next requests are served."""
        told, jobs = self._told(error), list(self._jobs.values())
        for job in jobs:
            self._finish(job, "failed")
        self._send([(job, told) for job in jobs])

    def _told(self, error: Exception) -> CamelidError:
        """What clients are told of a failure; what is our own fault goes to the log instead."""
        if isinstance(error, CamelidError):
            return error
        log.error("model %s failed", self.name, exc_info=error)
        return internal_error()

    def _send(self, news: list[tuple[_ServedRequest, _Item]]) -> None:
        if news:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._deliver, news)


def _is_end(item: _Item) -> bool:
    return item is None or isinstance(item, CamelidError)


def _work(work: Callable[[Llama], Any], llama: Llama, done: concurrent.futures.Future[Any]) -> None:
    if not done.set_running_or_notify_cancel():
        return
    try:
        done.set_result(work(llama))
    except BaseException as error:
        done.set_exception(error)
