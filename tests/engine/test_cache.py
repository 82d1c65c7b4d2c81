"""The page book under random use: no page is lost, shared by accident, or found with other content."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from camelid.engine.pages import ROOT, Pages

WIDTH = 2


class Book(RuleBasedStateMachine):
    """Sequences over a tiny alphabet that match, take, cache and release; `written` is what pages really hold."""

    def __init__(self) -> None:
        super().__init__()
        self.pages = Pages(6, WIDTH)
        self.held: list[list[int]] = []
        self.written: dict[int, tuple[tuple[int, ...], ...]] = {}  # page → content of all pages up to it

    @rule(ids=st.lists(st.integers(0, 1), min_size=WIDTH, max_size=8))
    def run(self, ids: list[int]) -> None:
        pages, content = self.pages.match_prefix(ids)
        for index, page in enumerate(pages):
            assert self.written[page] == self.history(ids, index)
        for index in range(len(pages), len(ids) // WIDTH):
            page = self.pages.take()
            if page is None:
                break
            assert page not in [p for held in self.held for p in held]
            pages.append(page)
            self.written[page] = self.history(ids, index)
            content = self.pages.cache_prefix(page, content, ids[index * WIDTH : (index + 1) * WIDTH])
        self.held.append(pages)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.held:
            self.pages.release(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))

    @staticmethod
    def history(ids: list[int], index: int) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(ids[i * WIDTH : (i + 1) * WIDTH]) for i in range(index + 1))

    @invariant()
    def every_page_is_held_or_available(self) -> None:
        held = {page for pages in self.held for page in pages}
        assert len(held) + self.pages.n_available == 6


TestBook = Book.TestCase
TestBook.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_the_longest_unused_page_goes_first():
    book = Pages(2, 1)
    for id in (7, 8):
        page = book.take()
        book.cache_prefix(page, ROOT, [id])
        book.release([page])
    assert book.match_prefix([7])[0]
    book.release(book.match_prefix([7])[0] * 2)
    assert book.take() is not None  # takes the page of 8
    assert book.match_prefix([7])[0]
    assert not book.match_prefix([8])[0]
