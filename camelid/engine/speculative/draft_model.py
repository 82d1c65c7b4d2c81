"""A draft model: a smaller one with the same vocabulary, which proposes what the model at work is going to write.

An id is drawn here with the very random number that the model draws with, and is a guess like any other: so a text does
not depend on who guesses, nor on how much (Daliri et al. 2024, arXiv:2408.07978).

It has a pool of pages of its own, in which a draft sequence lies for each sequence. When there is no room for all,
those unused for longest are preempted and read again later; the draft tokens stay the same.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camelid.engine.backend import Backend
from camelid.engine.batch import Batch, Span
from camelid.engine.memory import cache_tokens
from camelid.engine.options import EngineOptions
from camelid.engine.pages import Pages
from camelid.engine.request import Constraint
from camelid.engine.sampling import steps as sampling
from camelid.engine.sampling.choose import Writer
from camelid.engine.sequence import Sequence, root_of
from camelid.engine.speculative.length import PassCost, Wish, lengths
from camelid.engine.speculative.proposer import most_drafts, n_writing
from camelid.engine.speculative.record import Trial
from camelid.errors import CamelidError, NumericsError, OptionError
from camelid.model.config import ModelConfig

log = logging.getLogger(__name__)

Row = NDArray[np.float32]


@dataclass(eq=False)
class _DraftRequest:
    """What an answer is to have: its first `end` ids read, then `n` draft tokens."""

    writer: Writer
    own: Sequence  # the draft sequence
    end: int
    n: int
    form: Constraint | None


class DraftModel:
    """Proposes ids of many sequences at once.

    Args:
        backend: computes; it gets its pool of pages here.
        options: cache size and batching.
        target: shape of the model that the draft tokens are for.
        context: most ids of a sequence; beyond the draft model's own context nothing is proposed.

    Raises:
        OptionError: the vocabularies differ in size.
    """

    def __init__(self, backend: Backend, options: EngineOptions, target: ModelConfig, context: int) -> None:
        own = backend.config.vocab_size
        if own != target.vocab_size:
            raise OptionError(
                f"draft: its vocabulary has {own} ids, the model's {target.vocab_size}; take one of the same family",
                param="draft",
            )
        self.backend, self._chunk = backend, options.max_batch_tokens
        self.context = min(context, backend.config.context)
        free, width = backend.free_bytes(), backend.page_size
        positions = cache_tokens(backend.config, options, self.context, backend.bytes_per_number, free)
        n_pages = -(-positions // width) + 1
        backend.allocate(n_pages)
        self.pages = Pages(n_pages, width, options.prefix_cache)
        self.cost = PassCost()
        self._seconds = 0.0  # of a pass for an id of each answer, lately
        self._share = backend.config.n_parameters / target.n_parameters
        self._trials: dict[Sequence, Trial] = {}
        self._sequences: dict[Sequence, Sequence] = {}  # sequence → draft sequence; those unused for longest first

    def propose(self, sizes: Mapping[Writer, int], room: int) -> None:
        """Set the draft tokens of answers that get their next id in this pass, of which `room` in all are verified.

        Prompts that are still being read are read here too.
        """
        chosen = self._lengths(sizes, room)
        requests = []
        for writer, size in sizes.items():
            sequence = writer.sequence
            n, end = chosen.get(writer, 0), sequence.computed + size
            sequence.draft_tokens, sequence.n_draft = [], n
            if sequence.request.params.draft_tokens and end <= self.context and (n or size > 1):
                form = writer.constraint.fork() if n and writer.constraint is not None else None
                requests.append(_DraftRequest(writer, self._draft_sequence(sequence), end, n, form))
        asked = requests
        while requests:
            n_allocated = self._allocate(requests)
            allocated, requests = requests[:n_allocated], requests[n_allocated:]
            self._write(self._read(allocated))
        for request in asked:
            sequence = request.writer.sequence
            self._trial(sequence).begin(request.end, sequence.draft_tokens[: sequence.n_draft])

    def _lengths(self, sizes: Mapping[Writer, int], room: int) -> dict[Writer, int]:
        """How many ids are to be proposed to each answer, as many as `room` in all."""
        chosen: dict[Writer, int] = {}
        waiting: dict[Writer, int] = {}  # for what their trials say, with the most
        for writer, size in sizes.items():
            n = min(most_drafts(writer, size, room), self.context - len(writer.sequence.ids) + 1)
            if n <= 0:
                continue
            if writer.sequence.request.params.draft_tokens == "auto":
                waiting[writer] = n
            else:
                chosen[writer] = n
                room -= n
        trials = [self._trial(writer.sequence) for writer in waiting]
        for writer, trial in zip(waiting, trials, strict=True):
            trial.learn(writer.sequence.ids)
        cost = 1 + self._pass_positions() / max(1, len(waiting) + len(chosen))
        wishes = [Wish(trial.chance, most, cost) for trial, most in zip(trials, waiting.values(), strict=True)]
        found = lengths(wishes, n_writing(sizes), self.cost.fixed, room)
        room -= sum(found)
        for writer, trial, n in zip(waiting, trials, found, strict=True):
            is_tried = not n and room > 0 and trial.is_due(len(writer.sequence.ids))
            chosen[writer] = n + is_tried
            room -= is_tried
        return chosen

    def _pass_positions(self) -> float:
        """Positions of the model whose time a pass of this one takes for an id of each answer."""
        if self._seconds and self.cost.each:
            return self._seconds / self.cost.each
        return (self.cost.fixed + 1) * self._share

    def _trial(self, sequence: Sequence) -> Trial:
        return self._trials.setdefault(sequence, Trial())

    def drop(self, sequence: Sequence) -> None:
        """Forget a sequence that has ended."""
        own = self._sequences.pop(sequence, None)
        self._trials.pop(sequence, None)
        if own is not None:
            self.pages.release(own.pages)

    def clear(self) -> None:
        """Forget everything that was read, since the weights have changed."""
        for own in self._sequences.values():
            own.free(self.pages)
            own.draft_tokens = []
        self.pages.clear()

    def _draft_sequence(self, sequence: Sequence) -> Sequence:
        """The same ids on pages of this model; draft tokens that were accepted count as read."""
        root = root_of(self.backend.config, sequence.n_prompt)
        own = self._sequences.pop(sequence, None) or Sequence(
            sequence.number, sequence.request, sequence.sample, sequence.ids, root
        )
        self._sequences[sequence] = own
        for id in own.draft_tokens:
            if sequence.ids[own.computed : own.computed + 1] != [id]:
                break
            own.commit(self.pages, 1)
        own.draft_tokens = []
        return own

    def _allocate(self, requests: list[_DraftRequest]) -> int:
        """How many of the first requests have pages for all they need; the pages of others are taken for them."""
        for place, request in enumerate(requests):
            own, n_positions = request.own, request.end + max(request.n - 1, 0)
            if not own.pages:
                own.match_prefix(self.pages)
            while not self.pages.grow(own.pages, n_positions):
                if not self._preempt({other.own for other in requests[: place + 1]}):
                    assert place, "the pool is smaller than one context"
                    return place
        return len(requests)

    def _preempt(self, needed: set[Sequence]) -> bool:
        """Take the pages of the draft sequence that was unused for longest; False if there is none but those needed."""
        for own in self._sequences.values():
            if own.pages and own not in needed:
                own.free(self.pages)
                own.draft_tokens = []
                return True
        return False

    def _read(self, requests: list[_DraftRequest]) -> dict[_DraftRequest, Row]:
        """Read what was not read yet; the logits after the last id of those that are to have draft tokens."""
        rows: dict[_DraftRequest, Row] = {}
        for request in requests:
            request.own.computed = min(request.own.computed, request.end - 1 if request.n else request.end)
        behind = [request for request in requests if request.own.computed < request.end]
        while behind:
            room, batch = self._chunk, []
            for request in behind[: self._chunk]:
                span = self._span(request, room)
                if span.ids:
                    batch.append((request, span))
                room -= len(span.ids)
            logits = self.backend.forward(Batch(tuple(span for _, span in batch)))
            for (request, span), own_rows in zip(batch, logits, strict=True):
                request.own.commit(self.pages, len(span.ids))
                if len(own_rows):
                    rows[request] = own_rows[0]
            behind = [request for request in behind if request.own.computed < request.end]
        return rows

    @staticmethod
    def _span(request: _DraftRequest, room: int) -> Span:
        """The next ids that are to be read, `room` at most."""
        sequence, start = request.writer.sequence, request.own.computed
        ids = tuple(sequence.ids[start : min(request.end, start + room)])
        is_last = request.n and start + len(ids) == request.end
        wanted = range(len(ids) - 1, len(ids)) if is_last else range(0)
        return Span(ids, start, tuple(request.own.pages), wanted, n_prompt=sequence.n_prompt)

    def _write(self, rows: dict[_DraftRequest, Row]) -> None:
        """Go on from the logits after the last ids, an id of each sequence at a time."""
        while going := [request for request, row in rows.items() if self._propose_id(request, row)]:
            spans = []
            for request in going:
                sequence = request.writer.sequence
                start, last = request.end + len(sequence.draft_tokens) - 1, sequence.draft_tokens[-1]
                spans.append(Span((last,), start, tuple(request.own.pages), range(1), n_prompt=sequence.n_prompt))
            started = time.perf_counter()
            logits = self.backend.forward(Batch(tuple(spans)))
            seconds = time.perf_counter() - started
            self._seconds += (seconds - self._seconds) * (0.1 if self._seconds else 1.0)
            for request in going:
                request.own.draft_tokens.append(request.writer.sequence.draft_tokens[-1])
            rows = {request: own_rows[0] for request, own_rows in zip(going, logits, strict=True)}

    def _propose_id(self, draft: _DraftRequest, row: Row) -> bool:
        """Propose the next id as the engine would choose it; whether more are to come."""
        sequence, form = draft.writer.sequence, draft.form
        request = sequence.request
        output = [*sequence.output, *sequence.draft_tokens]
        try:
            logits = sampling.allowed(row, request, len(output), form)
            q = sampling.distribution(logits, request.params, request.ids, output)
            if sampling.is_greedy(request.params):
                id = int(q.argmax())
            else:  # with the random number that the answer's own id is going to be drawn with
                id = sampling.draw(q, draft.writer.seed, sequence.sample, len(output))
            if form is not None:
                form.push(id)
        except CamelidError as error:  # nothing can be proposed here; what is wrong with the text is raised later
            if isinstance(error, NumericsError) and form is None:
                log.warning("the draft model cannot propose tokens: %s", error)
            sequence.n_draft = min(sequence.n_draft, len(sequence.draft_tokens))
            return False
        sequence.draft_tokens.append(id)
        if id in request.all_stop_ids or (form is not None and form.finished):
            sequence.n_draft = min(sequence.n_draft, len(sequence.draft_tokens) - 1)
            return False
        return len(sequence.draft_tokens) < draft.n
