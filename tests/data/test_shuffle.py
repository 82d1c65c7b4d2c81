"""The order of training: shares, epochs, independence of how it is asked for; an own slow telling as oracle."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.data.shuffle import Shuffle, permute
from camelid.errors import OptionError

SOURCES = st.lists(st.tuples(st.integers(1, 3000), st.floats(0.05, 5)), min_size=1, max_size=5)
M64 = 2**64 - 1
GOLDEN_ROWS = ["1.0.1", "0.0.1", "0.0.3", "0.0.0"]
GOLDEN = 0x9E3779B97F4A7C15


def slow_mix(x: int) -> int:
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & M64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & M64
    return x ^ (x >> 31)


def slow_permute(index: int, size: int, key: int) -> int:
    """docs/formats.md in plain whole numbers."""
    half = max((((size - 1).bit_length()) + 1) // 2, 1)
    while True:
        left, right = index >> half, index & (2**half - 1)
        for number in range(1, 9):
            left, right = right, left ^ (slow_mix((right + key + number * GOLDEN) & M64) & (2**half - 1))
        index = left << half | right
        if index < size:
            return index


def slow_key(seed: int, source: int, epoch: int) -> int:
    key = slow_mix((seed + GOLDEN) & M64)
    key = slow_mix((key + source + GOLDEN) & M64)
    return slow_mix((key + epoch + GOLDEN) & M64)


def slow_order(seed: int, sources: list[tuple[int, float]], samples: int) -> list[tuple[int, int, int]]:
    """docs/formats.md, one sample after another."""
    weights = [Fraction(weight) for _, weight in sources]
    shares = [weight / sum(weights) for weight in weights]
    block = 1024
    while block * min(share for share in shares if share) < 1:
        block *= 2
    given_so_far, made = [0] * len(sources), []
    for number in range(-(-samples // block)):
        quotas = [share * block * (number + 1) for share in shares]
        counts = [quota.numerator // quota.denominator for quota in quotas]
        order = sorted(range(len(quotas)), key=lambda k: (-(quotas[k] - counts[k]), k))
        for k in order[: block * (number + 1) - sum(counts)]:
            counts[k] += 1
        labels = [k for k in range(len(sources)) for _ in range(counts[k] - given_so_far[k])]
        key = slow_key(seed, 2**32, number)
        places = [slow_permute(j, block, key) for j in range(block)] if len(sources) > 1 else range(block)
        for place in places:
            k = labels[place]
            epoch, index = divmod(given_so_far[k], sources[k][0])
            made.append((k, epoch, slow_permute(index, sources[k][0], slow_key(seed, k, epoch))))
            given_so_far[k] += 1
    return made[:samples]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), sources=SOURCES, samples=st.integers(1, 2500))
def test_is_what_the_specification_says(seed, sources, samples):
    rows = Shuffle(seed, sources).rows(0, samples)
    found = list(zip(rows.source.tolist(), rows.epoch.tolist(), rows.row.tolist(), strict=True))
    assert found == slow_order(seed, sources, samples)


def test_the_example_of_the_specification():
    """The order never changes: runs and their records depend on it."""
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    told = page.partition("row of the first samples:")[2].split("```")[1].split()
    rows = Shuffle(0, [(5, 2.0), (3, 1.0)]).rows(0, len(told))
    places = zip(rows.source.tolist(), rows.epoch.tolist(), rows.row.tolist(), strict=True)
    assert [f"{source}.{epoch}.{row}" for source, epoch, row in places] == told
    assert told[:4] == GOLDEN_ROWS


@settings(max_examples=50, deadline=None)
@given(size=st.integers(1, 5000), key=st.integers(0, M64))
def test_each_epoch_is_a_permutation(size, key):
    all_of_it = permute(np.arange(size), np.full(size, size), np.full(size, key, np.uint64))
    assert np.array_equal(np.sort(all_of_it), np.arange(size))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), sources=SOURCES)
def test_shares_are_exact_within_one_and_each_source_goes_through_its_rows(seed, sources):
    order, n_blocks = Shuffle(seed, sources), 4
    rows = order.rows(0, n_blocks * order.block)
    total = sum(Fraction(weight) for _, weight in sources)
    for number, (n_rows, weight) in enumerate(sources):
        mine = rows.source == number
        for block in range(1, n_blocks + 1):
            share = Fraction(weight) / total * block * order.block
            assert abs(int(mine[: block * order.block].sum()) - share) < 1
        epochs, places = rows.epoch[mine], rows.row[mine]
        assert np.all(np.diff(epochs) >= 0)
        for epoch in range(int(epochs[-1])):
            assert np.array_equal(np.sort(places[epochs == epoch]), np.arange(n_rows))
        rest = places[epochs == epochs[-1]]
        assert len(set(rest.tolist())) == len(rest)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**40), sources=SOURCES, cuts=st.lists(st.integers(0, 5000), min_size=2, max_size=6))
def test_any_cut_gives_the_same_samples(seed, sources, cuts):
    whole, cuts = Shuffle(seed, sources).rows(0, 5000), sorted(cuts)
    order = Shuffle(seed, sources)
    for start, stop in reversed(list(itertools.pairwise(cuts))):
        part = order.rows(start, stop)
        for name in ("source", "epoch", "row"):
            assert np.array_equal(getattr(part, name), getattr(whole, name)[start:stop])


def test_rare_sources_get_their_share_in_longer_blocks():
    order = Shuffle(1, [(10**6, 1.0), (10, 1e-4), (5, 0)])
    assert order.block >= 10_000
    rows = order.rows(0, 4 * order.block)
    assert abs((rows.source == 1).sum() - 4 * order.block * 1e-4 / 1.0001) < 1
    assert not (rows.source == 2).any()


def test_epochs_and_seeds_and_sources_differ():
    rows = Shuffle(0, [(1000, 1.0)]).rows(0, 2000).row
    other = Shuffle(1, [(1000, 1.0)]).rows(0, 1000).row
    assert (rows[:1000] == rows[1000:]).mean() < 0.02
    assert (rows[:1000] == other).mean() < 0.02
    assert (rows[:1000] == np.arange(1000)).mean() < 0.02


def test_places_are_spread_evenly():
    """Chi-squared of where row i of eight goes, over many epochs; 49 degrees of freedom, so 99.99 % lie below 95."""
    epochs = np.arange(8 * 4000)
    rows = Shuffle(3, [(8, 1.0)]).rows(0, len(epochs)).row.reshape(-1, 8)
    counts = np.stack([np.bincount(rows[:, place], minlength=8) for place in range(8)])
    assert ((counts - 4000 / 8) ** 2 / (4000 / 8)).sum() < 95


def test_more_rows_than_31_bits():
    size = 2**33 + 5
    order = Shuffle(7, [(size, 1.0), (2**31, 1.0)])
    rows = order.rows(2**34, 2**34 + 4096)
    large = rows.row[rows.source == 0]
    assert large.min() >= 0
    assert 2**32 < large.max() < size
    assert rows.epoch[rows.source == 1].max() == 2**33 // 2**31
    assert len(set(large.tolist())) == len(large)


@pytest.mark.parametrize(
    ("sources", "says"),
    [
        ([], "at least one source"),
        ([(5, 0.0)], "above 0"),
        ([(5, -1.0)], "from 0 on"),
        ([(5, float("nan"))], "from 0 on"),
        ([(0, 1.0)], "no rows"),
        ([(5, 1.0), (5, 1e-9)], "smallest share"),
    ],
)
def test_what_cannot_be_is_refused(sources, says):
    with pytest.raises(OptionError, match=says):
        Shuffle(0, sources)


def test_samples_backwards_are_refused():
    with pytest.raises(OptionError, match="in order"):
        Shuffle(0, [(5, 1.0)]).rows(3, 2)
