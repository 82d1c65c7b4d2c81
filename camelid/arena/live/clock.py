"""The time, which does not jump: wall time at the start, and what a monotonic clock has counted since.

A machine's clock that is set while an arena runs moves no limit and no time-out; votes stay in order.
"""

from __future__ import annotations

import time
from collections.abc import Callable

HOUR, DAY = 3600, 86400


class Clock:
    """Seconds since 1970, never going back.

    Args:
        wall: seconds since 1970, asked once.
        steady: seconds that only grow.
    """

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self.steady = steady
        self._wall, self._steady = wall(), steady()

    def now(self) -> float:
        """Seconds since 1970."""
        return self._wall + (self.steady() - self._steady)

    def day(self) -> int:
        """Days since 1970."""
        return int(self.now() // DAY)
