"""Cases run in forked workers, within bounds on time and memory; what ends a worker is seen, and the next goes on."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from camelid.errors import CamelidError

SECONDS = 2.0  # of processor time, for each case
MEMORY = 300 << 20  # bytes of address space beyond what a worker has at first
_SILENT = 60.0  # seconds without a word: the case waits for something


@dataclass(frozen=True)
class Failure:
    """A case that did anything else than succeed or say one line."""

    case: int
    what: str


def run_cases(
    cases: Iterable[int], run: Callable[[int], object], prepare: Callable[[], None], seconds: float = SECONDS
) -> list[Failure]:
    """Run cases one after the other in a worker; after each that ends it, in a new one.

    Args:
        cases: numbers of the cases.
        run: does one; it may raise a `CamelidError` of one line.
        prepare: what a worker does first, without bounds.
        seconds: of processor time, for each case.
    """
    left, failures = list(cases), []
    while left:
        done, failed, ended = _one_worker(left, run, prepare, seconds)
        failures += failed
        if ended is not None and done < len(left):
            failures.append(Failure(left[done], ended))
            done += 1
        left = left[done:]
    return failures


def _one_worker(
    cases: list[int], run: Callable[[int], object], prepare: Callable[[], None], seconds: float
) -> tuple[int, list[Failure], str | None]:
    """How many cases are done, those that failed, and what ended the worker before the last one."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        status = 1
        try:
            _work(cases, run, prepare, seconds, writing)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    done, failures = 0, []
    for told in _told(reading, child):
        done += told is None
        if told is not None:
            failures.append(Failure(cases[done], told))
    os.close(reading)
    _, status = os.waitpid(child, 0)
    return done, failures, None if done == len(cases) else _end(status)


def _told(reading: int, child: int) -> Iterator[str | None]:
    """What a worker says: None after each case, before it what was wrong."""
    begun = b""
    while True:
        if not select.select([reading], [], [], _SILENT)[0]:
            os.kill(child, signal.SIGKILL)
        more = os.read(reading, 1 << 16)
        if not more:
            return
        *lines, begun = (begun + more).split(b"\n")
        yield from map(json.loads, lines)


def _end(status: int) -> str:
    if not os.WIFSIGNALED(status):
        return f"the process left with status {os.WEXITSTATUS(status)}"
    number = os.WTERMSIG(status)
    said = {signal.SIGPROF: "took too long", signal.SIGKILL: f"said nothing for {_SILENT} s"}
    return said.get(signal.Signals(number), f"ended by {signal.Signals(number).name}")


def _work(
    cases: list[int], run: Callable[[int], object], prepare: Callable[[], None], seconds: float, writing: int
) -> None:
    prepare()
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    with os.fdopen(writing, "wb", buffering=0) as out:
        for case in cases:
            signal.setitimer(signal.ITIMER_PROF, seconds)
            problem = _problem(run, case)
            signal.setitimer(signal.ITIMER_PROF, 0)
            if problem is not None:
                out.write(json.dumps(problem).encode() + b"\n")
            out.write(b"null\n")


def _problem(run: Callable[[int], object], case: int) -> str | None:
    """What is wrong with how a case ended; None if nothing is."""
    try:
        run(case)
    except CamelidError as error:
        return f"hides a MemoryError: {error}" if "MemoryError" in str(error) else None
    except MemoryError:
        return f"more than {MEMORY >> 20} MB: {_where()}"
    except BaseException:
        return _where()
    return None


def _where() -> str:
    kind, error, trace = sys.exc_info()
    places = [f"{Path(row.filename).name}:{row.lineno} {row.name}" for row in traceback.extract_tb(trace)[-6:]]
    return f"{kind.__name__ if kind else ''}: {str(error)[:200]} — {' < '.join(reversed(places))}"
