"""The engine: ids in, ids out, many requests at once. A step is schedule → forward → sample → commit.

Not for several threads: one thread owns an engine.
"""

from __future__ import annotations

import math
import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from camelid.engine import sampling, speculate
from camelid.engine.backend import Backend, Batch, Rows, Span
from camelid.engine.cache import Pages
from camelid.engine.draft import DraftModel
from camelid.engine.memory import cache_tokens, fitting_context
from camelid.engine.options import EngineOptions
from camelid.engine.request import Alternative, PromptToken, Request, Token
from camelid.engine.scheduler import Chosen, Scheduler, root_of
from camelid.engine.scheduler import Sequence as Running
from camelid.engine.speculate import Guess
from camelid.errors import CamelidError, ContextError, NumericsError, OptionError, ResourceError

__all__ = ["Engine", "EngineOptions"]

Logits = NDArray[np.float32]
MOST_LOGITS = 2**25  # held at a time when every position's are wanted: 128 MiB


class Engine:
    """Runs requests on a backend.

    Args:
        backend: computes; it gets its pool of pages here.
        options: context length, cache size and batching.
        draft: a smaller model with the same vocabulary, which guesses for requests with `draft_tokens`; without one,
            they look guesses up in their own text.

    Attributes:
        n_drafted, n_accepted: guesses that were read so far, and those of them that were written.

    Raises:
        OptionError: the vocabularies differ in size, or the options contradict each other.
    """

    def __init__(self, backend: Backend, options: EngineOptions | None = None, draft: Backend | None = None) -> None:
        self.backend, self.options = backend, options or EngineOptions()
        config, width = backend.config, backend.page_size
        free = backend.free_bytes()
        self.context = fitting_context(config, self.options, backend.bytes_per_number, free)
        positions = cache_tokens(config, self.options, self.context, backend.bytes_per_number, free)
        n_pages = -(-positions // width) + 1
        backend.allocate(n_pages)
        self.pages = Pages(n_pages, width, self.options.prefix_cache)
        self._draft = DraftModel(draft, self.options, config, self.context) if draft is not None else None
        self.n_drafted = self.n_accepted = 0
        self._scheduler = Scheduler(self.pages, self.options.max_batch_tokens, self.options.max_running)
        self.failed: dict[int, CamelidError] = {}  # requests that could not go on, and why; taken out by who made them
        self._open: dict[int, list[Running]] = {}  # request → its samples that still run
        self._streams: dict[int, deque[Token | CamelidError]] = {}  # streamed request → what its stream has not given
        self._written: list[Token] = []  # of requests that are not streamed, until the next `step` returns them
        self._n_requests = 0

    @property
    def is_busy(self) -> bool:
        """Whether some request still runs or waits."""
        return bool(self._open)

    @property
    def n_running(self) -> int:
        """Sequences that have pages."""
        return len(self._scheduler.running)

    @property
    def n_waiting(self) -> int:
        """Sequences that wait for room among the running ones."""
        return len(self._scheduler.waiting)

    def check(self, request: Request) -> None:
        """Refuse a request that cannot be run as it is asked.

        Raises:
            OptionError: the prompt is empty or outside the vocabulary, or a sampling choice cannot be.
            ContextError: the prompt leaves no room for an answer.
        """
        vocab_size, n_ids, params = self.backend.config.vocab_size, len(request.ids), request.params
        if not n_ids:
            raise OptionError("prompt: has no tokens; give at least one")
        if n_ids >= self.context:
            raise ContextError(
                f"prompt: has {n_ids} tokens, the context is {self.context} with room for one of the answer; "
                "shorten it or raise --context",
                n_ids,
                self.context,
            )
        for id in request.ids:
            if not 0 <= id < vocab_size:
                raise OptionError(f"prompt: id {id} lies outside the vocabulary of {vocab_size} ids")
        sampling.check(params, vocab_size)
        if request.constraint is not None and (params.min_tokens or params.ignore_stop):
            name = "min_tokens" if params.min_tokens else "ignore_stop"
            raise OptionError(f"{name}: the constrained form alone says where the text may end; leave one of them out")

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
            root = root_of(self.backend.config, len(request.ids))
            one = Running(number, request, sample, seed, limit, form, list(request.ids), root, waits_for=first)
            first = first or one
            self._open[number].append(one)
            self._scheduler.add(one)
        return number

    def step(self) -> list[Token]:
        """Run one forward pass; returns what it gave to requests that are not streamed.

        That is a token a sample at most, and one more for each guess that came true.

        Raises:
            CamelidError: a request failed in an earlier step, and nobody has taken its error out of `failed`.
        """
        if self.failed:
            raise self.failed.pop(next(iter(self.failed)))
        self._advance()
        written, self._written = self._written, []
        return written

    def stream(self, request: Request) -> Iterator[Token]:
        """Tokens of one request as they come; other requests are served beside. Leaving early cancels it."""
        number = self.add(request)
        inbox = self._streams[number] = deque()
        try:
            while inbox or number in self._open:
                if not inbox:
                    self._advance()
                    continue
                item = inbox.popleft()
                if isinstance(item, CamelidError):
                    raise item
                yield item
        finally:
            self.cancel(number)
            del self._streams[number]

    def _advance(self) -> None:
        """Schedule → forward → sample → commit."""
        sequences, batch = self._scheduler.next_batch(self._propose)
        if not sequences:
            return
        rows = iter(self.backend.forward(batch))
        for sequence, span in zip(sequences, batch.spans, strict=True):
            own = list(islice(rows, {"none": 0, "last": 1, "all": len(span.ids)}[span.logits]))
            if sequence.done:  # its request failed with a sibling a moment ago
                continue
            self._scheduler.commit(sequence, len(span.ids) - sequence.n_ahead)
            if sequence.guesses:
                self._verify(sequence, own)
            elif own:
                self._deliver(sequence, own[0])

    def _propose(self, chosen: Chosen, room: int) -> None:
        """Set guesses; only so many that the logits of a pass do not grow beyond measure."""
        room = min(room, MOST_LOGITS // self.backend.config.vocab_size)
        if self._draft is not None:
            self._draft.propose(chosen, room)
        else:
            speculate.look_up(chosen, room)

    def _verify(self, sequence: Running, rows: list[Logits]) -> None:
        """Choose ids as long as they are the guessed ones, whose keys and values lie in the pages already.

        What was guessed wrong is overwritten by the next pass.
        """
        guesses, n_ahead = sequence.guesses, sequence.n_ahead
        sequence.guesses, sequence.n_ahead = [], 0
        self.n_drafted += n_ahead
        for place, row in enumerate(rows):
            guess = guesses[place] if place < len(guesses) else None
            n_before = len(sequence.ids)
            self._deliver(sequence, row, guess)
            if place == n_ahead or len(sequence.ids) == n_before or guess is None or sequence.ids[-1] != guess.id:
                break
            self.n_accepted += 1
            if sequence.done:
                break
            self._scheduler.commit(sequence, 1)
        if n_ahead and not sequence.done:
            self._scheduler.trim(sequence)

    def _deliver(self, sequence: Running, logits: Logits, guess: Guess | None = None) -> None:
        """Choose the next id and hand it to whoever waits for it; a failure ends its own request only."""
        stream = self._streams.get(sequence.number)
        try:
            token = self._sample(sequence, logits, guess)
        except CamelidError as error:
            self.cancel(sequence.number)
            if stream is not None:
                stream.append(error)
            else:
                self.failed[sequence.number] = error
            return
        (self._written if stream is None else stream).append(token)

    def cancel(self, number: int) -> None:
        """End a request, if it still runs, and give back its pages."""
        for sequence in self._open.pop(number, []):
            self._drop(sequence)

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
                logprobs.append(sampling.raw_logprob(row, id))
                greedy.append(int(row.argmax()) == id)
        return np.array(logprobs), np.array(greedy)

    def prompt_logprobs(self, ids: Sequence[int], n: int = 0) -> list[PromptToken | None]:
        """How likely each id is after those before it, and the `n` likeliest in its place; None for the first id.

        The logits of a chunk are all that is held at a time.
        """
        tokens: list[PromptToken | None] = [None]
        for start, rows in self._read(ids, "all"):
            for row, id in zip(rows, ids[start + 1 : start + 1 + len(rows)], strict=False):
                log_sum = sampling.raw_log_sum(row)
                logprob = float(row[id]) - log_sum
                tokens.append(PromptToken(id, logprob, _rank(row, id), _likeliest(row, log_sum, None, n)))
        return tokens

    def hidden(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Hidden state of each id after the final norm, (len(ids), D)."""
        return np.concatenate([rows for _, rows in self._read(ids, "all", hidden=True)])

    def mean_hidden(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """The mean of `hidden` over the positions, (D,); a chunk's states are all that is held at a time."""
        sums = [rows.sum(axis=0, dtype=np.float64) for _, rows in self._read(ids, "all", hidden=True)]
        return (np.sum(sums, axis=0) / len(ids)).astype(np.float32)

    def _read(
        self, ids: Sequence[int], wanted: Literal["all", "last"], hidden: bool = False
    ) -> Iterator[tuple[int, Logits]]:
        """Forward `ids` in chunks, outside the schedule: the chunk's start and its logits, or its hidden states."""
        backend, config = self.backend, self.backend.config
        width, compute = (config.dim, backend.hidden) if hidden else (config.vocab_size, backend.forward)
        if not 0 < len(ids) <= self.context:
            raise OptionError(f"ids: there are {len(ids)}, the context is {self.context}; give at least one, or fewer")
        taken: list[int] = []
        try:
            while len(taken) * self.pages.page_size < len(ids):
                page = self.pages.take(taken[-1] if taken else None)
                if page is None:
                    raise ResourceError("cache: no room beside the running requests; raise --cache-tokens or wait")
                taken.append(page)
            chunk = self.options.max_batch_tokens
            if wanted == "all":
                chunk = min(chunk, max(1, MOST_LOGITS // width))
            for start in range(0, len(ids), chunk):
                part = tuple(ids[start : start + chunk])
                last = start + len(part) == len(ids)
                which: Rows = wanted if wanted == "all" or last else "none"
                rows = compute(Batch((Span(part, start, tuple(taken), which, read=len(ids)),)))
                if hidden and not np.isfinite(rows).all():
                    raise NumericsError("hidden states are not finite; the weights are damaged: try float32")
                if not hidden:
                    for row in rows:
                        sampling.checked(row)
                yield start, rows
        finally:
            self.pages.release(taken)

    def _sample(self, sequence: Running, logits: Logits, guess: Guess | None) -> Token:
        """Choose the next id of a sequence and note what follows from it."""
        request, params, output = sequence.request, sequence.request.params, sequence.output
        allowed = sampling.allowed(logits, request, len(output), sequence.constraint)
        probabilities = sampling.distribution(allowed, params, request.ids, output)
        if sampling.is_greedy(params):
            id = int(probabilities.argmax())
        else:
            id = speculate.choose(probabilities, guess, sequence.seed, sequence.sample, len(output))
        if sequence.constraint is not None:
            sequence.constraint.push(id)
        sequence.ids.append(id)
        log_sum = sampling.raw_log_sum(logits)
        token = Token(
            request=sequence.number,
            sample=sequence.sample,
            index=len(output),
            id=id,
            logprob=float(logits[id]) - log_sum,
            rank=_rank(logits, id),
            sampled_logprob=math.log(probabilities[id]),
            top=_likeliest(logits, log_sum, probabilities, params.logprobs),
            finish_reason=_finish_reason(sequence, request, id),
            n_cached=sequence.n_cached or 0,
        )
        if token.finish_reason:
            self._close(sequence)
        return token

    def _drop(self, sequence: Running) -> None:
        self._scheduler.drop(sequence)
        if self._draft is not None:
            self._draft.drop(sequence)

    def _close(self, sequence: Running) -> None:
        self._drop(sequence)
        self._open[sequence.number].remove(sequence)
        if not self._open[sequence.number]:
            del self._open[sequence.number]


def _finish_reason(sequence: Running, request: Request, id: int) -> Literal["stop", "length"] | None:
    if id in request.all_stop_ids:
        return "stop"
    if sequence.constraint is not None and sequence.constraint.finished:
        return "stop"
    return "length" if len(sequence.ids) >= sequence.limit else None


def _rank(logits: Logits, id: int) -> int:
    """1 for the likeliest id; ids as likely as each other share a rank."""
    return int(np.count_nonzero(logits > logits[id])) + 1


def _likeliest(
    logits: Logits, log_sum: float, probabilities: NDArray[np.float64] | None, n: int | None
) -> tuple[Alternative, ...]:
    """The n likeliest ids, the lower id first where they are equal; without `probabilities` nothing is drawn."""
    if not n:
        return ()
    n = min(n, len(logits))
    ids = np.flatnonzero(logits >= np.partition(logits, -n)[-n])
    ranked = ids[np.argsort(-logits[ids], kind="stable")][:n].tolist()
    drawn = [0.0 if probabilities is None else probabilities[id] for id in ranked]
    return tuple(
        Alternative(id, float(logits[id]) - log_sum, math.log(p) if p else None)
        for id, p in zip(ranked, drawn, strict=True)
    )
