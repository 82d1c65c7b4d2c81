"""A pool of processes for independent pieces of work; with one worker everything happens here, in this process."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from camelid.errors import OptionError, ResourceError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """Runs functions of modules over items; as a context it ends its processes, an interrupt included.

    Processes are started when there is work for two, and each ends by itself when this one is killed.

    Raises:
        OptionError: fewer than one worker.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise OptionError(f"workers: must be at least 1, got {count}")
        self._count = count
        self._pool: concurrent.futures.ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is None:
            return
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=error[0] is None, cancel_futures=True)
        if error[0] is not None:
            for process in processes:
                process.terminate()

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        """Each item with its result, as they are done, in any order.

        Raises:
            ResourceError: a process was killed, most often for memory.
        """
        if self._count == 1 or len(items) < 2:
            for item in items:
                yield item, function(item)
            return
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = concurrent.futures.ProcessPoolExecutor(self._count, context, initializer=_start)
        try:
            futures = {self._pool.submit(function, item): item for item in items}
            for future in concurrent.futures.as_completed(futures):
                yield futures.pop(future), future.result()
        except BrokenProcessPool:
            raise ResourceError(
                f"one of {self._count} workers was killed, probably for lack of memory; "
                "run again with fewer --workers; finished work is kept"
            ) from None


def _start() -> None:
    """In a new worker: leave interrupts to the parent, and end with it even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
