"""A text on its way through the engine: its ids, and which of them are computed on which pages."""

from __future__ import annotations

from collections.abc import Sequence as Ids
from dataclasses import dataclass, field

from camelid.engine.pages import ROOT, Pages
from camelid.engine.request import Request
from camelid.model.config import ModelConfig
from camelid.model.rope import scaled_length

_LONGEST = 2**40  # ids of any prompt


@dataclass(eq=False)
class Sequence:
    """One sample of a request, as the scheduler sees it.

    Attributes:
        ids: prompt and what was written so far; of a scored prompt, those up to its last wanted row.
        root: what stands before its first page; texts with different roots share no pages.
        computed: positions whose keys and values lie in `pages`.
        n_cached: ids found in pages when it first came to run; not its own, found after a preemption.
        content: number of the content of its last page in the prefix cache.
        n_prefix_pages: full pages that are in the prefix cache so far.
        waits_for: another sequence that computes the beginning of this one; its first `n_awaited` positions.
        followers: scored prompts that wait for this one.
        branches: numbers of ids with which others begin as this one does, and go on otherwise.
        n_rows: wanted rows that were taken so far, of a scored prompt.
        draft_tokens: ids that may come next, proposed for the next pass; the first `n_draft` are verified in it.
        held: an id is chosen, and what follows from it is not known yet: the sequence sits out.
    """

    number: int
    request: Request
    sample: int
    ids: list[int]
    root: int = ROOT
    pages: list[int] = field(default_factory=list)
    computed: int = 0
    n_cached: int | None = None
    content: int = ROOT
    n_prefix_pages: int = 0
    waits_for: Sequence | None = None
    n_awaited: int = 0
    followers: list[Sequence] = field(default_factory=list)
    branches: set[int] = field(default_factory=set)
    n_rows: int = 0
    draft_tokens: list[int] = field(default_factory=list)
    n_draft: int = 0
    held: bool = False
    done: bool = False

    @property
    def n_prompt(self) -> int:
        """Ids of the prompt."""
        return len(self.request.ids)

    @property
    def output(self) -> list[int]:
        """What was written so far."""
        return self.ids[self.n_prompt :]

    @property
    def is_scored(self) -> bool:
        """Whether its prompt is only read."""
        return self.request.wants != "tokens"

    @property
    def first_row(self) -> int:
        """The first place whose row is still wanted: what lies before may be found in pages."""
        return self.request.rows.start + self.n_rows if self.is_scored else len(self.ids) - 1

    @property
    def is_writing(self) -> bool:
        """Whether it has come to write its answer."""
        return not self.is_scored and (self.held or len(self.ids) - self.computed <= 1)

    @property
    def must_wait(self) -> bool:
        """Whether another sequence is about to compute what this one begins with."""
        leader = self.waits_for
        return leader is not None and not leader.done and leader.computed < self.n_awaited

    def match_prefix(self, pages: Pages) -> None:
        """Hold pages that were computed before and begin as this text does."""
        self.content = self.root
        if pages.share:
            self.pages, self.content = pages.match_prefix(self.ids[: self.first_row], self.root)
        self.n_prefix_pages = len(self.pages)
        self.computed = len(self.pages) * pages.page_size

    def commit(self, pages: Pages, size: int) -> None:
        """Note that `size` more positions are computed, and put pages that became full into the prefix cache."""
        self.computed += size
        width = pages.page_size
        while (self.n_prefix_pages + 1) * width <= self.computed:
            self.cache_beginnings(pages)
            start = self.n_prefix_pages * width
            page = self.pages[self.n_prefix_pages]
            self.content = pages.cache_prefix(page, self.content, self.ids[start : start + width])
            self.n_prefix_pages += 1
        self.cache_beginnings(pages)

    def cache_beginnings(self, pages: Pages) -> None:
        """Let those copy the page behind the full ones that branch off in it."""
        start = self.n_prefix_pages * pages.page_size
        for end in self.branches:
            if start < end <= min(self.computed, start + pages.page_size - 1):
                pages.cache_beginning(self.pages[self.n_prefix_pages], self.content, self.ids[start:end])

    def free(self, pages: Pages) -> None:
        """Let go of all pages; what they hold is to be computed again."""
        pages.release(self.pages)
        self.pages, self.computed, self.content, self.n_prefix_pages = [], 0, self.root, 0


def root_of(config: ModelConfig, n_prompt: int, adapter: int = 0) -> int:
    """The root of texts that begin with a prompt of so many ids (see `model.rope.rope_table`), read with an adapter:
    keys and values of the same ids differ by both."""
    return ROOT - scaled_length(config, n_prompt) - adapter * _LONGEST


def common_prefix(first: Ids[int], second: Ids[int]) -> int:
    """How many ids two texts begin with in common."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
