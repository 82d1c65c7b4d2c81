"""A request that runs: the tokens of its prompts and samples, as one stream of pieces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

from camelid.engine.request import Request
from camelid.serve.openai.choices import Choice, Piece, Whole, whole
from camelid.serve.openai.chunks import DONE, ChatChunks, TextChunks
from camelid.serve.openai.replies import Usage
from camelid.serve.worker import Worker

MOST_AT_ONCE = 32  # prompts of one request that run side by side, so that others have room


class Running:
    """What the engine is asked for one HTTP request, and what it has written.

    Args:
        worker: owns the model.
        requests: one for each prompt that is to be continued.
        choices: of all these prompts, n for each.
        first: pieces that come before all that is written.
        n_prompt: tokens of the prompts; else those of `requests`.
        starts_text: the answers begin a text, as `TextStream` has it.
        shown: control tokens that have a text in the answers, as `TextStream` has it.
    """

    def __init__(
        self,
        worker: Worker,
        requests: Sequence[Request],
        choices: Sequence[Choice],
        *,
        first: Sequence[Piece] = (),
        n_prompt: int | None = None,
        starts_text: bool = False,
        shown: Mapping[int, str] | None = None,
    ) -> None:
        self.choices = choices
        self._worker, self._requests, self._first = worker, requests, first
        self._starts_text, self._shown = starts_text, shown
        self._n_prompt = sum(len(request.ids) for request in requests) if n_prompt is None else n_prompt
        self._n_cached = 0

    def usage(self) -> Usage:
        """Tokens so far."""
        return Usage.count(self._n_prompt, sum(choice.n_tokens for choice in self.choices), self._n_cached)

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """The pieces of all choices as they come; closing it ends what still runs.

        Raises:
            ApiError: the queue is full, or an answer has not the form it was promised.
            CamelidError: a request failed.
        """
        for piece in self._first:
            yield piece
        streams = [self._stream(number) for number in range(len(self._requests))]
        if streams:
            async with aclosing(streams[0] if len(streams) == 1 else _merged(streams)) as pieces:
                async for piece in pieces:
                    yield piece

    async def _stream(self, number: int) -> AsyncGenerator[Piece, None]:
        request, is_first = self._requests[number], True
        n = request.params.n
        choices = self.choices[number * n : (number + 1) * n]
        stream = self._worker.stream(request, starts_text=self._starts_text, shown=self._shown)
        async with aclosing(stream) as deltas:
            async for delta in deltas:
                if is_first:
                    self._n_cached, is_first = self._n_cached + delta.token.n_cached, False
                piece = choices[delta.sample].take(delta)
                if piece is not None:
                    yield piece
                    if piece.finish_reason and all(choice.done for choice in choices):
                        return  # a choice may end before its sample does

    async def whole(self) -> list[Whole]:
        """All choices when they are finished, in order.

        Raises:
            ApiError, CamelidError: as `pieces`.
        """
        parts: dict[int, list[Piece]] = {}
        async with aclosing(self.pieces()) as pieces:
            async for piece in pieces:
                parts.setdefault(piece.index, []).append(piece)
        return [whole(index, parts[index]) for index in sorted(parts)]

    async def events(self, chunks: ChatChunks | TextChunks, with_usage: bool) -> AsyncGenerator[bytes, None]:
        """All pieces as server-sent events, in the order in which they come.

        Raises:
            ApiError, CamelidError: as `pieces`.
        """
        async with aclosing(self.pieces()) as pieces:
            async for piece in pieces:
                yield chunks.piece(piece)
        if with_usage:
            yield chunks.usage(self.usage())
        yield DONE


async def _merged(streams: Sequence[AsyncGenerator[Piece, None]]) -> AsyncGenerator[Piece, None]:
    """Pieces of several streams as they come; the first failure is raised, and ends the others."""
    inbox: asyncio.Queue[Piece | Exception | None] = asyncio.Queue(MOST_AT_ONCE)
    room = asyncio.Semaphore(MOST_AT_ONCE)

    async def read(stream: AsyncGenerator[Piece, None]) -> None:
        try:
            async with room, aclosing(stream):
                async for piece in stream:
                    await inbox.put(piece)
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
