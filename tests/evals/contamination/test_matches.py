"""Contaminated tokens, against the rule written out with loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.evals.contamination import matches
from camelid.evals.contamination.matches import FIRST, MAY_DIFFER, contaminated

WORDS = st.lists(st.integers(0, 2), max_size=40)


class Ids:
    """A source in memory."""

    def __init__(self, ids):
        self.ids = np.array(ids, np.uint16)

    def __len__(self):
        return len(self.ids)

    def slice(self, start, stop):
        return self.ids[start:stop]


def by_loops(text, training):
    """As the paper says it."""
    covered = set()
    for begin in range(len(text)):
        for source in training:
            for there in range(len(source)):
                differing = 0
                for step in range(min(len(text) - begin, len(source) - there)):
                    if text[begin + step] == source[there + step]:
                        if step >= FIRST:
                            covered |= set(range(begin, begin + step + 1))
                    else:
                        differing += 1
                        if step < FIRST or differing > MAY_DIFFER:
                            break
    return len(covered), len(text)


@settings(deadline=None, max_examples=60)
@given(st.lists(WORDS, min_size=1, max_size=4), st.lists(WORDS, max_size=2), st.sampled_from([3, 1 << 20]))
def test_it_is_the_rule(texts, training, pairs):
    before = matches._PAIRS
    matches._PAIRS = pairs
    try:
        found = list(contaminated(texts, [Ids(ids) for ids in training]))
    finally:
        matches._PAIRS = before
    assert found == [by_loops(text, training) for text in texts]


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_a_match_may_lie_across_chunks(monkeypatch, chunk):
    monkeypatch.setattr(matches, "_CHUNK", chunk)
    draw = np.random.default_rng(chunk)
    source = draw.integers(0, 3, 200).tolist()
    texts = [source[40:75], [*source[100:112], 9, *source[113:130]], source[195:], [5] * 20]
    found = list(contaminated(texts, [Ids(source)]))
    assert found == [by_loops(text, [source]) for text in texts]
    assert [found[0], found[1], found[3]] == [(35, 35), (30, 30), (0, 20)]


def by_hand(differing, last=True):
    """A text of thirty that differs at some places, and at its end."""
    text = list(range(30))
    for place in differing:
        text[place] = 99
    return next(contaminated([text if last else [*text, 98]], [Ids([7, 7, *range(30), 7])]))


def test_worked_examples():
    assert by_hand([]) == (30, 30)
    assert by_hand([], last=False) == (30, 31)  # what differs at the end belongs to no match
    assert by_hand([12, 14, 16, 18]) == (30, 30)  # four may differ
    assert by_hand([11, 12, 14, 16, 18]) == (29, 30)  # to 17; the eleven from 19 on are another match
    assert by_hand([9]) == (20, 30)  # none in the first ten; from 10 on there are twenty
    assert by_hand(range(10, 30)) == (0, 30)  # ten are too few
    assert by_hand(range(11, 30)) == (11, 30)


def test_nothing_at_all():
    assert list(contaminated([], [Ids([1] * 50)])) == []
    assert list(contaminated([[]], [Ids([1] * 50)])) == [(0, 0)]
    assert list(contaminated([[1] * 5], [Ids([1] * 50)])) == [(0, 5)]
    assert list(contaminated([[1] * 20], [])) == [(0, 20)]
    assert list(contaminated([[1] * 20], [Ids([1] * 5)])) == [(0, 20)]
