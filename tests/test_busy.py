"""What others take of a machine's processors: from files like the kernel's, and beside a program that works."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from camelid.busy import Busy, between, look, read

ALLOWED = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
QUIET = Busy(1.0, 2, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0.0, 0.1)


def machine(root: Path, busy: float, stolen: float, waited: float, pressure: float, stat: str) -> Path:
    """A folder that looks like a machine whose first processor has worked so many seconds."""
    row = [int(seconds * TICKS) for seconds in (busy / 2, 0, busy / 4, 1000, 500, busy / 8, busy / 8, stolen, busy)]
    rows = f"cpu{ALLOWED[0]} {' '.join(map(str, row))} 0\ncpu999 {TICKS}00 0 0 0 0 0 0 0 0 0\n"
    files = {
        "proc/stat": f"cpu  9 9 9 9\n{rows}intr 1\n",
        "proc/self/task/7/schedstat": f"100 {int(waited * 1e9)} 3\n",
        "proc/self/task/8/schedstat": "100 0 3\n",
        "proc/pressure/cpu": f"some avg10=1.0 avg60=0 avg300=0 total={int(pressure * 1e6)}\nfull avg10=0 total=0\n",
        "proc/self/cgroup": "0::/job\n" if "usec" in stat else "3:cpu,cpuacct:/job\n",
        f"sys/fs/cgroup/{'job' if 'usec' in stat else 'cpu/job'}/cpu.stat": stat,
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    "stats",
    [
        ("nr_throttled 3\nthrottled_usec 1000000\n", "nr_throttled 5\nthrottled_usec 1500000\n"),
        ("nr_periods 9\nnr_throttled 3\nthrottled_time 1000000000\n", "nr_throttled 5\nthrottled_time 1500000000\n"),
    ],
    ids=["v2", "v1"],
)
def test_two_readings_tell_what_others_took(tmp_path, stats):
    first = replace(read(machine(tmp_path / "first", 40, 8, 1, 2, stats[0])), at=10.0, own=1.0)
    second = replace(read(machine(tmp_path / "second", 48, 9, 3, 3, stats[1])), at=14.0, own=3.0)
    busy = between(first, second)
    assert (busy.seconds, busy.processors) == (4.0, len(ALLOWED))
    assert busy.others == pytest.approx((48 - 40 - 2) / 4)  # what this process used is its own
    assert busy.stolen == pytest.approx(1 / 4)
    assert (busy.own, busy.waited, busy.pressure) == (0.5, 0.5, 0.25)
    assert busy.lost == pytest.approx(0.5)
    assert (busy.n_throttled, busy.throttled_seconds) == (2, 0.5)


def test_a_system_that_tells_nothing_has_its_load_average(tmp_path):
    busy = between(read(tmp_path), read(tmp_path))
    assert (busy.others, busy.stolen, busy.waited, busy.pressure, busy.n_throttled) == (None, None, None, None, 0)
    assert busy.lost == 0
    silent = replace(busy, processors=2, load_average=3.25)
    assert silent.describe() == ["the load average is 3.2 on 2 processors"]
    assert replace(silent, load_average=1.5).describe() == replace(silent, load_average=None).describe() == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, []),
        ({"others": 0.05, "load_average": 9.0}, []),
        ({"others": 0.93}, ["other programs use 0.9 of 2 processors"]),
        ({"stolen": 0.5}, ["the host of this virtual machine takes 0.5 of 2 processors"]),
        ({"n_throttled": 1, "throttled_seconds": 0.25}, ["a control group's quota stopped it once, 0.25 s in all"]),
        ({"n_throttled": 7, "throttled_seconds": 1.5}, ["a control group's quota stopped it 7 times, 1.50 s in all"]),
    ],
)
def test_a_sentence_for_each_thing_that_slows(changed, words):
    assert replace(QUIET, **changed).describe() == words


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="this system does not tell")
def test_a_busy_program_beside_is_seen():
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    ) as other:
        try:
            assert other.stdout is not None
            other.stdout.readline()
            busy = look(0.5)
        finally:
            other.kill()
    assert busy.others is not None
    assert 0.3 < busy.others <= busy.processors + 0.1  # one of them, or less where many programs share it
    assert busy.own < 0.2
    assert any("other programs use" in sentence for sentence in busy.describe())


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this system does not tell")
def test_our_own_work_is_not_that_of_others():
    first, end = read(), time.monotonic() + 0.4
    while time.monotonic() < end:
        pass
    busy = between(first, read())
    assert busy.own + (busy.waited or 0) == pytest.approx(1, abs=0.25)  # it ran, or wanted to
