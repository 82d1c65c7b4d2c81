"""Speculative decoding: guess a few ids, read them in one pass, keep those that would have been written anyway.

A guess changes speed and never the distribution of the text. Prompt lookup (Yang et al. 2023, arXiv:2304.04487; Saxena
2023) guesses that what followed the last ids earlier follows again. Its guesses are certain, so the rule of Leviathan
et al. 2023 (arXiv:2211.17192) and Chen et al. 2023 (arXiv:2302.01318) comes down to: draw as ever, and go on while the
drawn id is the guessed one. The text is then the very one that is written without guesses. Guesses of a draft model
are drawn from its own distribution q, and the rule needs random numbers of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from camelid.engine import sampling
from camelid.errors import CamelidError

if TYPE_CHECKING:
    from camelid.engine.scheduler import Chosen
    from camelid.engine.scheduler import Sequence as Running

LONGEST = 3  # ids that are looked up together; then fewer

Probabilities = NDArray[np.float64]


@dataclass(frozen=True)
class Guess:
    """An id that may come next, and the distribution (V,) it was drawn from; None where nothing was drawn."""

    id: int
    q: Probabilities | None = None


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
                found = list(ids[end : end + n])
                while len(found) < n:
                    found += found[: n - len(found)]
                return found
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


def look_up(chosen: Chosen, room: int) -> None:
    """Set the guesses of sequences that get their next id in this pass, as many as `room` ids in all."""
    for sequence, size in chosen.items():
        if not sequence.request.params.draft_tokens:
            continue
        sequence.guesses, sequence.n_ahead = [], 0
        n = most_ahead(sequence, size, room)
        if n:
            sequence.lookup = sequence.lookup or Lookup()
            ids = _possible(sequence, sequence.lookup.find(sequence.ids, n))
            sequence.guesses, sequence.n_ahead = [Guess(id) for id in ids], len(ids)
            room -= len(ids)


def most_ahead(sequence: Running, size: int, room: int) -> int:
    """How many guesses a pass may read: none while a prompt is read, and one id is written without a guess."""
    if size != 1 or sequence.computed + size != len(sequence.ids):
        return 0
    if sequence.constraint is not None and sequence.constraint.slow:
        return 0
    return max(0, min(sequence.request.params.draft_tokens, sequence.limit - len(sequence.ids) - 1, room))


def _possible(sequence: Running, ids: list[int]) -> list[int]:
    """`ids` up to the first that ends the answer or breaks its form."""
    ends = sequence.request.all_stop_ids
    ids = ids[: next((place for place, id in enumerate(ids) if id in ends), len(ids))]
    if sequence.constraint is None or not ids:
        return ids
    form = sequence.constraint.fork()
    try:
        for place, id in enumerate(ids):
            if form.finished or not form.mask()[id]:
                return ids[:place]
            form.push(id)
    except CamelidError:  # it will be told if the text comes to this place
        return ids[:place]
    return ids


def choose(p: Probabilities, guess: Guess | None, seed: int, sample: int, index: int) -> int:
    """An id with probabilities p, (V,), that is the guessed one as often as can be.

    A drawn guess x is kept with probability min(1, p(x) / q(x)), else an id is drawn from what p has more than q: over
    all x that is p. Which id it is depends on the arguments only, not on how many guesses a pass read.
    """
    if guess is None or guess.q is None:
        return sampling.draw(p, seed, sample, index)
    if sampling.chance(seed, sample, index, sampling.ACCEPT) * guess.q[guess.id] < p[guess.id]:
        return guess.id
    return sampling.draw(residual(p, guess.q), seed, sample, index, sampling.REDRAW)


def residual(p: Probabilities, q: Probabilities) -> Probabilities:
    """What p has more than q, (V,), to be drawn from when a guess was refused; sums to what is refused in all."""
    more = np.maximum(p - q, 0)
    return more if more.any() else p  # equal but for rounding
