"""Prompt lookup (Yang et al. 2023, arXiv:2304.04487; Saxena 2023): what followed the last ids earlier follows again.

Its draft tokens are certain, so an answer is drawn as ever, and the text is the very one that is written without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from camelid.engine.sampling.choose import Writer
from camelid.engine.sequence import Sequence as Running
from camelid.engine.speculative.length import PassCost, Wish, lengths
from camelid.engine.speculative.proposer import most_drafts, n_writing
from camelid.engine.speculative.record import Record

LONGEST = 32  # ids that are compared, to find the place that matches best
COPIED = 4  # ids that must match before a text counts as copied
NEAR = 8  # ids after a wrong guess among which the copy is looked for again, and so many times


class Prompt:
    """The ids that all samples of a request begin with: where each stands last, and which stand side by side."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.n = len(ids)
        self.ids = np.concatenate([np.full(LONGEST, -1, np.int32), np.asarray(ids, np.int32)])
        self.ends = dict(zip(ids[:-1], range(1, len(ids)), strict=True))
        self.pairs = set(pairwise(ids))


class Lookup:
    """Follows a text, and the place further up where it stands already, if there is one.

    A step takes microseconds: while the text is the one at that place, a comparison; else, only if its last two ids
    stand side by side somewhere, one look over all ids.

    Attributes:
        place: index of the id that is guessed to come next; None: there is no guess.
        length: ids before it that match. A copy that is taken up again after a wrong guess counts one more; where it is
            guessed to go on after the one id that was wrong, 0.
        record: which guesses came true.
    """

    def __init__(self, prompt: Prompt) -> None:
        self.record = Record()
        self.place: int | None = None
        self.length = 0
        self._prompt = prompt
        self._n = prompt.n  # ids that were read
        self._ids: NDArray[np.int32] = prompt.ids.copy()  # after LONGEST that match nothing, with room
        self._ends: dict[int, int] = {}  # where each id stands last, and which stand side by side, since the prompt
        self._pairs: set[tuple[int, int]] = set()
        self._lost, self._tries = 0, 0  # where a copy was left, and how often it is still looked for
        last = prompt.ids[-2:].tolist()
        self._search(last[-1], last[0])

    def read(self, ids: Sequence[int]) -> None:
        """Go on to the end of `ids`, which begin with those that were read."""
        for at in range(self._n, len(ids)):
            self._step(ids, at, ids[at], ids[at - 1])

    def following(self, ids: Sequence[int], n: int) -> list[int]:
        """The n ids from the place on; where it is less than n ids ago, what follows repeats itself."""
        if self.place is None:
            return []
        following = list(ids[self.place : self.place + n])
        while len(following) < n:
            following += following[: n - len(following)]
        return following

    def _step(self, ids: Sequence[int], at: int, id: int, before: int) -> None:
        if self.place is not None:
            came_true = ids[self.place] == id
            self.record.note(self.length, came_true)
            if came_true:
                self.place, self.length = self.place + 1, self.length + 1
            else:
                if self.length >= COPIED:
                    self._lost, self._tries = self.place, NEAR
                self.place = None
        self._append(id)
        self._ends[before] = at
        if self.place is None:
            self._search(id, before)
            if self.length <= 1 and self._tries:
                self._take_up(ids, at, id)
        self._pairs.add((before, id))

    def _append(self, id: int) -> None:
        end = LONGEST + self._n
        if end == len(self._ids):
            self._ids = np.concatenate([self._ids, np.empty(max(256, end // 4), np.int32)])
        self._ids[end] = id
        self._n += 1

    def _search(self, id: int, before: int) -> None:
        """Find the last of the places that most of the last ids stand before."""
        pair = (before, id)
        if pair in self._pairs or pair in self._prompt.pairs:
            self.place, self.length = self._longest()
        else:
            self.place, self.length = self._ends.get(id) or self._prompt.ends.get(id), 1
        if self.place is None:
            self.length = 0

    def _longest(self) -> tuple[int | None, int]:
        base, n = self._ids, LONGEST + self._n
        ends = np.flatnonzero(base[LONGEST : n - 1] == base[n - 1]) + LONGEST + 1
        if not len(ends):
            return None, 0
        width = 1
        while width < LONGEST:
            longer = ends[base[ends - 1 - width] == base[n - 1 - width]]
            if not len(longer):
                break
            ends, width = longer, width + 1
        return int(ends[-1]) - LONGEST, width

    def _take_up(self, ids: Sequence[int], at: int, id: int) -> None:
        """Go on with a copy in which something is written otherwise, if that is likelier than what was found."""
        if self._tries == NEAR:  # the wrong id may stand in place of the guessed one
            place, length = self._lost + 1, 0
        else:
            near = range(self._lost, min(self._lost + NEAR, at))
            place, length = next((other + 1 for other in near if ids[other] == id), 0), 2
        self._tries -= 1
        known = self.record.chance(self.length) if self.place is not None else 0.0
        if 0 < place <= at and self.record.chance(length) > known:
            self.place, self.length = place, length


class LookupProposer:
    """Looks draft tokens up in what was read and written.

    Args:
        is_exact: passes over several ids give the same bits as one by one, so that `auto` may guess.
    """

    def __init__(self, is_exact: bool = True) -> None:
        self.cost = PassCost()
        self._is_exact = is_exact
        self._lookups: dict[Running, Lookup] = {}
        self._prompts: WeakValueDictionary[int, Prompt] = WeakValueDictionary()  # by request

    def propose(self, sizes: Mapping[Writer, int], room: int) -> None:
        """Set the draft tokens of answers, as many as `room` ids in all."""
        looked: list[tuple[Writer, Lookup, int]] = []  # where the number of guesses is to be found, with the most
        for writer, size in sizes.items():
            sequence = writer.sequence
            sequence.draft_tokens, sequence.n_draft = [], 0
            is_auto = sequence.request.params.draft_tokens == "auto"
            n = most_drafts(writer, size, room) if self._is_exact or not is_auto else 0
            if not n:
                continue
            lookup = self._lookups.get(sequence) or self._begin(sequence)
            lookup.read(sequence.ids)
            if is_auto:
                if lookup.place is not None:
                    looked.append((writer, lookup, n))
            else:
                room -= _set(writer, lookup.following(sequence.ids, n))
        if looked:
            wishes = [Wish(partial(_chance, lookup), most) for _, lookup, most in looked]
            chosen = lengths(wishes, n_writing(sizes), self.cost.fixed, room)
            for (writer, lookup, _), n in zip(looked, chosen, strict=True):
                if n:
                    _set(writer, lookup.following(writer.sequence.ids, n))

    def drop(self, sequence: Running) -> None:
        """Forget a sequence that has ended."""
        self._lookups.pop(sequence, None)

    def clear(self) -> None:
        """Nothing: what was written stays as it is."""

    def _begin(self, sequence: Running) -> Lookup:
        """The samples of a request share what is known of its prompt."""
        prompt = self._prompts.get(sequence.number)
        if prompt is None:
            prompt = self._prompts[sequence.number] = Prompt(sequence.request.ids)
        lookup = self._lookups[sequence] = Lookup(prompt)
        return lookup


def _chance(lookup: Lookup, n_before: int) -> float:
    """That a guess comes true after so many that have."""
    return lookup.record.chance(lookup.length + n_before)


def _set(writer: Writer, ids: list[int]) -> int:
    """Make draft tokens of `ids` up to the first that ends the answer; how many they are.

    What a form forbids is not looked for: it would take as long as verifying, where it is rejected anyway.
    """
    sequence, ends = writer.sequence, writer.sequence.request.all_stop_ids
    n = next((place for place, id in enumerate(ids) if id in ends), len(ids))
    sequence.draft_tokens, sequence.n_draft = ids[:n], n
    return n
