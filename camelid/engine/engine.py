"""The engine: ids in, ids out, many requests at once. A step is schedule → forward → commit → sample.

Not for several threads: one thread owns an engine.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from camelid.engine import sampling
from camelid.engine.backend import Backend
from camelid.engine.batch import Batch
from camelid.engine.choose import Choice, Chooser, Writer, finish_reason
from camelid.engine.memory import cache_tokens, fitting_context
from camelid.engine.options import EngineOptions
from camelid.engine.pages import Pages
from camelid.engine.request import Failed, Outcome, Request, Rows, Scored, Token, check_prompt
from camelid.engine.scheduler import Chosen, Pace, Scheduler, n_scored
from camelid.engine.scoring import Collector, collector
from camelid.engine.sequence import Sequence, root_of
from camelid.engine.speculative.lookup import LookupProposer
from camelid.engine.speculative.proposer import Proposer
from camelid.errors import CamelidError, OptionError

__all__ = ["Engine", "EngineOptions"]

Logits = NDArray[np.float32]
MOST_LOGITS = 2**25  # held at a time when every position's are wanted: 128 MiB
SCORED_LOGITS = 2**23 - 2**16  # of scored prompts in one pass: 32 MiB, which malloc keeps (`keep_freed_memory`)
SOON_SECONDS = 0.002  # to wait for a form where others could go on
LATER_SECONDS = 0.02  # where nobody could


class Engine:
    """Runs requests on a backend.

    Args:
        backend: computes; it gets its pool of pages here.
        options: context length, cache size and batching.
        draft: a smaller model with the same vocabulary, which proposes ids for requests with `draft_tokens`; without
            one, they are looked up in the request's own text.

    Attributes:
        adapter: the number of the adapter that its requests are answered with; see `chat/adapters/engine.py`.
        n_drafted, n_accepted: draft tokens that were verified so far, and those of them that were written.

    Raises:
        OptionError: the vocabularies differ in size, or the options contradict each other.
    """

    adapter = 0

    def __init__(self, backend: Backend, options: EngineOptions | None = None, draft: Backend | None = None) -> None:
        self.backend, self.options = backend, options or EngineOptions()
        config, width = backend.config, backend.page_size
        free = backend.free_bytes()
        self.context = fitting_context(config, self.options, backend.bytes_per_number, free)
        positions = cache_tokens(config, self.options, self.context, backend.bytes_per_number, free)
        n_pages = -(-positions // width) + 1
        backend.allocate(n_pages)
        self.pages = Pages(n_pages, width, self.options.prefix_cache)
        self._chooser = Chooser(getattr(backend, "isa", ""))
        self._proposer: Proposer = LookupProposer(backend.same_bits)
        if draft is not None:
            from camelid.engine.speculative.draft_model import DraftModel

            self._proposer = DraftModel(draft, self.options, config, self.context)
        self.n_drafted = self.n_accepted = 0
        self._scheduler = Scheduler(
            self.pages,
            self.options.max_batch_tokens,
            self.options.max_running,
            max(16, SCORED_LOGITS // config.vocab_size),
            lambda source, target: self.backend.copy_page(source, target),
        )
        self._pace = Pace(self.options.max_batch_tokens)
        self._open: dict[int, list[Sequence]] = {}  # request → its samples that still run
        self._writers: dict[Sequence, Writer] = {}
        self._collectors: dict[Sequence, Collector] = {}
        self._held: dict[Sequence, Token] = {}  # chosen, and what their forms say to them is not known yet
        self._inboxes: dict[int, deque[Outcome]] = {}  # streamed request → what its stream has not given
        self._outcomes: list[Outcome] = []  # of requests that are not streamed, until a `step` returns them
        self._n_requests = 0

    @property
    def is_busy(self) -> bool:
        """Whether some request still runs or waits, or an outcome waits for `step` to return it."""
        return bool(self._open or self._outcomes)

    @property
    def n_running(self) -> int:
        """Sequences that have pages."""
        return len(self._scheduler.running)

    @property
    def n_waiting(self) -> int:
        """Sequences that wait for room among the running ones."""
        return len(self._scheduler.waiting) + len(self._scheduler.waiting_scored)

    def check(self, request: Request, has_form: bool = False) -> None:
        """Refuse a request that cannot be run as it is asked; mark one that can, so that `add` does not check again.

        Args:
            has_form: its answer is going to be constrained.

        Raises:
            OptionError: the prompt is empty or outside the vocabulary, or a sampling choice cannot be.
            ContextError: the prompt leaves no room for an answer.
        """
        params = request.params
        check_prompt(request, self.backend.config.vocab_size, self.context)
        sampling.check(params, self.backend.config.vocab_size, self.backend.absent)
        if (has_form or request.constraint is not None) and (params.min_tokens or params.ignore_stop):
            name = "min_tokens" if params.min_tokens else "ignore_stop"
            raise OptionError(
                f"{name}: the constrained form alone says where the text may end; leave one of them out", param=name
            )
        object.__setattr__(request, "is_checked", True)

    def add(self, request: Request) -> int:
        """Queue a request; returns its number.

        Raises:
            OptionError: as `check`, unless that was asked before.
        """
        if not request.is_checked:
            self.check(request)
        number = self._n_requests
        self._n_requests += 1
        self._open[number] = []
        if request.wants == "tokens":
            self._add_answer(number, request)
        else:
            self._add_scored(number, request)
        return number

    def _add_answer(self, number: int, request: Request) -> None:
        params, n_prompt = request.params, len(request.ids)
        seed = params.seed if params.seed is not None else secrets.randbits(63)
        limit = min(self.context, n_prompt + (params.max_tokens or self.context))
        first: Sequence | None = None
        for sample in range(params.n):
            form = request.constraint.fork() if request.constraint is not None else None
            root = root_of(self.backend.config, n_prompt, request.adapter)
            sequence = Sequence(number, request, sample, list(request.ids), root, waits_for=first, n_awaited=n_prompt)
            first = first or sequence
            self._writers[sequence] = Writer(sequence, seed, limit, form)
            self._open[number].append(sequence)
            self._scheduler.add(sequence)

    def _add_scored(self, number: int, request: Request) -> None:
        root = root_of(self.backend.config, len(request.ids), request.adapter)
        ids = list(request.ids[: max(1, request.rows.stop)])  # nothing after the last row is computed
        sequence = Sequence(number, request, 0, ids, root)
        self._collectors[sequence] = collector(request)
        self._open[number].append(sequence)
        self._scheduler.add(sequence)

    def step(self) -> list[Outcome]:
        """Run one forward pass: schedule → forward → commit → sample.

        Returns:
            What it gave to requests that are not streamed: a token a sample, and one more for each draft token that was
            accepted; what was made of a scored prompt; or why a request failed.
        """
        self._deliver_held(0.0)
        started, is_writing = time.perf_counter(), self._scheduler.is_writing
        self._scheduler.max_beside = self._pace.room()
        sequences, batch = self._scheduler.next_batch(self._propose)
        if not sequences:
            self._deliver_held(LATER_SECONDS)
        rows = self._forward(sequences, batch) if sequences else []
        chosen = self._choose(sequences, rows)
        for sequence, span, own in zip(sequences, batch.spans, rows, strict=True):
            if sequence.done:  # its request failed with a sibling a moment ago
                continue
            self._scheduler.commit(sequence, len(span.ids) - sequence.n_draft)
            self._sample(sequence, own, chosen.get(sequence))
        if is_writing:
            self._note_pace(time.perf_counter() - started, sequences, batch)
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def _forward(self, sequences: list[Sequence], batch: Batch) -> list[Logits]:
        """The wanted rows of each span; what a pass takes that only writes tells how much is worth guessing."""
        started = time.perf_counter()
        rows = self.backend.forward(batch)
        sizes = [len(span.ids) for span in batch.spans]
        if all(size == 1 + sequence.n_draft for sequence, size in zip(sequences, sizes, strict=True)):
            self._proposer.cost.note(sum(sizes), time.perf_counter() - started)
        return rows

    def stream(self, request: Request) -> Iterator[Token]:
        """Tokens of one request as they come; other requests are served beside. Leaving early cancels it.

        Raises:
            CamelidError: the request is refused, or cannot go on.
        """
        for _, outcome in self.stream_all([request]):
            assert isinstance(outcome, Token), "`result` is for requests that write nothing"
            yield outcome

    def stream_all(self, requests: Iterable[Request], most: int | None = None) -> Iterator[tuple[int, Outcome]]:
        """What several requests give, as it comes, each with its request's index.

        Args:
            most: take no more requests than so many that are not finished.

        Raises:
            CamelidError: as `stream`; all of them end with the first that fails.
        """
        inbox: deque[Outcome] = deque()
        indexes: dict[int, int] = {}  # of those that may still give something
        left = enumerate(requests)
        try:
            while True:
                for index, request in islice(left, None if most is None else max(0, most - len(indexes))):
                    number = self.add(request)
                    indexes[number], self._inboxes[number] = index, inbox
                if not indexes:
                    return
                self._outcomes = self.step()  # those of others wait for the next one who steps
                while inbox:
                    outcome = inbox.popleft()
                    if isinstance(outcome, Failed):
                        raise outcome.error
                    yield indexes[outcome.request], outcome
                for number in [number for number in indexes if number not in self._open]:
                    del indexes[number], self._inboxes[number]
        finally:
            for number in indexes:
                self.cancel(number)
                del self._inboxes[number]

    def result(self, request: Request) -> Scored | Rows:
        """What comes of a request that writes nothing; other requests are served beside.

        Raises:
            OptionError, ContextError: as `check`.
            NumericsError: what was computed is not finite.
        """
        ((_, outcome),) = self.stream_all([request])
        assert isinstance(outcome, Scored | Rows), "`stream` is for requests that write"
        return outcome

    def cancel(self, number: int) -> None:
        """End a request, if it still runs, and give back its pages."""
        for sequence in self._open.pop(number, []):
            self._drop(sequence)

    def clear(self) -> None:
        """Forget all keys and values, since the weights have changed; texts on their way are read again."""
        while self._scheduler.running:
            self._scheduler.preempt(self._scheduler.running[-1])
        self.pages.clear()
        self._proposer.clear()

    def _propose(self, chosen: Chosen, room: int) -> None:
        """Set draft tokens; only so many that the logits of a pass do not grow beyond measure."""
        answers = [sequence for sequence in chosen if not sequence.is_scored]
        if not any(sequence.request.params.draft_tokens for sequence in answers):
            return
        sizes = {self._writers[sequence]: chosen[sequence] for sequence in answers}
        self._proposer.propose(sizes, min(room, MOST_LOGITS // self.backend.config.vocab_size))

    def _note_pace(self, seconds: float, sequences: list[Sequence], batch: Batch) -> None:
        """Tell how long a pass with answers took, if no prompt of an answer was read in it."""
        sizes = {sequence: len(span.ids) for sequence, span in zip(sequences, batch.spans, strict=True)}
        if sequences and sum(sizes.values()) - n_scored(sizes) <= len(sizes):
            self._pace.note(seconds, n_scored(sizes))

    def _choose(self, sequences: list[Sequence], rows: list[Logits]) -> dict[Sequence, Choice | None]:
        """Choose the next ids of all answers that have no form and no draft tokens."""
        own = {sequence: each for sequence, each in zip(sequences, rows, strict=True) if len(each)}
        answers = [self._writers[each] for each in own if not (each.is_scored or each.draft_tokens)]
        writers = [writer for writer in answers if writer.constraint is None]
        choices = self._chooser.choose(writers, [own[writer.sequence][0] for writer in writers])
        return {writer.sequence: choice for writer, choice in zip(writers, choices, strict=True)}

    def _sample(self, sequence: Sequence, rows: Logits, choice: Choice | None) -> None:
        """Make of a sequence's rows what its request wants."""
        try:
            if sequence.is_scored:
                self._score(sequence, rows)
            elif sequence.draft_tokens:
                self._verify(sequence, rows)
            elif len(rows):
                self._write(sequence, rows[0], choice=choice)
        except CamelidError as error:
            self._fail(sequence, error)

    def _score(self, sequence: Sequence, rows: Logits) -> None:
        """Collect the rows of a scored prompt, and end it with its last one."""
        collected = self._collectors[sequence]
        if len(rows):
            collected.take(rows)
            sequence.n_rows += len(rows)
        if sequence.first_row >= sequence.request.rows.stop:
            self._close(sequence)
            self._give(collected.result(sequence.number))

    def _verify(self, sequence: Sequence, rows: Logits) -> None:
        """Choose ids as long as they are the draft's, whose keys and values lie in the pages already.

        What was rejected is overwritten by the next pass.
        """
        draft, n_draft = sequence.draft_tokens, sequence.n_draft
        sequence.draft_tokens, sequence.n_draft = [], 0
        self.n_drafted += n_draft
        for place, row in enumerate(rows):
            n_before = len(sequence.ids)
            self._write(sequence, row)
            if sequence.held or place == n_draft or len(sequence.ids) == n_before:
                break
            if place >= len(draft) or sequence.ids[-1] != draft[place]:
                break
            self.n_accepted += 1
            if sequence.done:
                break
            self._scheduler.commit(sequence, 1)
        if n_draft and not sequence.done:
            self._scheduler.trim(sequence)

    def _write(self, sequence: Sequence, logits: Logits, choice: Choice | None = None) -> None:
        """Choose the next id, and hand it out as soon as it is known what its form says to it."""
        writer = self._writers[sequence]
        token = self._chooser.token(writer, logits, choice)
        if writer.constraint is None or writer.constraint.ready(SOON_SECONDS):
            self._deliver(writer, token)
        else:
            sequence.held, self._held[sequence] = True, token

    def _deliver_held(self, seconds: float) -> None:
        """Hand out tokens whose forms have answered; wait for so long in all, where they have not."""
        for sequence, token in list(self._held.items()):
            writer = self._writers.get(sequence)
            if writer is None:  # its request failed with a sibling a moment ago
                continue
            if writer.constraint is None or writer.constraint.ready(seconds / len(self._held)):
                del self._held[sequence]
                sequence.held = False
                try:
                    self._deliver(writer, token)
                except CamelidError as error:
                    self._fail(sequence, error)

    def _deliver(self, writer: Writer, token: Token) -> None:
        """Hand out a token, and end its text if that is its last."""
        reason = finish_reason(writer)
        if reason:
            token = replace(token, finish_reason=reason)
            self._close(writer.sequence)
        self._give(token)

    def _fail(self, sequence: Sequence, error: CamelidError) -> None:
        """End a request, and no other, with an error."""
        self.cancel(sequence.number)
        self._give(Failed(sequence.number, error))

    def _give(self, outcome: Outcome) -> None:
        self._inboxes.get(outcome.request, self._outcomes).append(outcome)

    def _drop(self, sequence: Sequence) -> None:
        self._scheduler.drop(sequence)
        self._proposer.drop(sequence)
        self._held.pop(sequence, None)
        self._writers.pop(sequence, None)
        self._collectors.pop(sequence, None)

    def _close(self, sequence: Sequence) -> None:
        self._drop(sequence)
        self._open[sequence.number].remove(sequence)
        if not self._open[sequence.number]:
            del self._open[sequence.number]
