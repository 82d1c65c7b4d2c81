"""The engine: ids in, ids out, many requests at once. A step is schedule → forward → sample → commit.

Not for several threads: one thread owns an engine.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from camelid.engine import sampling
from camelid.engine.backend import Backend, Batch, Rows, Span
from camelid.engine.cache import Pages
from camelid.engine.memory import cache_tokens, fitting_context
from camelid.engine.options import EngineOptions
from camelid.engine.request import Alternative, Request, Token
from camelid.engine.scheduler import Scheduler
from camelid.engine.scheduler import Sequence as Running
from camelid.errors import OptionError, ResourceError

__all__ = ["Engine", "EngineOptions"]

Logits = NDArray[np.float32]


class Engine:
    """Runs requests on a backend.

    Args:
        backend: computes; it gets its pool of pages here.
        options: context length, cache size and batching.
    """

    def __init__(self, backend: Backend, options: EngineOptions | None = None) -> None:
        self.backend, self.options = backend, options or EngineOptions()
        config, width = backend.config, backend.page_size
        self.context = fitting_context(config, self.options, backend.bytes_per_number)
        positions = cache_tokens(config, self.options, self.context, backend.bytes_per_number)
        n_pages = -(-positions // width) + 1
        backend.allocate(n_pages)
        self.pages = Pages(n_pages, width, self.options.prefix_cache)
        self._scheduler = Scheduler(self.pages, self.options.max_batch_tokens, self.options.max_running)
        self._open: dict[int, list[Running]] = {}  # request → its samples that still run
        self._inbox: dict[int, deque[Token]] = {}  # tokens of streamed requests that came while others were served
        self._n_requests = 0

    def check(self, request: Request) -> None:
        """Refuse a request that cannot be run as it is asked.

        Raises:
            OptionError: the prompt is empty, outside the vocabulary or too long, or a sampling choice cannot be.
        """
        vocab_size, n_ids = self.backend.config.vocab_size, len(request.ids)
        if not n_ids:
            raise OptionError("prompt: has no tokens; give at least one")
        if n_ids >= self.context:
            raise OptionError(
                f"prompt: has {n_ids} tokens, the context is {self.context} with room for one of the answer; "
                "shorten it or raise --context"
            )
        for id in request.ids:
            if not 0 <= id < vocab_size:
                raise OptionError(f"prompt: id {id} lies outside the vocabulary of {vocab_size} ids")
        sampling.check(request.params, vocab_size)

    def add(self, request: Request) -> int:
        """Queue a request; returns its number.

        Raises:
            OptionError: as `check`.
        """
        self.check(request)
        number, params = self._n_requests, request.params
        self._n_requests += 1
        seed = params.seed if params.seed is not None else secrets.randbits(63)
        limit = min(self.context, len(request.ids) + (params.max_tokens or self.context))
        first: Running | None = None
        self._open[number] = []
        for sample in range(params.n):
            form = request.constraint.fork() if request.constraint is not None else None
            one = Running(number, request, sample, seed, limit, form, list(request.ids), waits_for=first)
            first = first or one
            self._open[number].append(one)
            self._scheduler.add(one)
        return number

    def step(self) -> list[Token]:
        """Run one forward pass; returns the tokens it gave, at most one for each sample."""
        sequences, batch = self._scheduler.next_batch()
        if not sequences:
            return []
        rows = iter(self.backend.forward(batch))
        tokens = []
        for sequence, span in zip(sequences, batch.spans, strict=True):
            self._scheduler.commit(sequence, len(span.ids))
            if span.logits == "last":
                tokens.append(self._sample(sequence, next(rows)))
        return tokens

    def stream(self, request: Request) -> Iterator[Token]:
        """Tokens of one request as they come; other requests are served beside. Leaving early cancels it."""
        number = self.add(request)
        inbox = self._inbox[number] = deque()
        try:
            while self._open.get(number) or inbox:
                while inbox:
                    yield inbox.popleft()
                if self._open.get(number):
                    for token in self.step():
                        if token.request in self._inbox:
                            self._inbox[token.request].append(token)
        finally:
            self.cancel(number)
            del self._inbox[number]

    def cancel(self, number: int) -> None:
        """End a request, if it still runs, and give back its pages."""
        for sequence in self._open.pop(number, []):
            self._scheduler.drop(sequence)

    def logits(self, ids: Sequence[int]) -> Logits:
        """Scores of every next id after each of `ids`, float32 (len(ids), V)."""
        return np.concatenate([rows for _, rows in self._read(ids, "all")])

    def last_logits(self, ids: Sequence[int]) -> Logits:
        """Scores of every next id after all of `ids`, float32 (V,)."""
        rows = [rows for _, rows in self._read(ids, "last")]
        return np.asarray(rows[-1][-1])

    def score(self, ids: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """For each id but the first: its log-probability after those before, and whether it is the likeliest one.

        The logits of a chunk are all that is held at a time.
        """
        logprobs, greedy = [], []
        for start, rows in self._read(ids, "all"):
            for row, id in zip(rows, ids[start + 1 : start + 1 + len(rows)], strict=False):
                logprobs.append(float(sampling.raw_logprobs(row)[id]))
                greedy.append(int(row.argmax()) == id)
        return np.array(logprobs), np.array(greedy)

    def _read(self, ids: Sequence[int], wanted: Literal["all", "last"]) -> Iterator[tuple[int, Logits]]:
        """Forward `ids` in chunks, outside the schedule: the chunk's start and its logits."""
        if not 0 < len(ids) <= self.context:
            raise OptionError(f"ids: there are {len(ids)}, the context is {self.context}; give at least one, or fewer")
        pages = [self.pages.take() for _ in range(-(-len(ids) // self.pages.page_size))]
        taken = [page for page in pages if page is not None]
        try:
            if len(taken) < len(pages):
                raise ResourceError("cache: no room beside the running requests; raise --cache-tokens or wait")
            for start in range(0, len(ids), self.options.max_batch_tokens):
                part = tuple(ids[start : start + self.options.max_batch_tokens])
                last = start + len(part) == len(ids)
                rows: Rows = wanted if wanted == "all" or last else "none"
                logits = self.backend.forward(Batch((Span(part, start, tuple(taken), rows),)))
                for row in logits:
                    sampling.checked(row)
                yield start, logits
        finally:
            self.pages.release(taken)

    def _sample(self, sequence: Running, logits: Logits) -> Token:
        """Choose the next id of a sequence and note what follows from it."""
        request, params, output = sequence.request, sequence.request.params, sequence.output
        allowed = self._allowed(sequence, logits)
        id, sampled = _choose(allowed, sequence, output)
        sequence.ids.append(id)
        if sequence.constraint is not None:
            sequence.constraint.push(id)
        raw = sampling.raw_logprobs(logits)
        token = Token(
            request=sequence.number,
            sample=sequence.sample,
            index=len(output),
            id=id,
            logprob=float(raw[id]),
            sampled_logprob=sampled,
            top=_likeliest(raw, params.logprobs),
            finish_reason=_finish_reason(sequence, request, id),
            n_cached=sequence.n_cached,
        )
        if token.finish_reason:
            self._open[sequence.number].remove(sequence)
            self._scheduler.drop(sequence)
        return token

    def _allowed(self, sequence: Running, logits: Logits) -> Logits:
        """Logits with what the form forbids, and stops that come too early, at -inf."""
        params = sequence.request.params
        if sequence.constraint is not None:
            return np.where(sequence.constraint.mask(), logits, np.float32(-np.inf))
        if params.ignore_stop or len(sequence.output) < params.min_tokens:
            banned = _stops(sequence.request) if not params.ignore_stop else set(sequence.request.stop_ids)
            logits = logits.copy()
            logits[list(banned)] = -np.inf
        return logits


def _choose(logits: Logits, sequence: Running, output: list[int]) -> tuple[int, float]:
    params = sequence.request.params
    if sampling.is_greedy(params):
        processed = sampling.process(logits, params, sampling.Seen(sequence.request.ids, output))
        return int(processed.argmax()), 0.0
    probabilities = sampling.distribution(logits, params, sequence.request.ids, output)
    id = sampling.draw(probabilities, sequence.seed, sequence.sample, len(output))
    return id, float(np.log(probabilities[id]))


def _stops(request: Request) -> set[int]:
    return {*request.stop_ids, *request.params.stop_ids}


def _finish_reason(sequence: Running, request: Request, id: int) -> Literal["stop", "length"] | None:
    if id in _stops(request):
        return "stop"
    if sequence.constraint is not None and sequence.constraint.finished:
        return "stop"
    return "length" if len(sequence.ids) >= sequence.limit else None


def _likeliest(raw: NDArray[np.float64], n: int | None) -> tuple[Alternative, ...]:
    if not n:
        return ()
    n = min(n, len(raw))
    ids = np.argpartition(-raw, n - 1)[:n]
    ranked = sorted(ids.tolist(), key=lambda id: (-raw[id], id))
    return tuple(Alternative(id, float(raw[id])) for id in ranked)
