"""What a worker counts: tokens, requests by how they ended, and how long clients wait."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FIRST_TOKEN_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # seconds
TOKEN_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
RECENT_SECONDS = 10.0


@dataclass(frozen=True)
class Histogram:
    """Seconds, counted by upper bounds. `counts` has one place more than `bounds`, for what lies above all."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float


@dataclass(frozen=True)
class WorkerStats:
    """A worker at one moment.

    Attributes:
        running, waiting: sequences in the engine's batch, and those that wait for room in it.
        prompt_tokens, completion_tokens, cached_tokens: totals; cached ones are those of prompts not read again.
        drafted_tokens, accepted_tokens: draft tokens that were verified, and those of them that were written.
        outcomes: requests that ended, by how: stop, length, cancelled, failed, refused.
        first_token, per_token: seconds to a request's first token, and between two tokens of a sequence.
        tokens_per_second: written, over the last seconds.
        pages_held, n_pages: of the key/value cache.
    """

    running: int
    waiting: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    drafted_tokens: int
    accepted_tokens: int
    outcomes: Mapping[str, int]
    first_token: Histogram
    per_token: Histogram
    tokens_per_second: float
    pages_held: int
    n_pages: int


class Times:
    """Collects a histogram."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds, self._counts, self._sum = tuple(bounds), [0] * (len(bounds) + 1), 0.0

    def add(self, seconds: float) -> None:
        """Count one more."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def histogram(self) -> Histogram:
        """As it is now."""
        return Histogram(self._bounds, tuple(self._counts), self._sum)


class Counts:
    """What the owner's thread adds up; others only look."""

    def __init__(self) -> None:
        self.prompt_tokens = self.completion_tokens = self.cached_tokens = 0
        self.outcomes: Counter[str] = Counter()
        self.first_token, self.per_token = Times(FIRST_TOKEN_BOUNDS), Times(TOKEN_BOUNDS)
        self._recent: deque[tuple[float, int]] = deque()  # when a step ended, and how much it wrote

    def step(self, now: float, n_tokens: int) -> None:
        """Note what a step has written."""
        self.completion_tokens += n_tokens
        self._recent.append((now, n_tokens))
        while now - self._recent[0][0] > RECENT_SECONDS:
            self._recent.popleft()

    def tokens_per_second(self) -> float:
        """Over the last seconds; 0 when nothing was written in them."""
        since = time.monotonic() - RECENT_SECONDS
        recent = [(at, n) for at, n in tuple(self._recent) if at > since]
        if len(recent) < 2:
            return 0.0
        return sum(n for _, n in recent[1:]) / max(recent[-1][0] - recent[0][0], 1e-9)
