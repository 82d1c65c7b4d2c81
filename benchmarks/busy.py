"""Speed beside other work: alone, with one and two busy processes, and under a quota of 1.5 processors; in turns.

python benchmarks/busy.py MODEL.gguf [--against PYTHON] [--llama-bench PATH] [--out benchmarks/results/busy.jsonl]

One thread and two decode and read the same. `--against` is the Python of another camelid (an earlier one, say), which
takes part in the turns. Medians of five with least and most, a line of JSON each, tokens a second. The quota needs
root and Linux's control groups; without them it is left out, which is said.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

TURNS, PERIOD = 5, 100_000  # microseconds
SITUATIONS = ("quiet", "one busy", "two busy", "quota 1.5")


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--prefill", type=int, default=256)
    parser.add_argument("--decode", type=int, default=128)
    parser.add_argument("--situations", nargs="*", default=SITUATIONS, choices=SITUATIONS)
    parser.add_argument("--against", metavar="PYTHON", help="of another camelid")
    parser.add_argument("--llama-bench", metavar="PATH")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    choices = parser.parse_args()
    if choices.worker:
        work(choices)
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # no busy process stays behind
        measure(choices)


def work(choices: argparse.Namespace) -> None:
    """A process with a model: for each line it is given, what it did in a second."""
    from camelid_runner import CamelidRunner

    runner = CamelidRunner(str(choices.model), choices.worker, max(choices.prefill, 64) + choices.decode + 64)
    ids = [random.Random(1).randrange(3, 1000) for _ in range(choices.prefill)]
    for line in sys.stdin:
        started = time.perf_counter()
        if line.strip() == "prefill":
            tokens = 0
            while tokens < 4 * choices.prefill:  # a slice of the scheduler's is no small part of one
                runner.forward([(ids, 0, 0)])
                tokens += choices.prefill
        else:
            for i in range(choices.decode):
                runner.forward([(ids[i % len(ids) :][:1], i, 0)])
            tokens = choices.decode
        print(tokens / (time.perf_counter() - started), flush=True)


class Worker:
    """A process with a model, which waits between its turns."""

    def __init__(self, python: str, threads: int) -> None:
        arguments = [python, __file__, *sys.argv[1:], "--worker", str(threads)]
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def speed(self, test: str) -> float:
        """Tokens a second."""
        assert self.process.stdin
        assert self.process.stdout
        print(test, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def close(self) -> None:
        """End it."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def measure(choices: argparse.Namespace) -> None:
    """All situations, one after the other; everybody in turns within each."""
    pythons = {"camelid": sys.executable} | ({"against": choices.against} if choices.against else {})
    workers = {(name, n): Worker(python, n) for name, python in pythons.items() for n in choices.threads}
    runs: dict[tuple[str, int], Callable[[str], float]] = {key: worker.speed for key, worker in workers.items()}
    quiet: dict[tuple[str, int, str], float] = {}
    try:
        for situation in choices.situations:
            with load(situation, [worker.process.pid for worker in workers.values()]) as why_not:
                if why_not:
                    print(f"{situation} is left out: {why_not}", file=sys.stderr)
                    continue
                names = list(runs) + [("llama.cpp", n) for n in choices.threads if choices.llama_bench]
                speeds: dict[tuple[str, int, str], list[float]] = {}
                for turn in range(TURNS + 1):
                    for name, threads in names:
                        if name == "llama.cpp":
                            measured = llama_bench(choices, threads)
                        else:
                            measured = {test: runs[name, threads](test) for test in ("decode", "prefill")}
                        for test, speed in measured.items():
                            speeds.setdefault((name, threads, test), []).extend([speed] if turn else [])
                report(choices, situation, speeds, quiet)
    finally:
        for worker in workers.values():
            worker.close()


def report(
    choices: argparse.Namespace,
    situation: str,
    speeds: dict[tuple[str, int, str], list[float]],
    quiet: dict[tuple[str, int, str], float],
) -> None:
    """A line each: the speed, and its share of the same engine's quiet speed and of one thread's in this situation."""
    for (name, threads, test), values in speeds.items():
        median = statistics.median(values)
        quiet.setdefault((name, threads, test), median)
        row: dict[str, object] = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": choices.model.name,
            "situation": situation,
            "test": test,
            "engine": name,
            "threads": threads,
            "median": round(median, 1),
            "min": round(min(values), 1),
            "max": round(max(values), 1),
            "of_quiet": round(median / quiet[name, threads, test], 3),
        }
        if threads > 1 and (name, 1, test) in speeds:
            row["of_one_thread"] = round(median / statistics.median(speeds[name, 1, test]), 3)
        print(json.dumps(row), flush=True)
        if choices.out:
            with choices.out.open("a") as file:
                file.write(json.dumps(row) + "\n")


def llama_bench(choices: argparse.Namespace, threads: int) -> dict[str, float]:
    """One run of a llama-bench binary."""
    sizes = ["-p", str(choices.prefill), "-n", str(choices.decode), "-t", str(threads), "-r", "1", "-o", "json"]
    arguments = [choices.llama_bench, "-m", str(choices.model), *sizes]
    rows = json.loads(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)
    return {"decode" if row["n_gen"] else "prefill": row["avg_ts"] for row in rows}


@contextlib.contextmanager
def load(situation: str, pids: list[int]) -> Iterator[str | None]:
    """Make the situation while it lasts; gives the reason where it cannot be made."""
    if situation == "quota 1.5":
        with quota(1.5, [*pids, os.getpid()]) as why_not:
            yield why_not
        return
    n = SITUATIONS.index(situation)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    time.sleep(0.5)
    try:
        yield None
    finally:
        for process in busy:
            process.kill()
            process.wait()


@contextlib.contextmanager
def quota(processors: float, pids: list[int]) -> Iterator[str | None]:
    """A control group of so many processors, of either version, for these processes and those that they start."""
    groups = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    first = next((path for names, path in groups.items() if "cpu" in names.split(",")), None)
    parent = Path("/sys/fs/cgroup/cpu" if first is not None else "/sys/fs/cgroup", (first or groups[""]).lstrip("/"))
    group = parent / f"camelid-busy-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        yield f"no control group: {error}"
        return
    try:
        try:
            if first is not None:
                (group / "cpu.cfs_period_us").write_text(str(PERIOD))
                (group / "cpu.cfs_quota_us").write_text(str(int(processors * PERIOD)))
            else:
                (group / "cpu.max").write_text(f"{int(processors * PERIOD)} {PERIOD}")
            for pid in pids:
                (group / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            yield f"no control group: {error}"
        else:
            yield None
    finally:
        for pid in pids:
            with contextlib.suppress(OSError):
                (parent / "cgroup.procs").write_text(str(pid))
        group.rmdir()


if __name__ == "__main__":
    main()
