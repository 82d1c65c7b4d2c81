"""Children that do something and are killed in the middle of it."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Callable


def dies(work: Callable[[], object], after: float | None = None) -> bool:
    """Do it in a copy of this process, which kills itself, or is killed after some seconds; whether it died so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads are asleep when it forks
        child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(1)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def kill_me() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
