"""When a session should end early: somebody asks, or the job's time runs out. No torch here.

A signal only leaves a note; between two steps all ranks agree, save together and leave. `camelid train` then ends with
status 75 (EX_TEMPFAIL of sysexits.h: "the user is invited to retry"), by which a batch script knows that the same
command goes on.
"""

from __future__ import annotations

import logging
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from datetime import datetime
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from camelid.train.parallel import Parallel

log = logging.getLogger(__name__)

STATUS = 75
SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")  # the last: the terminal is gone
_SLACK = 10.0  # seconds, for processes to end


class Stopper:
    """Listens while it is a context; put between steps the question whether this was the last one.

    A second Ctrl-C ends the process at once, without a save. What the process was started to ignore, as SIGINT behind a
    script's `&`, stays ignored.

    Args:
        parallel: the ranks; one asked to stop stops all.
        ends: when the job is killed, seconds since 1970; None if nobody says.

    Attributes:
        reason: why this rank stops; None if it does not.
    """

    def __init__(self, parallel: Parallel, ends: float | None = None) -> None:
        self._parallel, self._ends = parallel, ends
        self._before: dict[signal.Signals, Any] = {}
        self._began, self._longest = time.monotonic(), 0.0
        self.reason: str | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python lets no other listen
            for name in SIGNALS:
                number = getattr(signal, name, None)
                # SIGUSR1 is what a batch script sends us; `wait_for_stopper` ignores it only until here.
                ignored = name != "SIGUSR1" and number is not None and signal.getsignal(number) is signal.SIG_IGN
                if number is not None and not ignored:
                    self._before[number] = signal.signal(number, self._note)
        self._began = time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before.clear()

    def due(self, save_seconds: float) -> bool:
        """Whether all ranks should save now and leave; to be asked by every rank after every step.

        Args:
            save_seconds: how long a save is expected to take; twice that is left for it.
        """
        now = time.monotonic()
        self._longest, self._began = max(self._longest, now - self._began), now
        if self._ends is not None and self.reason is None:
            needed = 2 * save_seconds + 2 * self._longest + _SLACK
            if time.time() + needed >= self._ends:
                self.reason = "the end of the job's time"
        due = self._parallel.any(self.reason is not None)
        if due and self.reason is None:
            self.reason = "another process was asked to"
        return due

    def ask(self, reason: str) -> None:
        """Let this rank ask all to stop after this step."""
        self.reason = self.reason or reason

    def saved(self) -> None:
        """A save has been made since the last question: its time is no step's."""
        self._began = time.monotonic()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.reason is not None:
            raise KeyboardInterrupt
        self.reason = signal.Signals(number).name
        if self.reason == "SIGHUP":  # nobody is there to read, and writing to the terminal would fail
            return
        log.warning("%s: stopping after this step; what was learned is saved", self.reason)


def wait_for_stopper() -> None:
    """Outlive a SIGUSR1 that comes before a Stopper listens, or after the last step; a job's end is known without."""
    if hasattr(signal, "SIGUSR1") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def end_of_job(environment: Mapping[str, str]) -> float | None:
    """When SLURM will kill this job, seconds since 1970; None outside a job, or in one without a limit.

    Newer versions say it in SLURM_JOB_END_TIME; others are asked with scontrol.
    """
    said, job = environment.get("SLURM_JOB_END_TIME", ""), environment.get("SLURM_JOB_ID")
    if said.isdecimal():
        return float(said)
    if job is None:
        return None
    command = ["scontrol", "show", "job", job, "--oneliner"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("scontrol does not say when job %s ends (%s); only a signal will stop it in time", job, error)
        return None
    return _end_time(shown)


def _end_time(shown: str) -> float | None:
    """EndTime of what `scontrol show job` prints, in this machine's time zone."""
    match = re.search(r"\bEndTime=(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)", shown)
    return datetime.fromisoformat(match[1]).timestamp() if match else None
