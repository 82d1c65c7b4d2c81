"""How often guesses come true: by the ids that had to match before one was made, and lately in this very text."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

# Ids that match before a guess → its chance in a text of which nothing is known yet; see benchmarks/prompt_lookup.py.
# Without any, the id after a wrong guess is guessed.
PRIOR = {0: 0.15, 1: 0.05, 2: 0.3, 3: 0.5, 4: 0.7, 6: 0.8, 9: 0.88, 16: 0.94}
WEIGHT = 3.0  # guesses that the prior counts for
DECAY = 0.9  # of the weight of guesses with each that comes after them

_STARTS, _CHANCES = list(PRIOR), list(PRIOR.values())
_ROWS = [bisect_right(_STARTS, length) - 1 for length in range(_STARTS[-1] + 1)]


class Record:
    """Guesses of one text, and which of them came true."""

    def __init__(self) -> None:
        self._true = [WEIGHT * chance for chance in _CHANCES]
        self._made = [WEIGHT] * len(_CHANCES)

    def chance(self, length: int) -> float:
        """That a guess comes true before which `length` ids match."""
        row = _ROWS[min(length, len(_ROWS) - 1)]
        return self._true[row] / self._made[row]

    def note(self, length: int, came_true: bool) -> None:
        """A guess before which `length` ids matched has come true or not. The prior is never forgotten."""
        row = _ROWS[min(length, len(_ROWS) - 1)]
        prior = WEIGHT * _CHANCES[row]
        self._true[row] = prior + DECAY * (self._true[row] - prior) + came_true
        self._made[row] = WEIGHT + DECAY * (self._made[row] - WEIGHT) + 1


DRAFTED = 4  # a draft model is trusted at first like a place where so many ids match
PAUSE, LONGEST_PAUSE = 16, 1024  # ids after which a draft model that did not pay is asked again


class Trial:
    """How a draft model fares with a text."""

    def __init__(self) -> None:
        self._record = Record()
        self._start = 0  # where the guesses begin that are not looked at yet
        self._ids: list[int] = []
        self._pause, self._end = PAUSE, 0

    def chance(self, n_before: int) -> float:
        """That a guess comes true, after so many that have."""
        return self._record.chance(DRAFTED)

    def begin(self, start: int, ids: Sequence[int]) -> None:
        """These ids are guessed, the first as the text's id number `start`."""
        self._start, self._ids = start, list(ids)

    def learn(self, ids: Sequence[int]) -> None:
        """The text has gone on to the end of `ids`."""
        guesses, self._ids = self._ids, []
        for id, guess in zip(ids[self._start :], guesses, strict=False):
            self._record.note(DRAFTED, id == guess)
            if id != guess:
                break

    def is_due(self, n_ids: int) -> bool:
        """Whether an id should be guessed although it does not pay; each time after twice as long."""
        if not self._end:
            self._end = n_ids + self._pause
        if n_ids < self._end:
            return False
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._end = n_ids + self._pause
        return True
