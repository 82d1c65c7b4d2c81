"""Which requests run in the next forward pass, and on which pages.

Every running sequence that only needs its next token goes first; what is left of the step's budget goes to prompts,
in chunks, oldest first. When the pool is full the youngest sequence gives its pages back and starts again later.
Guesses at the tokens to come take budget and pages that nobody else wants, and push nobody out. Requests that only read
(`readers.py`) are read beside answers, little at a time, so that these keep their pace.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from camelid.engine.batch import Batch, Span
from camelid.engine.cache import ROOT, Pages
from camelid.engine.request import Constraint, Request
from camelid.engine.speculate import Guess, Lookup
from camelid.model.config import ModelConfig
from camelid.model.rope import scaled_length


@dataclass(eq=False)
class Sequence:
    """One sample of a request on its way.

    Attributes:
        ids: prompt and what was written so far.
        computed: positions whose keys and values lie in `pages`.
        n_cached: ids found in pages when it first came to run; not its own, found after a push-out.
        root: what stands before its first page; texts with different roots share no pages.
        content: number of the last published page's content.
        n_published: full pages made findable so far.
        waits_for: another sample that reads the prompt for both; the pages are shared when it has.
        guesses: ids that may come next, proposed for the next pass.
        n_ahead: so many of them are read in that pass, so that they can be checked.
        lookup: finds guesses in what was read and written, once it was needed.
        held: an id is chosen, and what follows from it is not known yet: the sequence sits out.
    """

    number: int
    request: Request
    sample: int
    seed: int
    limit: int  # ids that prompt and answer may have together
    constraint: Constraint | None
    ids: list[int]
    root: int = ROOT
    pages: list[int] = field(default_factory=list)
    computed: int = 0
    n_cached: int | None = None
    content: int = ROOT
    n_published: int = 0
    waits_for: Sequence | None = None
    done: bool = False
    guesses: list[Guess] = field(default_factory=list)
    n_ahead: int = 0
    lookup: Lookup | None = None
    held: bool = False

    @property
    def output(self) -> list[int]:
        """What was written so far."""
        return self.ids[len(self.request.ids) :]

    @property
    def first_row(self) -> int:
        """The first place whose row is still wanted: what lies before may be found in pages."""
        reader = self.request.reader
        return len(self.ids) - 1 if reader is None else reader.first + reader.taken

    @property
    def is_writing(self) -> bool:
        """Whether it has come to write its answer."""
        return self.request.reader is None and (self.held or len(self.ids) - self.computed <= 1)


Chosen = dict[Sequence, int]  # sequence → ids of it in a pass
Propose = Callable[[Chosen, int], None]  # sets guesses of the chosen, of which so many can be read


class Scheduler:
    """Waiting and running sequences over one pool of pages.

    Args:
        pages: the pool's book.
        max_batch_tokens: ids in one forward pass.
        max_running: sequences that run at once.
        max_rows: rows of logits that readers get from one pass.

    Attributes:
        max_beside: ids that are read in a pass by those who only read, while others write.
    """

    def __init__(self, pages: Pages, max_batch_tokens: int, max_running: int, max_rows: int | None = None) -> None:
        self.pages, self.max_batch_tokens, self.max_running = pages, max_batch_tokens, max_running
        self.max_beside = max_batch_tokens
        self._max_rows = max_batch_tokens if max_rows is None else max_rows
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # oldest first

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence."""
        self.waiting.append(sequence)

    def drop(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it is, and give its pages back."""
        sequence.done = True
        self.pages.release(sequence.pages)
        sequence.pages = []
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    @property
    def is_writing(self) -> bool:
        """Whether some sequence writes its answer."""
        return any(sequence.is_writing for sequence in self.running)

    def next_batch(self, propose: Propose | None = None) -> tuple[list[Sequence], Batch]:
        """The sequences of the next forward pass and their spans, with pages for every position."""
        chosen: Chosen = {}
        for sequence in sorted(self.running, key=lambda one: len(one.ids) - one.computed > 1):
            if sequence in self.running and not sequence.held:  # an earlier one may have pushed it out
                self._plan(sequence, chosen)
        while self._budget(chosen) and len(self.running) < self.max_running:
            first = next((one for one in self.waiting if not one.held), None)
            if first is None or not self._admit(first):
                break
            self._plan(first, chosen)
        if propose is not None:
            propose(chosen, self._budget(chosen))
            for sequence, size in chosen.items():
                self._place_guesses(sequence, size)
        spans = [self._span(sequence, size) for sequence, size in chosen.items()]
        return list(chosen), Batch(tuple(spans))

    def commit(self, sequence: Sequence, size: int) -> None:
        """Note that `size` more positions are computed, and make pages that became full findable."""
        commit(self.pages, sequence, size)

    def trim(self, sequence: Sequence) -> None:
        """Give back pages that were taken for guesses and are not needed yet."""
        n_needed = -(-len(sequence.ids) // self.pages.page_size)
        self.pages.release(sequence.pages[n_needed:])
        del sequence.pages[n_needed:]

    def _admit(self, sequence: Sequence) -> bool:
        """Move a waiting sequence to the running ones, if its prompt has room."""
        leader = sequence.waits_for
        if leader is not None and not leader.done and leader.computed < len(leader.request.ids):
            return False
        find_beginning(self.pages, sequence)
        if sequence.n_cached is None:
            sequence.n_cached = sequence.computed
        missing = len(sequence.ids) // self.pages.page_size + 1 - len(sequence.pages)
        if self.running and missing > self.pages.n_available:
            give_back(self.pages, sequence)
            return False
        self.waiting.remove(sequence)
        self.running.append(sequence)
        return True

    def _budget(self, chosen: Chosen) -> int:
        return self.max_batch_tokens - sum(chosen.values())

    def _reading_room(self, chosen: Chosen, few: bool) -> int:
        """Ids that readers may still have in this pass; `few`: no logits come of them, or one row."""
        room = self.max_beside if self.is_writing else self.max_batch_tokens
        return (room if few else min(room, self._max_rows)) - n_read(chosen)

    def _plan(self, sequence: Sequence, chosen: Chosen) -> None:
        """Choose a span of the sequence within the budget, and find pages for it."""
        sequence.computed = min(sequence.computed, len(sequence.ids) - 1)  # less only after an interrupted step
        size = min(len(sequence.ids) - sequence.computed, self._budget(chosen))
        if sequence.request.reader is not None:
            few = sequence.computed < sequence.first_row  # of these no row is wanted, or the last one alone
            if few and sequence.first_row < len(sequence.ids) - 1:
                size = min(size, sequence.first_row - sequence.computed)
            size = min(size, self._reading_room(chosen, few or sequence.request.reader.hidden))
        while len(sequence.pages) * self.pages.page_size < sequence.computed + size:
            page = self.pages.take(sequence.pages[-1] if sequence.pages else None)
            if page is not None:
                sequence.pages.append(page)
                continue
            victim = self.running[-1]
            self._preempt(victim)
            chosen.pop(victim, None)
            if victim is sequence:
                return
        if size > 0:
            chosen[sequence] = size

    def _place_guesses(self, sequence: Sequence, size: int) -> None:
        """Find pages for the guesses that are to be read; where there are none, fewer are."""
        end = sequence.computed + size
        while len(sequence.pages) * self.pages.page_size < end + sequence.n_ahead:
            page = self.pages.take(sequence.pages[-1])
            if page is None:
                sequence.n_ahead = len(sequence.pages) * self.pages.page_size - end
                return
            sequence.pages.append(page)

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        give_back(self.pages, sequence)
        self.waiting.appendleft(sequence)

    def _span(self, sequence: Sequence, size: int) -> Span:
        end, reader = sequence.computed + size, sequence.request.reader
        ids = tuple(sequence.ids[sequence.computed : end])
        wanted = range(max(sequence.first_row, sequence.computed) - sequence.computed, size)
        if sequence.n_ahead:
            ids += tuple(guess.id for guess in sequence.guesses[: sequence.n_ahead])
            wanted = range(len(ids))
        return Span(
            ids=ids,
            start=sequence.computed,
            pages=tuple(sequence.pages),
            wanted=wanted,
            kind="hidden" if reader is not None and reader.hidden else "logits",
            n_prompt=len(sequence.request.ids),
        )


def root_of(config: ModelConfig, n_prompt: int) -> int:
    """The root of texts that begin with a prompt of so many ids; see `model.rope.rope_table`."""
    return ROOT - scaled_length(config, n_prompt)


def n_read(chosen: Chosen) -> int:
    """Ids of a pass that are only read."""
    return sum(size for sequence, size in chosen.items() if sequence.request.reader is not None)


def find_beginning(pages: Pages, sequence: Sequence) -> None:
    """Hold pages that were computed before and begin as the sequence does."""
    sequence.content = sequence.root
    if pages.share:
        sequence.pages, sequence.content = pages.match(sequence.ids[: sequence.first_row], sequence.root)
    sequence.n_published = len(sequence.pages)
    sequence.computed = len(sequence.pages) * pages.page_size


def commit(pages: Pages, sequence: Sequence, size: int) -> None:
    """Note that `size` more positions are computed, and make pages that became full findable."""
    sequence.computed += size
    width = pages.page_size
    while (sequence.n_published + 1) * width <= sequence.computed:
        start = sequence.n_published * width
        page = sequence.pages[sequence.n_published]
        sequence.content = pages.publish(page, sequence.content, sequence.ids[start : start + width])
        sequence.n_published += 1


def give_back(pages: Pages, sequence: Sequence) -> None:
    """Let go of all pages; what they hold is to be computed again."""
    pages.release(sequence.pages)
    sequence.pages, sequence.computed, sequence.content, sequence.n_published = [], 0, sequence.root, 0
