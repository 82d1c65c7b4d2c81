"""Prompt lookup: where a text stands further up, and what follows there."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.engine.request import Request, SamplingParams
from camelid.engine.sampling.choose import Writer
from camelid.engine.sequence import Sequence
from camelid.engine.speculative.lookup import LONGEST, Lookup, LookupProposer, Prompt


def slow_search(ids: list[int]) -> tuple[int, int]:
    """The last of the places before which most of the last ids stand, and how many; (0, 0): none."""
    best = (0, 0)
    for end in range(1, len(ids)):
        n = 0
        while n < min(end, LONGEST) and ids[end - 1 - n] == ids[-1 - n]:
            n += 1
        if n and n >= best[1]:
            best = (end, n)
    return best


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=31), st.integers(1, 31), st.integers(1, 4))
def test_lookup_finds_what_a_search_finds(ids, n_prompt, step):
    """Read at once or little by little; where it goes on after a wrong guess, it says so."""
    lookup = Lookup(Prompt(ids[:n_prompt]))
    for length in range(n_prompt, len(ids) + 1, step):
        lookup.read(ids[:length])
        found = (lookup.place or 0, lookup.length)
        assert found == slow_search(ids[:length]) or lookup._lost


def test_lookup_finds_the_place_where_most_ids_match():
    ids = [*range(100, 150), 1, 2, *range(110, 150), 3, *range(148, 150), 4, *range(105, 150)]
    lookup = Lookup(Prompt(ids))
    assert lookup.following(ids, 3) == [3, 148, 149]  # both others match as far as is looked; the last of them counts
    assert lookup.length == LONGEST
    ids = [*range(140, 150), 1, 2, *range(148, 150), 3, *range(144, 150)]
    lookup = Lookup(Prompt(ids))
    assert (lookup.following(ids, 2), lookup.length) == ([1, 2], 6)


def test_a_copy_is_taken_up_again_after_what_is_written_otherwise():
    ids = [*range(100, 140), 9]
    lookup, text = Lookup(Prompt(ids)), [*ids, *range(100, 110)]
    lookup.read(text)
    assert (lookup.place, lookup.length) == (10, 10)
    for written, guesses, length in ((50, [111, 112], 0), (51, [], 0), (112, [113, 114], 2), (113, [114, 115], 3)):
        text.append(written)
        lookup.read(text)
        assert lookup.following(text, 2) == guesses
        assert lookup.length == length


def test_what_follows_repeats_itself():
    ids = [5, 6, 7, 5, 6]
    assert Lookup(Prompt(ids)).following(ids, 8) == [7, 5, 6, 7, 5, 6, 7, 5]
    assert Lookup(Prompt([5])).following([5], 8) == []


def test_samples_share_what_is_known_of_their_prompt():
    proposer = LookupProposer()
    asked = Request(ids=(1, 2, 3, 1), params=SamplingParams(temperature=0))
    sequences = [Sequence(7, asked, sample, [*asked.ids, 2, 9]) for sample in range(2)]
    for sequence in sequences:
        sequence.computed = 5
    proposer.propose({Writer(each, 0, 99, None): 1 for each in sequences}, 10)
    first, second = (proposer._lookups[each] for each in sequences)
    assert first is not second
    assert first._prompt is second._prompt
