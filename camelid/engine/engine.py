"""The engine: ids in, ids out, many requests at once. A step is schedule → forward → sample → commit.

Not for several threads: one thread owns an engine.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from camelid.engine import sampling, speculate
from camelid.engine.backend import Backend
from camelid.engine.cache import Pages
from camelid.engine.choose import choose_token, finish_reason
from camelid.engine.draft import DraftModel
from camelid.engine.memory import cache_tokens, fitting_context
from camelid.engine.options import EngineOptions
from camelid.engine.pace import Pace
from camelid.engine.readers import AllRows, MeanHidden, PromptLogprobs, Reader, Scores
from camelid.engine.request import PromptToken, Request, Token
from camelid.engine.scheduler import Chosen, Scheduler, n_read, root_of
from camelid.engine.scheduler import Sequence as Running
from camelid.engine.speculate import Guess
from camelid.errors import CamelidError, ContextError, OptionError

__all__ = ["Engine", "EngineOptions"]

Logits = NDArray[np.float32]
MOST_LOGITS = 2**25  # held at a time when every position's are wanted: 128 MiB
READ_LOGITS = 2**22  # for readers in one pass: few, since making something of them takes its time
SOON_SECONDS = 0.002  # to wait for a form where others could go on
LATER_SECONDS = 0.02  # where nobody could


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
        most_rows = max(16, READ_LOGITS // config.vocab_size)
        self._scheduler = Scheduler(self.pages, self.options.max_batch_tokens, self.options.max_running, most_rows)
        self._pace = Pace(self.options.max_batch_tokens)
        self.failed: dict[int, CamelidError] = {}  # requests that could not go on, and why; taken out by who made them
        self.read: list[int] = []  # requests with a reader that is done; taken out by who made them
        self._open: dict[int, list[Running]] = {}  # request → its samples that still run
        self._held: dict[Running, Token] = {}  # chosen, and what their forms say to them is not known yet
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
            raise OptionError("prompt: has no tokens; give at least one", param="prompt")
        if request.reader is not None and n_ids > self.context:
            raise ContextError(
                f"prompt: has {n_ids} tokens, the context is {self.context}; shorten it or raise --context",
                n_ids,
                self.context,
                param="prompt",
            )
        if request.reader is None and n_ids >= self.context:
            raise ContextError(
                f"prompt: has {n_ids} tokens, the context is {self.context} with room for one of the answer; "
                "shorten it or raise --context",
                n_ids,
                self.context,
                param="prompt",
            )
        for id in request.ids:
            if not 0 <= id < vocab_size:
                raise OptionError(f"prompt: id {id} lies outside the vocabulary of {vocab_size} ids", param="prompt")
        sampling.check(params, vocab_size, self.backend.absent)
        if request.constraint is not None and (params.min_tokens or params.ignore_stop):
            name = "min_tokens" if params.min_tokens else "ignore_stop"
            raise OptionError(
                f"{name}: the constrained form alone says where the text may end; leave one of them out", param=name
            )

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
        if request.reader is not None:
            ids, root = list(request.ids[: request.reader.last]), root_of(self.backend.config, len(request.ids))
            self._open[number].append(Running(number, request, 0, seed, limit, None, ids, root))
            if request.reader.first < request.reader.last:
                self._scheduler.add(self._open[number][0])
            else:
                self._end_reading(self._open[number][0])
            return number
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
        self._hand_out_held(0.0)
        is_writing, started = self._scheduler.is_writing, time.perf_counter()
        self._scheduler.max_beside = self._pace.room()
        sequences, batch = self._scheduler.next_batch(self._propose)
        if not sequences:
            self._hand_out_held(LATER_SECONDS)
            return
        rows = self.backend.forward(batch)
        for sequence, span, own in zip(sequences, batch.spans, rows, strict=True):
            if sequence.done:  # its request failed with a sibling a moment ago
                continue
            self._scheduler.commit(sequence, len(span.ids) - sequence.n_ahead)
            if sequence.request.reader is not None:
                self._take(sequence, sequence.request.reader, own)
            elif sequence.guesses:
                self._verify(sequence, own)
            elif len(own):
                self._deliver(sequence, own[0])
        if is_writing:
            sizes = {one: len(span.ids) for one, span in zip(sequences, batch.spans, strict=True)}
            if sum(sizes.values()) - n_read(sizes) <= len(sizes):  # no prompt is read in it
                self._pace.note(time.perf_counter() - started, n_read(sizes))

    def _take(self, sequence: Running, reader: Reader, rows: Logits) -> None:
        """Give a reader its rows."""
        try:
            if len(rows):
                reader.take(rows)
        except CamelidError as error:
            self._fail(sequence, error)
            return
        if reader.first + reader.taken >= reader.last:
            self._end_reading(sequence)

    def _end_reading(self, sequence: Running) -> None:
        self._close(sequence)
        self.read.append(sequence.number)

    def _propose(self, chosen: Chosen, room: int) -> None:
        """Set guesses; only so many that the logits of a pass do not grow beyond measure."""
        room = min(room, MOST_LOGITS // self.backend.config.vocab_size)
        if self._draft is not None:
            self._draft.propose(chosen, room)
        else:
            speculate.look_up(chosen, room)

    def _verify(self, sequence: Running, rows: Logits) -> None:
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
            if sequence.held or place == n_ahead or len(sequence.ids) == n_before:
                break
            if guess is None or sequence.ids[-1] != guess.id:
                break
            self.n_accepted += 1
            if sequence.done:
                break
            self._scheduler.commit(sequence, 1)
        if n_ahead and not sequence.done:
            self._scheduler.trim(sequence)

    def _deliver(self, sequence: Running, logits: Logits, guess: Guess | None = None) -> None:
        """Choose the next id, and hand it out as soon as it is known what its form says to it."""
        try:
            token = choose_token(sequence, logits, guess)
        except CamelidError as error:
            self._fail(sequence, error)
            return
        if sequence.constraint is None or sequence.constraint.ready(SOON_SECONDS):
            self._hand_out(sequence, token)
        else:
            sequence.held, self._held[sequence] = True, token

    def _hand_out_held(self, seconds: float) -> None:
        """Hand out tokens whose forms have answered; wait for so long in all, where they have not."""
        for sequence, token in list(self._held.items()):
            if sequence.constraint is None or sequence.constraint.ready(seconds / len(self._held)):
                del self._held[sequence]
                sequence.held = False
                self._hand_out(sequence, token)

    def _hand_out(self, sequence: Running, token: Token) -> None:
        """Give a token to whoever waits for it."""
        try:
            reason = finish_reason(sequence)
        except CamelidError as error:
            self._fail(sequence, error)
            return
        if reason:
            token = replace(token, finish_reason=reason)
            self._close(sequence)
        self._streams.get(sequence.number, self._written).append(token)

    def _fail(self, sequence: Running, error: CamelidError) -> None:
        """End a request, and no other, with an error."""
        self.cancel(sequence.number)
        stream = self._streams.get(sequence.number)
        if stream is not None:
            stream.append(error)
        else:
            self.failed[sequence.number] = error

    def cancel(self, number: int) -> None:
        """End a request, if it still runs, and give back its pages."""
        for sequence in self._open.pop(number, []):
            self._drop(sequence)

    def run(self, reader: Reader) -> None:
        """Give a reader all that it wants; other requests are served beside.

        Raises:
            OptionError, ContextError: as `check`.
            NumericsError: what was computed is not finite.
        """
        number = self.add(Request(ids=tuple(reader.ids), reader=reader))
        try:
            while number in self._open:
                self._advance()
            if number in self.failed:
                raise self.failed.pop(number)
        finally:
            self.cancel(number)
            if number in self.read:
                self.read.remove(number)

    def logits(self, ids: Sequence[int]) -> Logits:
        """Scores of every next id after each of `ids`, float32 (len(ids), V)."""
        self.run(reader := AllRows(ids))
        return reader.rows()

    def last_logits(self, ids: Sequence[int]) -> Logits:
        """Scores of every next id after all of `ids`, float32 (V,)."""
        self.run(reader := AllRows(ids, first=len(ids) - 1))
        return reader.rows()[0]

    def score(self, ids: Sequence[int], start: int = 1) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """For each id from `start` on: its log-probability after those before, and whether it is the likeliest one."""
        self.run(reader := Scores(ids, start))
        return np.array(reader.logprobs), np.array(reader.greedy)

    def prompt_logprobs(self, ids: Sequence[int], n: int = 0) -> list[PromptToken | None]:
        """How likely each id is after those before it, and the `n` likeliest in its place; None for the first id."""
        self.run(reader := PromptLogprobs(ids, n))
        return reader.tokens

    def hidden(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Hidden state of each id after the final norm, (len(ids), D)."""
        self.run(reader := AllRows(ids, hidden=True))
        return reader.rows()

    def mean_hidden(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """The mean of `hidden` over the positions, (D,); a chunk's states are all that is held at a time."""
        self.run(reader := MeanHidden(ids))
        return reader.mean()

    def _drop(self, sequence: Running) -> None:
        self._scheduler.drop(sequence)
        self._held.pop(sequence, None)
        if self._draft is not None:
            self._draft.drop(sequence)

    def _close(self, sequence: Running) -> None:
        self._drop(sequence)
        self._open[sequence.number].remove(sequence)
        if not self._open[sequence.number]:
            del self._open[sequence.number]
