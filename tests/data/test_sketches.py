"""Counts with a bound on their error: against Counter and sets, in any cut."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.data.report.sketches import Histogram, HyperLogLog, MisraGries, Tally
from camelid.data.sorting import stable_order
from camelid.data.word_hashes import mix

PARTS = st.lists(st.lists(st.integers(0, 30), max_size=80), min_size=1, max_size=6)


@settings(max_examples=100, deadline=None)
@given(parts=PARTS, capacity=st.integers(1, 40))
def test_counts_lack_at_most_the_error(parts, capacity):
    whole, place = MisraGries(capacity), 0
    for some in parts:
        part = MisraGries(capacity)
        for half in np.array_split(np.array(some, np.uint64), 2):
            part.add(half, np.arange(place, place + len(half)))
            place += len(half)
        whole.merge(part)
    true = Counter(key for some in parts for key in some)
    found = {key: count for key, count, _ in whole.most(100)}
    assert whole.total == true.total()
    assert whole.error <= whole.total / (capacity + 1)
    assert len(found) <= capacity
    for key, count in true.items():
        assert count - whole.error <= found.get(key, 0) <= count
    if capacity >= len(true):
        assert whole.error == 0
        flat = [key for some in parts for key in some]
        assert {key: flat.index(key) for key in true} == {key: place for key, _, place in whole.most(100)}


@pytest.mark.parametrize("n", [0, 1, 50, 3000, 200_000, 3_000_000])
def test_how_many_are_different_within_three_per_cent(n):
    """0.8 % is one standard deviation; 3 % are nearly four."""
    one, other = HyperLogLog(), HyperLogLog()
    hashes = mix(np.arange(n, dtype=np.uint64))
    one.add(hashes[: n // 2])
    other.add(hashes[n // 3 :])
    other.add(hashes[n // 2 :])
    one.merge(other)
    assert abs(one.estimate() - n) <= 0.03 * n + 1


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(st.lists(st.integers(0, 25), max_size=60), max_size=4), capacity=st.integers(1, 30))
def test_names_lack_at_most_the_error(parts, capacity):
    whole = Tally(capacity)
    for some in parts:
        part = Tally(capacity)
        for name in some:
            part.add(str(name), 10)
        whole.merge(part)
    true = Counter(str(name) for some in parts for name in some)
    found = {name: documents for name, documents, _ in whole.most(100)}
    for name, count in true.items():
        assert count - whole.error <= found.get(name, 0) <= count
    if capacity >= len(true):
        assert found == true
        assert whole.most(100) == sorted(
            ((name, count, 10 * count) for name, count in true.items()), key=lambda row: (-row[1], row[0])
        )


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(st.lists(st.integers(0, 10**6), max_size=20), max_size=4))
def test_sizes_are_binned_by_powers_of_two(parts):
    whole = Histogram()
    for some in parts:
        part = Histogram()
        for size in some:
            part.add(size)
        whole.merge(part)
    flat = [size for some in parts for size in some]
    about = whole.as_json()
    assert (about["count"], about["total"]) == (len(flat), sum(flat))
    if flat:
        assert (about["least"], about["most"]) == (min(flat), max(flat))
    for first, last, count in about["bins"]:
        assert count == sum(first <= size <= last for size in flat)
    assert sum(count for _, _, count in about["bins"]) == len(flat)


@settings(max_examples=100, deadline=None)
@given(keys=st.lists(st.one_of(st.integers(0, 9), st.integers(0, 2**64 - 1), st.just(2**63 + 1)), max_size=60))
def test_order_is_numpys(keys):
    array = np.array(keys, np.uint64)
    assert np.array_equal(stable_order(array), np.argsort(array, kind="stable"))
    assert np.array_equal(stable_order(mix(array)), np.argsort(mix(array), kind="stable"))
