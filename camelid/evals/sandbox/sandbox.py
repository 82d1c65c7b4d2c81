"""Runs programs that nobody has read, as models write them: apart, within limits, judged where they cannot write."""

from __future__ import annotations

import itertools
import os
import queue
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from camelid.errors import OptionError, UnsupportedError
from camelid.evals.sandbox.limits import Limits
from camelid.evals.sandbox.view import find_view
from camelid.evals.sandbox.worker import Worker, WorkerEndedError
from camelid.machine import processors

Level = Literal["strict", "basic"]


@dataclass(frozen=True)
class Check:
    """What is asked of a program, in a process that the program cannot reach.

    Attributes:
        source: Python; what it asserts, must hold.
        calls: names of the program that it uses, and only those; each call crosses with plain data.
        entry_point: where the source defines `check`, as HumanEval's do, it is called with this one of `calls`.
        setup: Python that is run before it, here and not in the program: imports, functions that the test uses.
    """

    source: str
    calls: tuple[str, ...]
    entry_point: str | None = None
    setup: str = ""


@dataclass(frozen=True)
class Ran:
    """How a program fared.

    Attributes:
        passed: it ran to its end without an exception, within its limits; and with a test, all of that held.
        reason: in words, also if it passed.
        stdout, stderr: what it wrote.
        seconds: by the clock, from fork to end.
        cpu_seconds: of the program, without its test.
        limit: the limit that ended it (time, output, memory), if one did.
    """

    passed: bool
    reason: str
    stdout: str
    stderr: str
    seconds: float
    cpu_seconds: float
    limit: str | None = None


@dataclass(frozen=True)
class Program:
    """A program, and its test if it has one."""

    source: str
    test: Check | None = None


class Sandbox:
    """Warm interpreters that fork for each program. May be used by several threads.

    With a `Check`, nothing that a program does in its own process makes a wrong answer right: its functions are called
    from another process and give plain data. Without one, `passed` is no more than the program's own end; code that
    reads its own memory could claim that falsely.

    Args:
        level: strict: namespaces, seccomp, and Landlock where the kernel has it; basic: what there is of seccomp and
            Landlock, and limits.
        limits: of each program.
        imports: packages of this machine, beside the standard library, that programs may import.
        workers: programs at once; None: as many as there are processors.
        accept_generated_code: that the user knows what basic does not keep from a program.

    Attributes:
        enforced: what holds here, one line each.

    Raises:
        OptionError: basic without `accept_generated_code`.
        UnsupportedError: not Linux, or strict is not to be had; says what lacks.
        MissingError: a package is not installed.
    """

    def __init__(
        self,
        level: Level = "strict",
        limits: Limits | None = None,
        *,
        imports: Sequence[str] = (),
        workers: int | None = None,
        accept_generated_code: bool = False,
    ) -> None:
        if level not in ("strict", "basic"):
            raise OptionError(f"sandbox: {level!r} is no level; choose strict or basic", param="sandbox")
        if not sys.platform.startswith("linux"):
            raise UnsupportedError("sandbox: runs on Linux only; use a Linux machine, container or virtual machine")
        if level == "basic" and not accept_generated_code:
            raise OptionError(
                "--sandbox basic: programs share this machine with you; add --i-accept-running-generated-code, or use "
                "--sandbox strict",
                param="sandbox",
            )
        self.level, self.limits = level, limits or Limits()
        self._view, self._imports = find_view(imports), tuple(imports)
        self._n_workers = workers or processors()
        self._idle: queue.SimpleQueue[Worker | None] = queue.SimpleQueue()
        self._folders: dict[Worker, str] = {}
        self._spent: dict[Worker, float] = {}
        self._lock = threading.Lock()
        first = self._start()
        self.enforced = first.enforced
        for worker in (first, *itertools.repeat(None, self._n_workers - 1)):
            self._idle.put(worker)

    def run(self, program: str, test: Check | None = None) -> Ran:
        """Run a program, and its test if there is one."""
        worker = self._idle.get()
        try:
            worker = worker or self._start()
            answer = worker.run(program, None if test is None else _as_json(test))
            if not answer["read"]:
                raise WorkerEndedError
            with self._lock:
                self._spent[worker] = answer["total_cpu_seconds"]
            self._tidy(worker)
        except WorkerEndedError:
            self._stop(worker)
            worker = None
            answer = {"how": "lost", "status": 1, "went": None, "stdout": "", "stderr": "", "seconds": 0.0}
            answer["cpu_seconds"] = 0.0
        finally:
            self._idle.put(worker)
        return _ran(answer, self.limits, test)

    def run_all(self, programs: Iterable[Program]) -> Iterator[Ran]:
        """Run many, as many at once as there are workers; results in the order of the programs."""
        waiting: list[Future[Ran]] = []
        with ThreadPoolExecutor(self._n_workers) as pool:
            for program in programs:
                waiting.append(pool.submit(self.run, program.source, program.test))
                if len(waiting) > 4 * self._n_workers:
                    yield waiting.pop(0).result()
            for future in waiting:
                yield future.result()

    def processor_seconds(self) -> float:
        """Spent so far: by the warm interpreters, and by all programs and tests that have ended."""
        return sum(self._spent.values())

    def close(self) -> None:
        """End all interpreters."""
        for _ in range(self._n_workers):
            worker = self._idle.get()
            if worker is not None:
                self._stop(worker)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _start(self) -> Worker:
        settings: dict[str, Any] = {"level": self.level, "limits": self.limits.in_bytes(), "imports": self._imports}
        folder = tempfile.mkdtemp(prefix="camelid-sandbox-") if self.level == "basic" else None
        try:
            worker = Worker(settings | {"scratch": folder}, self._view)
        except BaseException:
            if folder:
                Path(folder).rmdir()
            raise
        if folder:
            with self._lock:
                self._folders[worker] = folder
        return worker

    def _tidy(self, worker: Worker) -> None:
        """Empty the scratch folder of basic; strict's went away with its program."""
        folder = self._folders.get(worker)
        for entry in os.scandir(folder) if folder else ():
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, onerror=_allow)
            else:
                Path(entry.path).unlink()

    def _stop(self, worker: Worker | None) -> None:
        if worker is None:
            return
        worker.close()
        self._tidy(worker)
        with self._lock:
            folder = self._folders.pop(worker, None)
        if folder:
            Path(folder).rmdir()


def _allow(function: Any, path: str, _: Any) -> None:
    """A folder that its maker may not read, such as chmod 0 leaves."""
    place = Path(path)
    place.parent.chmod(0o700)
    if not place.is_symlink():
        place.chmod(0o700)
    shutil.rmtree(place, ignore_errors=True) if place.is_dir() else function(path)


def _as_json(test: Check) -> dict[str, Any]:
    return {"test": test.source, "calls": test.calls, "entry_point": test.entry_point, "setup": test.setup}


_SIGNALS = {-9: "killed", -11: "segmentation fault", -6: "aborted", -24: "processor time limit", -25: "file too large"}


def _ran(answer: dict[str, Any], limits: Limits, test: Check | None) -> Ran:
    how, went = answer["how"], answer["went"]
    passed = how == "passed" or (how == "test" and went["kind"] == "passed")
    limit = how if how in ("time", "output", "memory") else None
    # The kernel's two counts of processor time differ by some percent.
    if answer["status"] == -9 and answer["cpu_seconds"] > 0.8 * limits.cpu_seconds and not limit and not passed:
        limit = "processor time"
    if passed:
        reason = "passed"
    elif limit:
        reason = f"{limit} limit"
    elif how == "lost":
        reason = "the sandbox's interpreter was lost"
    elif went and went["kind"] != "program":
        reason = _why(went, test)
    else:
        reason = _own_end(answer)
        if reason.startswith("MemoryError"):
            limit, reason = "memory", "memory limit"
    words = (answer["stdout"], answer["stderr"], answer["seconds"], answer["cpu_seconds"])
    return Ran(passed, reason, *words, limit=limit)


def _why(went: dict[str, Any], test: Check | None) -> str:
    if went["kind"] == "name":
        return f"{went['message']}: not defined by the program"
    lines = test.source.splitlines() if test else []
    line = lines[went["line"] - 1].strip()[:200] if 0 < went["line"] <= len(lines) else "before the test"
    if went["kind"] == "AssertionError":
        return f"assertion failed: {line}"
    return f"{went['kind']}: {went['message']} (at: {line})"


def _own_end(answer: dict[str, Any]) -> str:
    status = answer["status"]
    if answer["went"] and status == -9:  # it was still there when its test gave up
        return "answers its test with what is no plain data"
    if status < 0:
        return _SIGNALS.get(status, f"ended by signal {-status}")
    lines = [line for line in answer["stderr"].splitlines() if line.strip()]
    if status == 0 or (lines and lines[-1].startswith("SystemExit")):
        return f"ended early, with status {status}"
    return lines[-1].strip()[:200] if lines else f"ended with status {status}"
