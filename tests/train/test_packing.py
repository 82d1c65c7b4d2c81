"""Packing: nothing is cut, nothing is lost, and each example keeps to itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camelid.data.batches import IGNORED
from camelid.data.chats.examples import Example
from camelid.errors import OptionError
from camelid.train.packing import pack, pieces

LENGTHS = st.lists(st.integers(1, 16), min_size=1, max_size=30)


def examples(lengths, seed=0):
    draw = np.random.default_rng(seed)
    return [Example(draw.integers(1, 99, n), draw.random(n) < 0.5) for n in lengths]


@given(LENGTHS, st.integers(0, 9))
def test_each_example_stands_whole_in_one_row(lengths, seed):
    given = examples(lengths, seed)
    packed = pack(given, 16)
    for number, example in enumerate(given):
        rows, columns = np.nonzero(packed.owners == number)
        assert len(set(rows)) == 1
        assert list(columns) == list(range(columns[0], columns[0] + len(example.ids)))
        assert (packed.ids[rows, columns] == example.ids).all()
        assert (packed.positions[rows, columns] == np.arange(len(example.ids))).all()
        wanted = np.append(np.where(example.learned[1:], example.ids[1:], IGNORED), IGNORED)
        assert (packed.targets[rows, columns] == wanted).all()
        assert packed.lasts[number] == rows[0] * 16 + columns[-1]
    filling = packed.owners == -1
    assert filling.sum() == packed.ids.size - sum(lengths)
    assert (packed.targets[filling] == IGNORED).all()


@given(LENGTHS)
def test_filling_sees_no_example(lengths):
    """Attention takes a document to begin where a position is 0."""
    packed = pack(examples(lengths), 16)
    begins = np.arange(16) - packed.positions
    for row, column in zip(*np.nonzero(packed.owners == -1), strict=True):
        assert packed.owners[row, begins[row, column]] == -1


@given(st.lists(st.lists(st.integers(1, 16), min_size=1, max_size=3), max_size=12), st.integers(3, 6))
def test_pieces_take_every_group_once_and_fit(groups, rows):
    given = [examples(lengths) for lengths in groups]
    found = list(pieces(given, 16, rows))
    assert [number for piece in found for number in piece] == list(range(len(groups)))
    for piece in found:
        assert len(pack([example for number in piece for example in given[number]], 16).ids) <= rows


def test_what_does_not_fit_is_refused():
    with pytest.raises(OptionError, match="context: an example has 17 tokens"):
        pack(examples([17]), 16)
    with pytest.raises(OptionError, match="micro_rows: a group of 3 answers"):
        list(pieces([examples([16, 16, 16])], 16, 2))
