"""Flow beside generation: for each model what its passes showed, and one thread that computes them all."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

import anyio.to_thread
from anyio import CapacityLimiter

from camelid.chat.activations import Flow
from camelid.chat.llama import Llama
from camelid.serve.errors import ApiError

T = TypeVar("T")
MOST_WAITING = 16


class Flows:
    """Runs work on a model's `Flow` off the event loop, one piece of work at a time.

    The engine goes on meanwhile on its own thread: both only read the model's weights.
    """

    def __init__(self) -> None:
        self._turn = CapacityLimiter(1)
        self._lock = threading.Lock()  # work goes on when its client has left, and then has no turn any more
        self._open = 0  # pieces of work that were asked for and are not done
        self._flows: WeakKeyDictionary[Llama, Flow] = WeakKeyDictionary()

    async def run(self, llama: Llama, work: Callable[[Flow], T]) -> T:
        """The result of `work` on the model's flow.

        Raises:
            ApiError: 429, too many wait already.
            CamelidError: what `work` raises.
        """
        if self._open > MOST_WAITING:
            raise ApiError(429, f"{MOST_WAITING} wait already; try again", "queue_full", headers={"Retry-After": "2"})
        self._open += 1
        try:
            return await anyio.to_thread.run_sync(self._work, llama, work, limiter=self._turn)
        finally:
            self._open -= 1

    def _work(self, llama: Llama, work: Callable[[Flow], T]) -> T:
        with self._lock:
            if llama not in self._flows:
                self._flows[llama] = Flow(llama)
            return work(self._flows[llama])
