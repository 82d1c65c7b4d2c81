"""Which requests run in the next forward pass, and on which pages.

Every running sequence that only needs its next token goes first, then prompts of answers, then prompts that are only
scored; prompts are read in chunks, oldest first. When the pool is full a scored prompt, else the youngest answer, is
preempted and starts again later. Draft tokens take budget and pages that nobody else wants, and preempt nobody. Prompts
are scored beside answers little at a time, so that these keep their pace.

Scored prompts are computed as a tree: what several begin with is computed by the first of them, to the id.
"""

from __future__ import annotations

import heapq
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
MOST_PUT_OFF = 64  # passes in which nothing was scored, after which no answer begins before something is


class Scheduler:
    """Waiting and running sequences over one pool of pages.

    Args:
        pages: the pool's book.
        max_batch_tokens: ids in one forward pass.
        max_running: answers that are written at once; budget and rows bound the prompts that are scored.
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
        self.waiting_scored = WaitingScored(pages)
        self.running: list[Sequence] = []  # oldest first
        self._n_put_off = 0  # passes in line in which nothing was scored although something could be

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence. A scored prompt waits for the one that computes what it begins with."""
        if sequence.is_scored:
            self.waiting_scored.add(sequence)
        else:
            self.waiting.append(sequence)

    def drop(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it is, and give its pages back."""
        sequence.done = True
        self.pages.release(sequence.pages)
        sequence.pages = []
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence.is_scored:
            self.waiting_scored.discard(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        self.waiting_scored.go_on(sequence)

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
        could_score = len(self.waiting_scored) or any(sequence.is_scored for sequence in self.running)
        self._n_put_off = self._n_put_off + 1 if could_score and not n_scored(chosen) else 0
        if propose is not None:
            propose(chosen, self._budget(chosen))
            for sequence, size in chosen.items():
                self._place_drafts(sequence, size)
        return list(chosen), Batch(tuple(span_of(sequence, size) for sequence, size in chosen.items()))

    def commit(self, sequence: Sequence, size: int) -> None:
        """Note that `size` more positions are computed, and put pages that became full into the prefix cache."""
        sequence.commit(self.pages, size)
        self.waiting_scored.go_on(sequence)

    def trim(self, sequence: Sequence) -> None:
        """Give back pages that were taken for draft tokens and are not needed yet."""
        n_needed = -(-len(sequence.ids) // self.pages.page_size)
        self.pages.release(sequence.pages[n_needed:])
        del sequence.pages[n_needed:]

    def preempt(self, sequence: Sequence) -> None:
        """Take a running sequence's pages; it waits, first in line, to be computed again."""
        self.running.remove(sequence)
        sequence.free(self.pages)
        if sequence.is_scored:
            self.waiting_scored.push(sequence)
        else:
            self.waiting.appendleft(sequence)

    def _next_waiting(self, chosen: Chosen, scored: bool) -> Sequence | None:
        """The answer, or where none waits the scored prompt, that may come to run if there is room in this pass."""
        if not self._budget(chosen):
            return None
        first = next((each for each in self.waiting if not each.held), None)
        is_due = self._n_put_off >= MOST_PUT_OFF
        if not scored:
            n_answers = sum(not sequence.is_scored for sequence in self.running)
            return first if n_answers < self.max_running and not is_due else None
        has_place = self._scoring_room(chosen) > 0 < self._rows_left(chosen)
        return self.waiting_scored.first if has_place and (first is None or is_due) else None

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
        if sequence.is_scored:
            self.waiting_scored.discard(sequence)
        else:
            self.waiting.remove(sequence)
        self.running.append(sequence)
        return True

    def _copy_beginning(self, sequence: Sequence) -> None:
        """Copy the page of which a scored prompt needs only the beginning."""
        if self._copy_page is None or not self.pages.share:
            return
        page, n_ids = self.pages.match_beginning(sequence.ids[sequence.computed : sequence.first_row], sequence.content)
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


class WaitingScored:
    """Scored prompts that wait, in the order of their numbers, each behind the one that computes what it begins with.

    Where they come in the order of their ids, all that two of them have in common is computed once.
    """

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._waiting: dict[int, Sequence] = {}
        self._ready: list[int] = []  # a heap of numbers; those that wait no more are passed over
        self._path: list[tuple[Sequence, int]] = []  # who computes the last prompt's ids, each from which one on

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def first(self) -> Sequence | None:
        """The first one whose beginning is computed, or is its own to compute."""
        while self._ready and self._ready[0] not in self._waiting:
            heapq.heappop(self._ready)
        return self._waiting[self._ready[0]] if self._ready else None

    def add(self, sequence: Sequence) -> None:
        """A new prompt."""
        leader, n_common = self._leader(sequence) if self._pages.share else (None, 0)
        if leader is None:
            self.push(sequence)
        elif leader.computed < n_common:
            self._waiting[sequence.number] = sequence
            self._follow(leader, sequence, n_common)
        else:
            leader.branches.add(n_common)
            leader.cache_beginnings(self._pages)
            self.push(sequence)

    def push(self, sequence: Sequence) -> None:
        """One that waits for no other."""
        self._waiting[sequence.number] = sequence
        heapq.heappush(self._ready, sequence.number)

    def discard(self, sequence: Sequence) -> None:
        """One that waits no more."""
        self._waiting.pop(sequence.number, None)

    def go_on(self, leader: Sequence) -> None:
        """Let those go on whose beginning is computed now; where it never will be, another of them computes it."""
        if not leader.followers:
            return
        behind = []
        for sequence in leader.followers:
            if sequence.done:
                continue
            if sequence.n_awaited <= leader.computed:
                self.push(sequence)
            else:
                behind.append(sequence)
        leader.followers = [] if leader.done else behind
        if leader.done and behind:
            self.push(behind[0])
            for sequence in behind[1:]:
                self._follow(behind[0], sequence, min(sequence.n_awaited, behind[0].n_awaited))

    def _follow(self, leader: Sequence, sequence: Sequence, n_common: int) -> None:
        sequence.n_awaited = n_common
        leader.branches.add(n_common)
        leader.followers.append(sequence)

    def _leader(self, sequence: Sequence) -> tuple[Sequence | None, int]:
        """Who computes what a new prompt and the last one begin with, and how many ids that are."""
        path = self._path
        n_common = 0
        if path and path[-1][0].root == sequence.root:
            n_common = min(common_prefix(path[-1][0].ids, sequence.ids), sequence.first_row)
        while path and path[-1][1] >= n_common:
            path.pop()
        leader = path[-1][0] if path and not path[-1][0].done else None
        if leader is None:
            path.clear()
        path.append((sequence, n_common if leader is not None else 0))
        return leader, n_common


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
        ids += tuple(sequence.draft_tokens[: sequence.n_draft])
        wanted = range(len(ids))
    request = sequence.request
    pages = tuple(sequence.pages)
    return Span(ids, sequence.computed, pages, wanted, request.kind, sequence.n_prompt, request.adapter)


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
