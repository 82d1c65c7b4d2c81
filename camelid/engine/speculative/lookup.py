"""Prompt lookup (Yang et al. 2023, arXiv:2304.04487; Saxena 2023): what followed the last ids earlier follows again.

Its draft tokens are certain, so an answer is drawn as ever, and the text is the very one that is written without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from camelid.engine.choose import Writer
from camelid.engine.sequence import DraftToken
from camelid.engine.sequence import Sequence as Running
from camelid.engine.speculative.proposer import most_drafts
from camelid.errors import CamelidError

LONGEST = 3  # ids that are looked up together; then fewer


class Lookup:
    """Where each run of up to three ids was last read; kept up as the text grows, so a step costs the same anywhere."""

    def __init__(self) -> None:
        self._ends: list[dict[tuple[int, ...], int]] = [{} for _ in range(LONGEST)]
        self._n_noted = 0  # ids at whose ends runs are noted

    def find(self, ids: Sequence[int], n: int) -> list[int]:
        """The n ids that follow if the text goes on as after the last place where its last ids stood.

        Where that place is less than n ids ago, what follows repeats itself. Empty when the last id is new.
        `ids` must begin with those of the call before.
        """
        self._note(ids)
        for width in range(min(LONGEST, len(ids) - 1), 0, -1):
            end = self._ends[width - 1].get(tuple(ids[-width:]))
            if end is not None:
                following = list(ids[end : end + n])
                while len(following) < n:
                    following += following[: n - len(following)]
                return following
        return []

    def _note(self, ids: Sequence[int]) -> None:
        """Note runs that end before the last id: later ones take the place of earlier ones."""
        last = len(ids) - 1
        for width, ends in enumerate(self._ends, start=1):
            first = max(self._n_noted + 1 - width, 0)
            part = ids[first:last]
            runs = zip(*(part[at:] for at in range(width)), strict=False)
            ends.update(zip(runs, range(first + width, last + 1), strict=True))
        self._n_noted = max(self._n_noted, last)


class LookupProposer:
    """Looks draft tokens up in what was read and written."""

    def __init__(self) -> None:
        self._lookups: dict[Running, Lookup] = {}

    def propose(self, sizes: Mapping[Writer, int], room: int) -> None:
        """Set the draft tokens of answers, as many as `room` ids in all."""
        for writer, size in sizes.items():
            sequence = writer.sequence
            sequence.draft_tokens, sequence.n_draft = [], 0
            n = most_drafts(writer, size, room)
            if n:
                lookup = self._lookups.setdefault(sequence, Lookup())
                ids = _possible(writer, lookup.find(sequence.ids, n))
                sequence.draft_tokens, sequence.n_draft = [DraftToken(id) for id in ids], len(ids)
                room -= len(ids)

    def drop(self, sequence: Running) -> None:
        """Forget a sequence that has ended."""
        self._lookups.pop(sequence, None)

    def clear(self) -> None:
        """Nothing: what was written stays as it is."""


def _possible(writer: Writer, ids: list[int]) -> list[int]:
    """`ids` up to the first that ends the answer or breaks its form."""
    ends = writer.sequence.request.all_stop_ids
    ids = ids[: next((place for place, id in enumerate(ids) if id in ends), len(ids))]
    if writer.constraint is None or not ids:
        return ids
    form = writer.constraint.fork()
    try:
        for place, id in enumerate(ids):
            if form.finished or not form.mask()[id]:
                return ids[:place]
            form.push(id)
    except CamelidError:  # it is raised if the text comes to this place
        return ids[:place]
    return ids
