"""Which requests run in the next forward pass, and on which pages.

Every running sequence that only needs its next token goes first, then prompts of answers, then prompts that are only
scored; prompts are read in chunks, oldest first. When the pool is full a scored prompt, else the youngest answer, is
preempted and starts again later. Draft tokens take budget and pages that nobody else wants, and preempt nobody. Prompts
are scored beside answers little at a time, so that these keep their pace.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from camelid.engine.batch import Batch, Span
from camelid.engine.pages import Pages
from camelid.engine.sequence import Sequence, common_prefix

Chosen = dict[Sequence, int]  # sequence → ids of it in a pass
Propose = Callable[[Chosen, int], None]  # sets draft tokens of the chosen, of which so many can be verified

# How much is scored beside answers: so much that none of their tokens comes later than twice its usual pace.
LEAST, FIRST = 1, 16  # ids of a pass
AIM = 1.7  # of the usual pace
LOOK_AGAIN = 16  # passes beside reading, after which one without it is measured
MOST_WAITED = 4  # passes without reading in which prompts were in the way


class Scheduler:
    """Waiting and running sequences over one pool of pages.

    Args:
        pages: the pool's book.
        max_batch_tokens: ids in one forward pass.
        max_running: answers that are written at once; prompts are scored in the places that are left.
        max_rows: rows of logits that scored prompts get from one pass.
        copy_page: copies what one page holds onto another.

    Attributes:
        max_beside: ids that are scored in a pass while others write.
    """

    def __init__(
        self,
        pages: Pages,
        max_batch_tokens: int,
        max_running: int,
        max_rows: int | None = None,
        copy_page: Callable[[int, int], None] | None = None,
    ) -> None:
        self.pages, self.max_batch_tokens, self.max_running = pages, max_batch_tokens, max_running
        self.max_beside = max_batch_tokens
        self._max_rows = max_batch_tokens if max_rows is None else max_rows
        self._copy_page = copy_page
        self.waiting: deque[Sequence] = deque()  # answers
        self.waiting_scored: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # oldest first
        self._last_scored: Sequence | None = None

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence. A scored prompt waits for the one before it, while that computes what both begin with."""
        if sequence.is_scored and self.pages.share:
            leader, self._last_scored = self._last_scored, sequence
            if leader is not None and not leader.done and leader.root == sequence.root:
                n_common = min(common_prefix(leader.ids, sequence.ids), sequence.first_row)
                n_full = n_common // self.pages.page_size * self.pages.page_size
                leader.is_prefix |= n_common == len(leader.ids)
                sequence.waits_for = leader
                sequence.n_awaited = n_common if n_common == len(leader.ids) else n_full
        self._queue(sequence).append(sequence)

    def drop(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it is, and give its pages back."""
        sequence.done = True
        self.pages.release(sequence.pages)
        sequence.pages = []
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self._queue(sequence):
            self._queue(sequence).remove(sequence)
        if sequence is self._last_scored:
            self._last_scored = None

    @property
    def is_writing(self) -> bool:
        """Whether some sequence writes its answer."""
        return any(sequence.is_writing for sequence in self.running)

    def next_batch(self, propose: Propose | None = None) -> tuple[list[Sequence], Batch]:
        """The sequences of the next forward pass and their spans, with pages for every position."""
        chosen: Chosen = {}
        for scored in (False, True):
            for sequence in sorted(self.running, key=lambda each: len(each.ids) - each.computed > 1):
                if sequence.is_scored is scored and sequence in self.running and not sequence.held:
                    self._plan(sequence, chosen)  # unless an earlier one has preempted it
            while (first := self._next_waiting(chosen, scored)) is not None and self._admit(first):
                self._plan(first, chosen)
        if propose is not None:
            propose(chosen, self._budget(chosen))
            for sequence, size in chosen.items():
                self._place_drafts(sequence, size)
        return list(chosen), Batch(tuple(span_of(sequence, size) for sequence, size in chosen.items()))

    def commit(self, sequence: Sequence, size: int) -> None:
        """Note that `size` more positions are computed, and put pages that became full into the prefix cache."""
        sequence.commit(self.pages, size)

    def cache_end(self, sequence: Sequence) -> None:
        """Put the last page of a scored prompt into the prefix cache too, where others begin with it."""
        start = sequence.n_prefix_pages * self.pages.page_size
        if self._copy_page is not None and sequence.is_prefix and start < sequence.computed:
            page = sequence.pages[sequence.n_prefix_pages]
            self.pages.cache_prefix(page, sequence.content, sequence.ids[start : sequence.computed])

    def trim(self, sequence: Sequence) -> None:
        """Give back pages that were taken for draft tokens and are not needed yet."""
        n_needed = -(-len(sequence.ids) // self.pages.page_size)
        self.pages.release(sequence.pages[n_needed:])
        del sequence.pages[n_needed:]

    def preempt(self, sequence: Sequence) -> None:
        """Take a running sequence's pages; it waits, first in line, to be computed again."""
        self.running.remove(sequence)
        sequence.free(self.pages)
        self._queue(sequence).appendleft(sequence)

    def _queue(self, sequence: Sequence) -> deque[Sequence]:
        return self.waiting_scored if sequence.is_scored else self.waiting

    def _next_waiting(self, chosen: Chosen, scored: bool) -> Sequence | None:
        """The answer, or where none waits the scored prompt, that may come to run if there is room in this pass."""
        if not self._budget(chosen):
            return None
        first = next((each for each in self.waiting if not each.held), None)
        if not scored:
            n_answers = sum(not sequence.is_scored for sequence in self.running)
            return first if n_answers < self.max_running else None
        has_place = len(self.running) < self.max_running and self._scoring_room(chosen) > 0 < self._rows_left(chosen)
        return next(iter(self.waiting_scored), None) if has_place and first is None else None

    def _admit(self, sequence: Sequence) -> bool:
        """Move a waiting sequence to the running ones, if its prompt has room."""
        if sequence.must_wait:
            return False
        sequence.match_prefix(self.pages)
        missing = len(sequence.ids) // self.pages.page_size + 1 - len(sequence.pages)
        if sequence.n_cached is None:
            sequence.n_cached = sequence.computed
        if self.running and missing > self.pages.n_available:
            sequence.free(self.pages)
            return False
        if sequence.is_scored:
            self._copy_beginning(sequence)
        self._queue(sequence).remove(sequence)
        self.running.append(sequence)
        return True

    def _copy_beginning(self, sequence: Sequence) -> None:
        """Take over what a page that is not full holds of a scored prompt."""
        if self._copy_page is None or not self.pages.share:
            return
        page, n_ids = self.pages.match_part(sequence.ids[sequence.computed : sequence.first_row], sequence.content)
        if page is None:
            return
        own = self.pages.take(compact=True)
        if own is not None:
            self._copy_page(page, own)
            sequence.pages.append(own)
            sequence.computed += n_ids
        self.pages.release([page])

    def _budget(self, chosen: Chosen) -> int:
        return self.max_batch_tokens - sum(chosen.values())

    def _scoring_room(self, chosen: Chosen) -> int:
        """Ids that may still be scored in this pass."""
        return (self.max_beside if self.is_writing else self.max_batch_tokens) - n_scored(chosen)

    def _rows_left(self, chosen: Chosen) -> int:
        """Rows of logits that scored prompts may still get from this pass."""
        return self._max_rows - sum(
            n_rows(sequence, size)
            for sequence, size in chosen.items()
            if sequence.request.wants in ("logprobs", "logits")
        )

    def _plan(self, sequence: Sequence, chosen: Chosen) -> None:
        """Choose a span of the sequence within the budget, and find pages for it."""
        sequence.computed = min(sequence.computed, sequence.first_row)  # less only after an interrupted step
        size = min(len(sequence.ids) - sequence.computed, self._budget(chosen))
        if sequence.is_scored:
            size = min(size, self._scoring_room(chosen))
            if sequence.request.kind == "logits":
                size = min(size, max(0, sequence.first_row - sequence.computed) + self._rows_left(chosen))
        while not self.pages.grow(sequence.pages, sequence.computed + size, compact=sequence.is_scored):
            victim = next((other for other in reversed(self.running) if other.is_scored), self.running[-1])
            self.preempt(victim)
            chosen.pop(victim, None)
            if victim is sequence:
                return
        if size > 0:
            chosen[sequence] = size

    def _place_drafts(self, sequence: Sequence, size: int) -> None:
        """Find pages for the draft tokens that are to be verified; where there are none, fewer are."""
        end = sequence.computed + size
        if not self.pages.grow(sequence.pages, end + sequence.n_draft):
            sequence.n_draft = len(sequence.pages) * self.pages.page_size - end


def n_scored(chosen: Chosen) -> int:
    """Ids of a pass that are only scored."""
    return sum(size for sequence, size in chosen.items() if sequence.is_scored)


def n_rows(sequence: Sequence, size: int) -> int:
    """Rows that are wanted of a sequence's next `size` ids."""
    end = sequence.computed + size
    if sequence.is_scored:
        end = min(end, sequence.request.rows.stop)
    return max(0, end - max(sequence.first_row, sequence.computed))


def span_of(sequence: Sequence, size: int) -> Span:
    """A sequence's next `size` ids and the draft tokens after them, with the rows that are wanted of these."""
    ids = tuple(sequence.ids[sequence.computed : sequence.computed + size])
    wanted = range(size - n_rows(sequence, size), size)
    if sequence.n_draft:
        ids += tuple(token.id for token in sequence.draft_tokens[: sequence.n_draft])
        wanted = range(len(ids))
    return Span(ids, sequence.computed, tuple(sequence.pages), wanted, sequence.request.kind, sequence.n_prompt)


class Pace:
    """Counts the seconds of passes; `room` says how many ids may be read in the next one.

    Only how fast things come depends on it, never what.
    """

    def __init__(self, most: int) -> None:
        self._most, self._room, self._usual = most, float(FIRST), 0.0
        self._n_beside = self._n_waited = 0  # passes since one without reading; tries to get one

    def room(self) -> int:
        """Ids that may be read in a pass beside answers; 0: this pass is to be measured without."""
        if (self._n_beside >= LOOK_AGAIN or not self._usual) and self._n_waited < MOST_WAITED:
            self._n_waited += 1
            return 0
        return min(self._most, int(self._room))

    def note(self, seconds: float, n_read: int) -> None:
        """A pass with answers has taken so long, with so many ids read beside."""
        if not n_read:
            self._usual = seconds if not self._usual else 0.7 * self._usual + 0.3 * seconds
            self._n_beside = self._n_waited = 0
            return
        self._n_beside += 1
        if not self._usual:
            return
        change = (AIM * self._usual) / seconds
        self._room = max(LEAST, min(self._most, self._room * max(0.5, min(change, 1.25))))
