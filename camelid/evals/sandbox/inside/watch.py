"""Starts a program, and its test if there is one; waits with a clock; ends both with all that they started."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from camelid.evals.sandbox.inside import channel, check, namespaces, program

_LOOK_EVERY = 0.05  # seconds between two looks at the memory of all processes
_MOST_VERDICT = 1 << 16


def run(settings: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
    """Run one program; the test, if `job` says that there is one, is read by its own process alone.

    Returns:
        how: passed, time, output, memory, exit or test; status, stdout, stderr, went (of the test), read,
        seconds, cpu_seconds, total_cpu_seconds.
    """
    started = time.monotonic()
    outputs = [os.pipe(), os.pipe()]
    ours, theirs = socket.socketpair()
    verdict = os.pipe()

    def be_program() -> None:
        program.shut_in(settings, outputs[0][1], outputs[1][1], theirs.fileno())
        program.serve_calls(job["program"]) if job["test"] else program.run_file(job["program"])

    def be_test() -> None:
        test = json.loads(channel.receive(0, 1 << 30))
        os.write(verdict[1], b"\n")  # it was read
        program.shut_in(settings, None, None, ours.fileno(), verdict[1])
        check.run(test, 3, 4)

    processes = [_start(settings, be_program)]
    if job["test"]:
        processes.append(_start(settings, be_test))
    else:
        token = os.urandom(program.TOKEN_BYTES)
        ours.sendall(token)
    for fd in (outputs[0][1], outputs[1][1], verdict[1]):
        os.close(fd)
    theirs.close()
    if job["test"]:
        ours.close()
    watched = _Watched(settings, processes, [outputs[0][0], outputs[1][0], verdict[0]])
    how = watched.until(started + settings["limits"]["seconds"])
    status, cpu_seconds = _end(settings, processes)
    watched.drain()
    result: dict[str, Any] = {"how": how or "exit", "status": status, "went": None, "read": True}
    if job["test"]:
        first, _, words = bytes(watched.read[verdict[0]]).partition(b"\n")
        result["read"] = not first and bool(watched.read[verdict[0]])
        result["went"] = json.loads(words) if words else None
        if not how and result["went"]:
            result["how"] = "test"
    else:
        ours.setblocking(False)
        try:
            said = ours.recv(1 << 12)
        except OSError:
            said = b""
        ours.close()
        if not how and status == 0 and said == token:
            result["how"] = "passed"
    watched.close()
    texts = [bytes(watched.read[fd]).decode("utf-8", "replace") for fd in (outputs[0][0], outputs[1][0])]
    result |= {"stdout": texts[0], "stderr": texts[1], "cpu_seconds": cpu_seconds}
    total = sum(os.times()[:4])  # of this process and all that it has ended
    return result | {"seconds": time.monotonic() - started, "total_cpu_seconds": total}


def _start(settings: dict[str, Any], become: Callable[[], None]) -> int:
    if settings["level"] == "strict":
        namespaces.own_processes(settings["pid_namespace"])
    pid = os.fork()
    if pid == 0:
        _become(become)
    return pid


def _become(become: Callable[[], None]) -> NoReturn:
    try:
        become()
        os._exit(0)
    except BaseException as error:
        os.write(2, f"sandbox: {type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(125)


class _Watched:
    """The processes of one run, and what they write."""

    def __init__(self, settings: dict[str, Any], processes: list[int], fds: list[int]) -> None:
        self.settings, self.limits = settings, settings["limits"]
        self.fds, self.open = fds, set(fds)
        self.read: dict[int, bytearray] = {fd: bytearray() for fd in fds}
        self.ends = {os.pidfd_open(pid): pid for pid in processes}
        self.last = list(self.ends)[-1]  # the test's end, or the program's where there is none
        self.poll = select.poll()
        for fd in [*fds, *self.ends]:
            self.poll.register(fd, select.POLLIN)
        self.poll.register(0, 0)  # that camelid itself is gone
        self.length = resource.getpagesize()

    def until(self, deadline: float) -> str | None:
        """Wait for the end; a word if it was not its own."""
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return "time"
            for fd, _ in self.poll.poll(1000 * min(left, _LOOK_EVERY) + 1):
                if fd == 0:
                    sys.exit(0)
                if fd == self.last:
                    return None
                if fd in self.open:
                    self._take(fd)
                else:  # the program's end, before its test's
                    self.poll.unregister(fd)
            if any(len(self.read[fd]) > self.limits["output_bytes"] for fd in self.fds):
                return "output"
            if self._memory() > self.limits["memory_bytes"]:
                return "memory"

    def _take(self, fd: int) -> None:
        piece = os.read(fd, 1 << 16)
        self.read[fd] += piece
        if not piece:
            self.open.discard(fd)
            self.poll.unregister(fd)

    def _memory(self) -> int:
        """Bytes that all processes of the run hold, where they can be counted."""
        if not self.settings["counted"]:
            return 0
        pages = 0
        for entry in os.scandir(namespaces.PROC):
            if entry.name.isdigit() and entry.name != "1":
                try:
                    words = Path(entry.path, "statm").read_text().split()
                except OSError:
                    continue  # gone meanwhile
                pages += int(words[1]) - self.settings["base_pages"]
        return pages * self.length

    def drain(self) -> None:
        """Read what was written before the end, as far as the limit."""
        for fd in list(self.open):
            os.set_blocking(fd, False)
            try:
                while fd in self.open and len(self.read[fd]) <= self.limits["output_bytes"]:
                    self._take(fd)
            except OSError:
                pass

    def close(self) -> None:
        """Close all file descriptors."""
        for fd in [*self.fds, *self.ends]:
            os.close(fd)


def _end(settings: dict[str, Any], processes: list[int]) -> tuple[int, float]:
    """End the program, its test, and all that they started; the program's status and processor seconds."""
    ends = []
    for pid in reversed(processes):
        _signal(pid, settings["level"] != "strict")
        _, status, usage = os.wait4(pid, 0)
        ends.append((os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime))
    while settings["level"] != "strict":  # what left its group, where that could not be forbidden, is ours now
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                _end_children()
        except ChildProcessError:
            break
    return ends[-1]


def _signal(pid: int, group: bool) -> None:
    try:
        os.killpg(pid, signal.SIGKILL) if group else os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(pid, signal.SIGKILL)  # it has not made its group yet; a zombie can be signalled


def _end_children() -> None:
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    for word in path.read_text().split():
        os.kill(int(word), signal.SIGKILL)
    time.sleep(0.001)
