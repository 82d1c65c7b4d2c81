"""How busy a machine is: what other programs take of its processors, and how long threads of ours wait for one.

The kernel counts; two readings of its counters, and what lies between them, are all there is to it. Linux tells
everything (proc(5), "Pressure Stall Information" and "CPU" of its documentation of control groups), other systems the
load average.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from camelid.machine import ROOT, control_groups, read_lines

LEAST = 0.05  # of the processors; what others take is told from here on: a system is never quite still
_TICKS = {"busy": (0, 1, 2, 5, 6), "stolen": (7,)}  # columns of a line of /proc/stat: user nice system idle iowait …


@dataclass(frozen=True)
class Reading:
    """The counters at one moment; seconds of processors since the system or this process began.

    Attributes:
        at: of a clock.
        processors: that this process may use.
        busy, stolen: of these, used by programs of this system, and by the host that it is a guest of; None: not told.
        own: used by this process.
        waited: that its threads were ready to run and did not.
        pressure: in which some program had to wait for a processor.
        n_throttled, throttled: how often a control group's quota held programs up, and how long.
    """

    at: float
    processors: int
    busy: float | None
    stolen: float | None
    own: float
    waited: float | None
    pressure: float | None
    n_throttled: int
    throttled: float


@dataclass(frozen=True)
class Busy:
    """What happened between two readings.

    Attributes:
        seconds: between them.
        processors: that this process may use.
        others: processors that other programs used; None: the system does not tell.
        stolen: processors that the host of a virtual machine used for others.
        own: processors that this process used.
        waited: processors' time that threads of this process were ready to use and waited for.
        pressure: share of the time in which some program had to wait.
        n_throttled, throttled_seconds: how often a control group's quota held programs up, and how long.
        load_average: programs that ran or waited, over the last minute; None: the system does not tell.
    """

    seconds: float
    processors: int
    others: float | None
    stolen: float | None
    own: float
    waited: float | None
    pressure: float | None
    n_throttled: int
    throttled_seconds: float
    load_average: float | None

    @property
    def lost(self) -> float:
        """Of the processor time that this process wanted, the share that it did not get."""
        if not self.waited:
            return 0.0
        return self.waited / (self.waited + self.own)

    def describe(self) -> list[str]:
        """A sentence for each thing that slows this process down; none where the machine is quiet."""
        told = []
        if self.others is not None and self.others >= LEAST * self.processors:
            told.append(f"other programs use {self.others:.1f} of {self.processors} processors")
        if self.stolen is not None and self.stolen >= LEAST * self.processors:
            told.append(f"the host of this virtual machine takes {self.stolen:.1f} of {self.processors} processors")
        if self.n_throttled:
            times = "once" if self.n_throttled == 1 else f"{self.n_throttled} times"
            told.append(f"a control group's quota stopped it {times}, {self.throttled_seconds:.2f} s in all")
        if self.others is None and self.load_average is not None and self.load_average > self.processors:
            told.append(f"the load average is {self.load_average:.1f} on {self.processors} processors")
        return told


def read(root: Path = ROOT) -> Reading:
    """The counters now."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    used = _used(root, allowed)
    throttled = [_throttled(group) for group in control_groups("cpu", root)]
    return Reading(
        at=time.monotonic(),
        processors=len(allowed),
        busy=used.get("busy"),
        stolen=used.get("stolen"),
        own=time.process_time(),
        waited=_waited(root),
        pressure=_pressure(root),
        n_throttled=sum(n for n, _ in throttled),
        throttled=sum(seconds for _, seconds in throttled),
    )


def between(first: Reading, second: Reading) -> Busy:
    """What happened from the first reading to the second."""
    seconds = max(second.at - first.at, 1e-9)

    def rate(name: str) -> float | None:
        one, two = getattr(first, name), getattr(second, name)
        return None if one is None or two is None else round(max(0.0, two - one) / seconds, 4)

    own, busy = rate("own") or 0.0, rate("busy")
    return Busy(
        seconds=round(seconds, 4),
        processors=second.processors,
        others=None if busy is None else round(max(0.0, busy - own), 4),
        stolen=rate("stolen"),
        own=own,
        waited=rate("waited"),
        pressure=rate("pressure"),
        n_throttled=second.n_throttled - first.n_throttled,
        throttled_seconds=round(second.throttled - first.throttled, 4),
        load_average=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    )


def look(seconds: float = 0.3) -> Busy:
    """What others do for so long, while this process sleeps."""
    first = read()
    time.sleep(seconds)
    return between(first, read())


def _used(root: Path, allowed: set[int]) -> dict[str, float]:
    """Seconds that these processors worked, and that a host kept them away; empty where the system does not tell."""
    a_second = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
    rows = [line.split() for line in read_lines(root / "proc/stat") if line.startswith("cpu")]
    ticks = [[int(part) for part in parts] for name, *parts in rows if name[3:].isdigit() and int(name[3:]) in allowed]
    if not ticks:
        return {}
    return {
        name: sum(row[column] for row in ticks for column in columns if column < len(row)) / a_second
        for name, columns in _TICKS.items()
    }


def _waited(root: Path) -> float | None:
    """Seconds that threads of this process have waited for a processor; a thread that ends takes its own with it."""
    counts = [read_lines(path) for path in (root / "proc/self/task").glob("*/schedstat")]
    return sum(int(lines[0].split()[1]) for lines in counts if lines) / 1e9 if any(counts) else None


def _pressure(root: Path) -> float | None:
    for line in read_lines(root / "proc/pressure/cpu"):
        if line.startswith("some"):
            return int(line.rpartition("total=")[2]) / 1e6
    return None


def _throttled(group: Path) -> tuple[int, float]:
    """How often the quota of a control group (v1 and v2) held its programs up, and for how many seconds."""
    stat = dict(line.split() for line in read_lines(group / "cpu.stat"))
    seconds = int(stat.get("throttled_usec", 0)) / 1e6 + int(stat.get("throttled_time", 0)) / 1e9
    return int(stat.get("nr_throttled", 0)), seconds
