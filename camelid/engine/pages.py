"""Pages of keys and values: who holds which, and which are shared because their beginning is the same.

A page holds the keys and values of `page_size` positions. A page that is full and computed goes into the prefix cache
under its content: the page before it, and its ids. A later request with the same beginning finds it and does not
compute it again. Pages that nobody holds stay in the cache until room is needed; those unused for longest go first.

A sequence is given pages that lie in line where it can be: then a backend may read them as one array.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

Key = tuple[int, tuple[int, ...]]  # which cached content stands before, and the ids of this page
ROOT = 0  # the content before the first page
EVICTED_SHARE = 16  # of the pool: so much of it loses its old content at once when room is needed


class Pages:
    """The book of a pool of pages; the numbers themselves lie with the backend.

    Args:
        n_pages: size of the pool.
        page_size: positions in a page.
        share: keep full pages in the prefix cache, for others to find.
    """

    def __init__(self, n_pages: int, page_size: int, share: bool = True) -> None:
        self.n_pages, self.page_size, self.share = n_pages, page_size, share
        self._is_free = np.ones(n_pages, np.bool_)
        self._n_free = n_pages
        self._ref_count = [0] * n_pages
        self._cached: dict[Key, int] = {}
        self._content: dict[int, tuple[Key, int]] = {}  # page → its key, and the number of its content
        self._beginnings: dict[int, list[Key]] = {}  # page → keys of what it begins with, for others to copy
        self._idle: OrderedDict[int, None] = OrderedDict()  # cached pages that nobody holds, longest unused first
        self._n_contents = ROOT

    @property
    def n_available(self) -> int:
        """Pages that `take` can still give."""
        return self._n_free + len(self._idle)

    def take(self, after: int | None = None, compact: bool = False) -> int | None:
        """An empty page with one holder, if possible the one behind `after`; None when all are held.

        Args:
            compact: take the first free one, which was used before if any was, rather than one with room to grow.
        """
        if not self._n_free:
            self._evict()
        if not self._n_free:
            return None
        if after is not None and self._is_free[after + 1 : after + 2].any():
            page = after + 1
        else:
            page = int(self._is_free.argmax()) if compact else self._place()
        self._is_free[page] = False
        self._n_free -= 1
        self._ref_count[page] = 1
        return page

    def grow(self, pages: list[int], n_tokens: int, compact: bool = False) -> bool:
        """Add pages, in line where it can be, until there is room for `n_tokens` positions; False: none is left."""
        while len(pages) * self.page_size < n_tokens:
            page = self.take(pages[-1] if pages else None, compact)
            if page is None:
                return False
            pages.append(page)
        return True

    def hold(self, page: int) -> None:
        """Add a holder to a page."""
        self._ref_count[page] += 1
        self._idle.pop(page, None)

    def release(self, pages: Sequence[int]) -> None:
        """Take one holder from each page. Later pages leave the cache first, since they need those before."""
        for page in reversed(pages):
            self._ref_count[page] -= 1
            assert self._ref_count[page] >= 0, f"page {page} was released more often than held"
            if self._ref_count[page] == 0:
                if page in self._content or page in self._beginnings:
                    self._idle[page] = None
                else:
                    self._set_free(page)

    def match_prefix(self, ids: Sequence[int], root: int = ROOT) -> tuple[list[int], int]:
        """Pages with the beginning of `ids`, held for the caller, and the number of the last one's content.

        Texts whose keys cannot be those of others although their ids are the same have a `root` of their own, below 0.
        """
        pages: list[int] = []
        content = root
        for start in range(0, len(ids) - self.page_size + 1, self.page_size):
            page = self._cached.get((content, tuple(ids[start : start + self.page_size])))
            if page is None:
                break
            self.hold(page)
            pages.append(page)
            content = self._content[page][1]
        return pages, content

    def cache_prefix(self, page: int, before: int, ids: Sequence[int]) -> int:
        """Put a computed page into the prefix cache; returns the number of its content. Nothing is written to it then.

        If the same content is there already, that one stays and its number is returned.
        """
        if not self.share:
            return ROOT
        key = (before, tuple(ids))
        known = self._cached.get(key)
        if known is not None:
            return self._content[known][1]
        self._n_contents += 1
        self._cached[key] = page
        self._content[page] = (key, self._n_contents)
        return self._n_contents

    def cache_beginning(self, page: int, before: int, ids: Sequence[int]) -> None:
        """Let others copy what a page begins with; after these ids something else may follow in it."""
        key = (before, tuple(ids))
        if self.share and key not in self._cached:
            self._cached[key] = page
            self._beginnings.setdefault(page, []).append(key)

    def match_beginning(self, ids: Sequence[int], content: int) -> tuple[int | None, int]:
        """A page after `content` that begins as `ids`, held for the caller, and how many of these it begins with."""
        for n_ids in range(min(len(ids), self.page_size - 1), 0, -1):
            page = self._cached.get((content, tuple(ids[:n_ids])))
            if page is not None:
                self.hold(page)
                return page, n_ids
        return None, 0

    def clear(self) -> None:
        """Empty the prefix cache: nothing that was computed so far is found again, since the weights have changed."""
        for page in self._idle:
            self._set_free(page)
        self._idle.clear()
        self._cached.clear()
        self._content.clear()
        self._beginnings.clear()

    def is_shared(self, page: int) -> bool:
        """Whether more than one holds the page."""
        return self._ref_count[page] > 1

    def _evict(self) -> None:
        """Empty idle pages, several at a time, so that there is a choice of places."""
        for _ in range(min(len(self._idle), max(1, self.n_pages // EVICTED_SHARE))):
            page, _ = self._idle.popitem(last=False)
            self._forget(page)
            self._set_free(page)

    def _place(self) -> int:
        """Where a sequence can grow: in the longest free run, at its middle if a neighbour may grow into its start."""
        edges = np.flatnonzero(np.diff(self._is_free, prepend=False, append=False))
        starts, ends = edges[::2], edges[1::2]
        longest = int(np.argmax(ends - starts))
        start, end = int(starts[longest]), int(ends[longest])
        return (start + end) // 2 if start and self._ref_count[start - 1] else start

    def _set_free(self, page: int) -> None:
        self._is_free[page] = True
        self._n_free += 1

    def _forget(self, page: int) -> None:
        keys = self._beginnings.pop(page, [])
        if page in self._content:
            keys = [*keys, self._content.pop(page)[0]]
        for key in keys:
            del self._cached[key]
