"""How much may be read beside answers: so much that none of their tokens comes later than twice its usual pace."""

from __future__ import annotations

LEAST, FIRST = 4, 16  # ids of a pass
AIM = 1.8  # of the usual pace
LOOK_AGAIN = 16  # passes beside reading, after which one without it is measured

MOST_WAITED = 4  # passes without reading in which prompts were in the way


class Pace:
    """Counts the seconds of passes; `room` says how many ids may be read in the next one.

    Only how fast things come depends on it, never what.
    """

    def __init__(self, most: int) -> None:
        self._most, self._room, self._usual = most, float(FIRST), 0.0
        self._n_beside = self._n_waited = 0  # passes since one without reading; tries to get one

    def room(self) -> int:
        """Ids that may be read in a pass beside answers; 0: this pass is to be measured without."""
        if (self._n_beside >= LOOK_AGAIN or not self._usual) and self._n_waited < MOST_WAITED:
            self._n_waited += 1
            return 0
        return min(self._most, int(self._room))

    def note(self, seconds: float, n_read: int) -> None:
        """A pass with answers has taken so long, with so many ids read beside."""
        if not n_read:
            self._usual = seconds if not self._usual else 0.7 * self._usual + 0.3 * seconds
            self._n_beside = self._n_waited = 0
            return
        self._n_beside += 1
        if not self._usual:
            return
        change = (AIM * self._usual) / seconds
        self._room = max(LEAST, min(self._most, self._room * max(0.5, min(change, 1.25))))
