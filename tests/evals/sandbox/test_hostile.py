"""Programs that mean harm: none passes, none leaves a trace, none outlives its limit."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.evals.sandbox import hostile_alone, hostile_tested

if not sys.platform.startswith("linux"):
    pytest.skip("the sandbox runs on Linux", allow_module_level=True)

from camelid.errors import UnsupportedError
from camelid.evals.sandbox import Check, Limits, Ran, Sandbox

SECONDS, GRACE = 2.0, 4.0  # a busy machine is given time to end what was ended
LIMITS = Limits(seconds=SECONDS, cpu_seconds=2, memory_mb=256, output_kb=256)
ENDS_THEM = Limits(seconds=1.0, cpu_seconds=1, memory_mb=256, output_kb=256)
ADDS_ONE = Check(hostile_tested.TEST, ("f",), "f")
# One of each kind, in the fast lane.
FIRST = ("os_exit", "token_in_objects_unfrozen", "passwd", "tcp", "subprocess", "kill_parent", "memory", "fork_bomb")
FIRST += (
    "call_ptrace",
    "symlink_out",
    "equal_to_all",
    "exits_hard",
    "looks_for_the_test",
    "sends_verdict",
    "own_check",
)


def marked(*names: str) -> list[object]:
    return [pytest.param(name, marks=() if name in FIRST else pytest.mark.slow) for name in names]


def processes_below(pid: int) -> list[int]:
    """All that descend from a process, in the machine's own numbers."""
    parents = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                words = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(words[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the user's, whose path a program knows."""
    path = tmp_path_factory.mktemp("home") / "secret.txt"
    path.write_text("secret")
    return path


def opened(level: str, limits: Limits) -> Sandbox:
    try:
        return Sandbox(level, limits, workers=1, accept_generated_code=True)  # type: ignore[arg-type]
    except UnsupportedError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def strict() -> Iterator[Sandbox]:
    with opened("strict", LIMITS) as box:
        yield box


@pytest.fixture(scope="module")
def strict_short() -> Iterator[Sandbox]:
    with opened("strict", ENDS_THEM) as box:
        yield box


@pytest.fixture(scope="module")
def basic() -> Iterator[Sandbox]:
    with opened("basic", ENDS_THEM) as box:
        yield box


def run(box: Sandbox, program: str, canary: Path, test: Check | None = None) -> Ran:
    """Run a program, and look for what it left."""
    before = {entry.name for entry in os.scandir(tempfile.gettempdir()) if entry.name.startswith("camelid-sandbox")}
    started = time.monotonic()
    ran = box.run(program.replace("/THIS/FILE", str(canary)), test)
    assert time.monotonic() - started < box.limits.seconds + GRACE
    after = {entry.name for entry in os.scandir(tempfile.gettempdir()) if entry.name.startswith("camelid-sandbox")}
    assert after <= before
    assert canary.read_text() == "secret"
    assert [path.name for path in canary.parent.iterdir()] == ["secret.txt"]
    worker = box._idle.get()
    box._idle.put(worker)
    assert worker is None or len(processes_below(worker._process.pid)) == (box.level == "strict")
    if folder := box._folders.get(worker):
        assert not list(Path(folder).iterdir())
    return ran


@pytest.mark.parametrize("name", marked(*hostile_alone.QUICK))
def test_alone(strict, canary, name):
    ran = run(strict, hostile_alone.QUICK[name], canary)
    assert not ran.passed, ran


@pytest.mark.slow
@pytest.mark.parametrize("name", hostile_alone.SLOW)
def test_alone_until_a_limit(strict_short, canary, name):
    ran = run(strict_short, hostile_alone.SLOW[name], canary)
    assert not ran.passed, ran
    assert ran.limit or name in ("daemon_and_exit", "big_number"), ran


@pytest.mark.parametrize("name", marked(*hostile_tested.QUICK))
def test_tested(strict, canary, name):
    ran = run(strict, hostile_tested.QUICK[name], canary, ADDS_ONE)
    assert not ran.passed, ran


@pytest.mark.slow
@pytest.mark.parametrize("name", hostile_tested.SLOW)
def test_tested_until_a_limit(strict_short, canary, name):
    ran = run(strict_short, hostile_tested.SLOW[name], canary, ADDS_ONE)
    assert not ran.passed
    assert ran.limit, ran


# What basic lets through, because it does not claim otherwise: see `Sandbox.enforced`.
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*hostile_alone.QUICK, *hostile_alone.SLOW} - {"many_large_files"}))
def test_basic(basic, canary, name):
    ran = run(basic, {**hostile_alone.QUICK, **hostile_alone.SLOW}[name], canary)
    assert not ran.passed, ran


@pytest.mark.slow
@pytest.mark.parametrize("name", [*hostile_tested.QUICK, *hostile_tested.SLOW])
def test_basic_tested(basic, canary, name):
    ran = run(basic, {**hostile_tested.QUICK, **hostile_tested.SLOW}[name], canary, ADDS_ONE)
    assert not ran.passed, ran


def test_an_honest_program_passes_among_them(strict, canary):
    assert run(strict, "def f(x): return x + 1", canary, ADDS_ONE).passed
    assert run(strict, "print('x')", canary).stdout == "x\n"


def test_there_are_many():
    kinds = (hostile_alone.QUICK, hostile_alone.SLOW, hostile_tested.QUICK, hostile_tested.SLOW)
    assert sum(map(len, kinds)) >= 60
