"""A part of `make fuzz`, with another seed; and the proof that its bounds are bounds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
pytest.importorskip("pyarrow")

PROVES = """
import os, time
from camelid.errors import FormatError
from tests.fuzz.limits import run_cases

def case(number):
    if number == 1: raise FormatError("one line")
    if number == 2: raise KeyError("x")
    if number == 3: bytearray(400 << 20)
    if number == 4:
        while True: pass
    if number == 5: os.kill(os.getpid(), 11)
    if number == 6: os._exit(3)
    if number == 7: raise RecursionError

for failure in run_cases(range(9), case, lambda: None):
    print(failure.case, failure.what)
"""

LENIENT = ("--seconds", "6")  # the suite's machine may be busy, and its processor slow


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork") or not Path("/proc/self/statm").exists(), reason="workers are Linux's")
def test_the_bounds_are_bounds() -> None:
    found = dict(line.split(" ", 1) for line in python("-c", PROVES).stdout.splitlines())
    assert set(found) == {"2", "3", "4", "5", "6", "7"}
    for number, says in {"2": "KeyError", "3": "MB", "4": "took too long", "5": "SIGSEGV", "6": "status 3"}.items():
        assert says in found[number]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="workers are Linux's")
def test_damaged_files_are_one_line_in_bounded_time_and_memory() -> None:
    done = python("-m", "tests.fuzz", "--cases", "600", "--seed", "7", *LENIENT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^600 cases of \d+ formats, 0 failed", done.stdout, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="workers are Linux's")
def test_bombs_do_no_harm() -> None:
    done = python("-m", "tests.fuzz", "--bombs", *LENIENT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d+ bombs, 0 failed", done.stdout, re.MULTILINE)
