"""A draft model: a smaller one with the same vocabulary, which guesses what the model at work is going to write.

It has a pool of pages of its own, in which a twin of each sequence lies. When there is no room for all twins, those
unused for longest give their pages back and are read again later; the guesses stay the same.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camelid.engine import sampling
from camelid.engine.backend import Backend
from camelid.engine.batch import Batch, Span
from camelid.engine.cache import Pages
from camelid.engine.memory import cache_tokens
from camelid.engine.options import EngineOptions
from camelid.engine.request import Constraint
from camelid.engine.scheduler import Chosen, Sequence, commit, find_beginning, give_back, root_of
from camelid.engine.speculate import Guess, most_ahead
from camelid.errors import CamelidError, NumericsError, OptionError
from camelid.model.config import ModelConfig

log = logging.getLogger(__name__)

Row = NDArray[np.float32]


@dataclass(eq=False)
class _Wish:
    """What a sequence is to have: its first `end` ids read, then `n` guesses."""

    sequence: Sequence
    twin: Sequence
    end: int
    n: int
    form: Constraint | None


class DraftModel:
    """Guesses ids of many sequences at once.

    Args:
        backend: computes; it gets its pool of pages here.
        options: cache size and batching.
        target: shape of the model that the guesses are for.
        context: most ids of a sequence; beyond the draft model's own context nothing is guessed.

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
        self._twins: dict[Sequence, Sequence] = {}  # those unused for longest first

    def propose(self, chosen: Chosen, room: int) -> None:
        """Set the guesses of sequences that get their next id in this pass, of which `room` in all are to be read.

        Prompts that are still being read are read here too. A drawn id needs a guess wherever the context allows one,
        even if it is not read ahead: then the text does not depend on how many were.
        """
        wishes = []
        for sequence, size in chosen.items():
            params = sequence.request.params
            if not params.draft_tokens:
                continue
            n_ahead, end = most_ahead(sequence, size, room), sequence.computed + size
            n = 0
            if end == len(sequence.ids):
                n = max(0, min(n_ahead + (not sampling.is_greedy(params)), self.context - end + 1))
            sequence.guesses, sequence.n_ahead = [], min(n_ahead, n)
            room -= sequence.n_ahead
            if end <= self.context and (n or size > 1):
                form = sequence.constraint.fork() if n and sequence.constraint is not None else None
                wishes.append(_Wish(sequence, self._twin(sequence), end, n, form))
        while wishes:
            n_seated = self._seat(wishes)
            seated, wishes = wishes[:n_seated], wishes[n_seated:]
            self._write(self._read(seated))

    def drop(self, sequence: Sequence) -> None:
        """Forget a sequence that has ended."""
        twin = self._twins.pop(sequence, None)
        if twin is not None:
            self.pages.release(twin.pages)

    def _twin(self, sequence: Sequence) -> Sequence:
        """The same ids on pages of this model; guesses that came true count as read."""
        root = root_of(self.backend.config, len(sequence.request.ids))
        twin = self._twins.pop(sequence, None) or Sequence(
            sequence.number, sequence.request, sequence.sample, sequence.seed, sequence.limit, None, sequence.ids, root
        )
        self._twins[sequence] = twin
        for guess in twin.guesses:
            if sequence.ids[twin.computed : twin.computed + 1] != [guess.id]:
                break
            commit(self.pages, twin, 1)
        twin.guesses = []
        return twin

    def _seat(self, wishes: list[_Wish]) -> int:
        """How many of the first wishes have pages for all they need; the pages of others are taken for them."""
        for place, wish in enumerate(wishes):
            twin, n_positions = wish.twin, wish.end + max(wish.n - 1, 0)
            if not twin.pages:
                find_beginning(self.pages, twin)
            while len(twin.pages) * self.pages.page_size < n_positions:
                page = self.pages.take(twin.pages[-1] if twin.pages else None)
                if page is not None:
                    twin.pages.append(page)
                elif not self._push_out({one.twin for one in wishes[: place + 1]}):
                    assert place, "the pool is smaller than one context"
                    return place
        return len(wishes)

    def _push_out(self, kept: set[Sequence]) -> bool:
        """Take the pages of the twin that was unused for longest; False if there is none but those to be kept."""
        for twin in self._twins.values():
            if twin.pages and twin not in kept:
                give_back(self.pages, twin)
                twin.guesses = []
                return True
        return False

    def _read(self, wishes: list[_Wish]) -> dict[_Wish, Row]:
        """Read what the twins have not read; the logits after the last id of those that wish for guesses."""
        rows: dict[_Wish, Row] = {}
        for wish in wishes:
            wish.twin.computed = min(wish.twin.computed, wish.end - 1 if wish.n else wish.end)
        behind = [wish for wish in wishes if wish.twin.computed < wish.end]
        while behind:
            room, batch = self._chunk, []
            for wish in behind[: self._chunk]:
                start = wish.twin.computed
                ids = tuple(wish.sequence.ids[start : min(wish.end, start + room)])
                is_last = wish.n and start + len(ids) == wish.end
                wanted = range(len(ids) - 1, len(ids)) if is_last else range(0)
                if ids:
                    n_prompt = len(wish.sequence.request.ids)
                    batch.append((wish, Span(ids, start, tuple(wish.twin.pages), wanted, n_prompt=n_prompt)))
                room -= len(ids)
            logits = self.backend.forward(Batch(tuple(span for _, span in batch)))
            for (wish, span), own in zip(batch, logits, strict=True):
                commit(self.pages, wish.twin, len(span.ids))
                if len(own):
                    rows[wish] = own[0]
            behind = [wish for wish in behind if wish.twin.computed < wish.end]
        return rows

    def _write(self, rows: dict[_Wish, Row]) -> None:
        """Guess on from the logits after the last ids, an id of each sequence at a time."""
        while going := [wish for wish, row in rows.items() if self._guess(wish, row)]:
            spans = []
            for wish in going:
                guesses = wish.sequence.guesses
                start, n_prompt = wish.end + len(guesses) - 1, len(wish.sequence.request.ids)
                spans.append(Span((guesses[-1].id,), start, tuple(wish.twin.pages), range(1), n_prompt=n_prompt))
            logits = self.backend.forward(Batch(tuple(spans)))
            for wish in going:
                wish.twin.guesses.append(Guess(wish.sequence.guesses[-1].id))
            rows = {wish: own[0] for wish, own in zip(going, logits, strict=True)}

    def _guess(self, wish: _Wish, row: Row) -> bool:
        """Guess the next id as the engine would choose it; whether more are wished for."""
        sequence, request = wish.sequence, wish.sequence.request
        output = [*sequence.output, *(guess.id for guess in sequence.guesses)]
        try:
            logits = sampling.allowed(row, request, len(output), wish.form)
            q = sampling.distribution(logits, request.params, request.ids, output)
            if sampling.is_greedy(request.params):
                guess = Guess(int(q.argmax()))
            else:
                guess = Guess(sampling.draw(q, sequence.seed, sequence.sample, len(output), sampling.GUESS), q)
            if wish.form is not None and sequence.n_ahead:
                wish.form.push(guess.id)
        except CamelidError as error:  # nothing can be guessed here; what is wrong with the text itself is told later
            if isinstance(error, NumericsError) and wish.form is None:
                log.warning("the draft model cannot guess: %s", error)
            sequence.n_ahead = min(sequence.n_ahead, len(sequence.guesses))
            return False
        sequence.guesses.append(guess)
        if guess.id in request.all_stop_ids or (wish.form is not None and sequence.n_ahead and wish.form.finished):
            sequence.n_ahead = min(sequence.n_ahead, len(sequence.guesses) - 1)
            return False
        return len(sequence.guesses) < wish.n
