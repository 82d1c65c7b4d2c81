"""Pages of keys and values: who holds which, and which are shared because their beginning is the same.

A page holds the keys and values of `page_size` positions. A page that is full and computed is published under its
content: the page before it, and its ids. A later request with the same beginning finds it and does not compute it
again. Pages that nobody holds stay findable until room is needed; those unused for longest go first.

A sequence is given pages that lie in line where it can be: then a backend may read them as one array.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

Key = tuple[int, tuple[int, ...]]  # which published content stands before, and the ids of this page
ROOT = 0  # the content before the first page
EVICTED_SHARE = 16  # of the pool: so much of it loses its old content at once when room is needed


class Pages:
    """The book of a pool of pages; the numbers themselves lie with the backend.

    Args:
        n_pages: size of the pool.
        page_size: positions in a page.
        share: publish full pages for others to find.
    """

    def __init__(self, n_pages: int, page_size: int, share: bool = True) -> None:
        self.n_pages, self.page_size, self.share = n_pages, page_size, share
        self._is_free = np.ones(n_pages, np.bool_)
        self._n_free = n_pages
        self._holders = [0] * n_pages
        self._published: dict[Key, int] = {}
        self._content: dict[int, tuple[Key, int]] = {}  # page → its key, and the number of its content
        self._idle: OrderedDict[int, None] = OrderedDict()  # published pages that nobody holds, longest unused first
        self._n_contents = ROOT

    @property
    def n_available(self) -> int:
        """Pages that `take` can still give."""
        return self._n_free + len(self._idle)

    def take(self, after: int | None = None) -> int | None:
        """An empty page with one holder, if possible the one behind `after`; None when all are held."""
        if not self._n_free:
            self._evict()
        if not self._n_free:
            return None
        page = self._place() if after is None or not self._is_free[after + 1 : after + 2].any() else after + 1
        self._is_free[page] = False
        self._n_free -= 1
        self._holders[page] = 1
        return page

    def hold(self, page: int) -> None:
        """Add a holder to a page."""
        self._holders[page] += 1
        self._idle.pop(page, None)

    def release(self, pages: Sequence[int]) -> None:
        """Take one holder from each page. Later pages become unfindable first, since they need those before."""
        for page in reversed(pages):
            self._holders[page] -= 1
            assert self._holders[page] >= 0, f"page {page} was released more often than held"
            if self._holders[page] == 0:
                if page in self._content:
                    self._idle[page] = None
                else:
                    self._set_free(page)

    def match(self, ids: Sequence[int], root: int = ROOT) -> tuple[list[int], int]:
        """Pages with the beginning of `ids`, held for the caller, and the number of the last one's content.

        Texts whose keys cannot be those of others although their ids are the same have a `root` of their own, below 0.
        """
        pages: list[int] = []
        content = root
        for start in range(0, len(ids) - self.page_size + 1, self.page_size):
            page = self._published.get((content, tuple(ids[start : start + self.page_size])))
            if page is None:
                break
            self.hold(page)
            pages.append(page)
            content = self._content[page][1]
        return pages, content

    def publish(self, page: int, before: int, ids: Sequence[int]) -> int:
        """Make a full, computed page findable; returns the number of its content.

        If the same content is published already, that one stays the findable one and its number is returned.
        """
        if not self.share:
            return ROOT
        key = (before, tuple(ids))
        known = self._published.get(key)
        if known is not None:
            return self._content[known][1]
        self._n_contents += 1
        self._published[key] = page
        self._content[page] = (key, self._n_contents)
        return self._n_contents

    def is_shared(self, page: int) -> bool:
        """Whether more than one holds the page."""
        return self._holders[page] > 1

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
        return (start + end) // 2 if start and self._holders[start - 1] else start

    def _set_free(self, page: int) -> None:
        self._is_free[page] = True
        self._n_free += 1

    def _forget(self, page: int) -> None:
        key, _ = self._content.pop(page)
        del self._published[key]
