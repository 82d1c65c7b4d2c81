"""Answers on their way to a client: whole, or as chunks in server-sent events.

Nearly all chunks are a piece of text and nothing else, so what they have in common is written once a stream.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from camelid.chat.answer import TextRequest, collect
from camelid.chat.results import CallPiece, Delta, Generation, Logprob
from camelid.serve.errors import ApiError
from camelid.serve.event_stream import event
from camelid.serve.openai.replies import ChatLogprobs, TextLogprobs, Usage
from camelid.serve.worker import Worker
from camelid.tokens.templates.tool_calls import CallBegun, gathered

if TYPE_CHECKING:
    from camelid.chat.constrain import Promise

_escaped = json.JSONEncoder().encode  # what json.dumps gives for a text
DONE = b"data: [DONE]\n\n"
MOST_AT_ONCE = 32  # prompts of one request that run side by side, so that others have room

Pieces = tuple[int, list[Delta]]  # the index of a prompt's first choice, and what has become certain of its choices


async def whole(worker: Worker, requests: Sequence[TextRequest]) -> list[Generation]:
    """All choices when they are finished: prompt by prompt, n of each.

    Raises:
        ApiError: the queue is full, or an answer has not the form it was promised.
        CamelidError: a request failed.
    """
    choices: dict[int, list[Delta]] = {}
    async with aclosing(_all(worker, requests)) as running:
        async for first, deltas in running:
            for delta in deltas:
                choices.setdefault(first + delta.sample, []).append(delta)
    return [collect(choices[index]) for index in sorted(choices)]


async def events(
    worker: Worker,
    requests: Sequence[TextRequest],
    chunks: ChatChunks | TextChunks,
    *,
    n_prompt: int | None = None,
    first: Iterable[bytes] = (),
) -> AsyncGenerator[bytes, None]:
    """All choices as server-sent events, in the order in which they are written; closing it ends what still runs.

    What has come by the time that somebody looks is given at once.

    Args:
        worker: owns the model.
        requests: one for each prompt that is to be continued.
        chunks: writes the events.
        n_prompt: tokens of the prompts; else those of `requests`.
        first: events that come before all that is written.

    Raises:
        ApiError, CamelidError: as `whole`.
    """
    for data in first:
        yield data
    n_written = n_cached = 0
    async with aclosing(_all(worker, requests)) as running:
        async for first_index, deltas in running:
            data = b""
            for delta in deltas:
                n_written += 1
                if delta.token.index == delta.sample == 0:
                    n_cached += delta.token.n_cached
                data += chunks.delta(first_index + delta.sample, delta)
            if data:
                yield data
    if chunks.with_usage:
        n_prompt = sum(len(request.ids) for request in requests) if n_prompt is None else n_prompt
        yield chunks.usage(Usage.count(n_prompt, n_written, n_cached))
    yield DONE


def _all(worker: Worker, requests: Sequence[TextRequest]) -> AsyncGenerator[Pieces, None]:
    first, streams = 0, []
    for request in requests:
        streams.append(_one(worker, request, first))
        first += request.params.n
    return streams[0] if len(streams) == 1 else _merged(streams)


async def _one(worker: Worker, request: TextRequest, first: int) -> AsyncGenerator[Pieces, None]:
    promise = request.answer.promise
    check = PromiseCheck(promise) if promise is not None else None
    async with aclosing(worker.stream(request)) as running:
        async for deltas in running:
            if check is None:
                yield first, deltas
            else:  # one by one: what comes before a broken promise is given
                for delta in deltas:
                    yield first, [check.take(delta)]


async def _merged(streams: Sequence[AsyncGenerator[Pieces, None]]) -> AsyncGenerator[Pieces, None]:
    """Several streams as they come; the first failure is raised, and ends the others."""
    inbox: asyncio.Queue[Pieces | Exception | None] = asyncio.Queue(MOST_AT_ONCE)
    room = asyncio.Semaphore(MOST_AT_ONCE)

    async def read(stream: AsyncGenerator[Pieces, None]) -> None:
        try:
            async with room, aclosing(stream):
                async for pieces in stream:
                    await inbox.put(pieces)
            await inbox.put(None)
        except Exception as error:
            await inbox.put(error)

    readers = [asyncio.create_task(read(stream)) for stream in streams]
    try:
        n_open = len(readers)
        while n_open:
            item = await inbox.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                n_open -= 1
            else:
                yield item
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


class PromiseCheck:
    """Holds complete answers to what their form promises."""

    def __init__(self, promise: Promise) -> None:
        self._promise = promise
        self._samples: dict[int, list[Delta]] = {}

    def take(self, delta: Delta) -> Delta:
        """The next piece of one of the samples, as it is.

        Raises:
            ApiError: the complete answer has not the form that was promised.
        """
        deltas = self._samples.setdefault(delta.sample, [])
        deltas.append(delta)
        if delta.finish_reason in ("stop", "tool_calls"):
            try:
                self._check(deltas)
            except ValueError as error:
                message = f"the complete answer has not the form that was promised: {error}"
                raise ApiError(500, message, code="constraint_violated") from None
        return delta

    def _check(self, deltas: Iterable[Delta]) -> None:
        text = "".join(delta.text for delta in deltas)
        _, calls = gathered(piece for delta in deltas for piece in delta.tool_calls)
        if self._promise == "json":
            json.loads(text)
        if self._promise == "calls" and (text or not calls):
            raise ValueError("it holds no call, or more than calls")
        for call in calls:
            json.loads(call.arguments)


class Chunks:
    """Writes the chunks of one stream.

    Args:
        head: id, object, created, model and system_fingerprint.
        with_usage: the stream ends with counts, and every chunk before says `"usage":null`.
        choice: a choice that holds this text, with the finish reason and the log-probabilities null.
    """

    def __init__(self, head: Mapping[str, Any], with_usage: bool, choice: Callable[[int, str], dict[str, Any]]) -> None:
        self.with_usage, self._head, self._choice = with_usage, head, choice
        self._rest: dict[str, Any] = {"usage": None} if with_usage else {}
        self._around: dict[int, tuple[bytes, bytes]] = {}  # index → what stands before and after its text

    def one(self, choice: Mapping[str, Any]) -> bytes:
        """A chunk of one choice."""
        return event({**self._head, "choices": [choice], **self._rest})

    def text(self, index: int, text: str) -> bytes:
        """A chunk that only brings text."""
        if index not in self._around:
            place = secrets.token_hex(16)  # stands where the text will, and nowhere else
            before, after = self.one(self._choice(index, place)).split(json.dumps(place).encode())
            self._around[index] = before, after
        before, after = self._around[index]
        return before + _escaped(text).encode() + after

    def usage(self, usage: Usage) -> bytes:
        """The last chunk, of no choices."""
        return event({**self._head, "choices": [], "usage": usage.model_dump()})


class ChatChunks(Chunks):
    """The chunks of a streamed chat answer."""

    def __init__(self, head: Mapping[str, Any], with_usage: bool) -> None:
        super().__init__(head, with_usage, lambda index, text: _chat_choice(index, {"content": text}))
        self._begun: set[int] = set()

    def delta(self, index: int, delta: Delta) -> bytes:
        """What one delta adds to a choice, as one chunk or several; b"" if it adds nothing."""
        text, logprobs, reason = delta.text, delta.logprobs, delta.finish_reason
        if not (delta.tool_calls or logprobs or reason):
            if not text:
                return b""
            if index in self._begun:
                return self.text(index, text)
        written = []
        if index not in self._begun:
            self._begun.add(index)
            written.append(_chat_choice(index, {"role": "assistant", "content": "", "refusal": None}))
        if text or logprobs:
            dumped = ChatLogprobs.of(logprobs).model_dump() if logprobs else None
            written.append(_chat_choice(index, {"content": text}, dumped))
        written += [_chat_choice(index, {"tool_calls": [_call(piece)]}) for piece in delta.tool_calls]
        if reason:
            written.append(_chat_choice(index, {}, None, reason))
        return b"".join(map(self.one, written))


def _chat_choice(
    index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None = None, finish_reason: str | None = None
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}


def _call(piece: CallPiece) -> dict[str, Any]:
    if isinstance(piece, CallBegun):
        function = {"name": piece.name, "arguments": ""}
        return {"index": piece.index, "id": piece.id, "type": "function", "function": function}
    return {"index": piece.index, "function": {"arguments": piece.text}}


class TextChunks(Chunks):
    """The chunks of streamed completions; `n_top` is how many alternatives each token has, None: none are reported."""

    def __init__(self, head: Mapping[str, Any], with_usage: bool, n_top: int | None) -> None:
        super().__init__(head, with_usage, _text_choice)
        self._n_top = n_top

    def delta(self, index: int, delta: Delta) -> bytes:
        """What one delta adds to a choice, as one chunk; b"" if it adds nothing."""
        return self.piece(index, delta.text, delta.logprobs, delta.finish_reason)

    def piece(self, index: int, text: str, logprobs: Sequence[Logprob] = (), finish_reason: str | None = None) -> bytes:
        """Text and log-probabilities of a choice, as one chunk; b"" if there is nothing."""
        if not logprobs and not finish_reason:
            return self.text(index, text) if text else b""
        dumped = TextLogprobs.of(logprobs, self._n_top or 0).model_dump() if logprobs else None
        return self.one(_text_choice(index, text, dumped, finish_reason))


def _text_choice(
    index: int, text: str, logprobs: dict[str, Any] | None = None, finish_reason: str | None = None
) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}
