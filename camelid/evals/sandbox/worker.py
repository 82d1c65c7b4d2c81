"""One warm interpreter, seen from outside: started, asked, ended."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from camelid.errors import ResourceError, UnsupportedError
from camelid.evals.sandbox.view import View

_START = """
import importlib, sys, types
for name, folder in (("camelid", 4), ("camelid.evals", 3), ("camelid.evals.sandbox", 2)):
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = ["/".join(sys.argv[1].split("/")[:-folder])]
importlib.import_module("camelid.evals.sandbox.inside.warm").main()
"""
_GRACE = 5.0  # seconds beyond a program's own limit, after which the warm interpreter itself is ended
_START_SECONDS = 60.0
_LACKS = (
    "sandbox: strict needs what this machine forbids or lacks ({}); allow it (as user namespaces for your user), "
    "or take --sandbox basic --i-accept-running-generated-code"
)


class WorkerEndedError(Exception):
    """The warm interpreter did not answer."""


class Worker:
    """A warm interpreter that runs one program at a time. Not for several threads at once.

    Attributes:
        enforced: what holds for its programs, one line each.
    """

    def __init__(self, settings: dict[str, Any], view: View) -> None:
        """Start it.

        Raises:
            UnsupportedError: the level's protections are not to be had here; says which lacks.
            ResourceError: it does not start.
        """
        self._seconds = settings["limits"]["seconds"] + _GRACE
        inside = str(Path(__file__).parent / "inside" / "warm.py")
        hashes = {"PYTHONHASHSEED": "0", "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        scratch = settings["scratch"] or "/scratch"
        environment = hashes | {"HOME": scratch, "TMPDIR": scratch, "LANG": "C.UTF-8", "PYTHONUTF8": "1"}
        if found := os.environ.get("LD_LIBRARY_PATH"):  # some interpreters start only with it; programs do not see it
            environment["LD_LIBRARY_PATH"] = found
        command = [sys.executable, "-S", "-s", "-P", "-B", "-c", _START, inside]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, cwd="/", start_new_session=True, bufsize=0
        )
        try:
            self._send(settings | asdict(view))
            answer = self._receive(time.monotonic() + _START_SECONDS)
        except WorkerEndedError:
            said = self._last_words()
            self.close()
            raise ResourceError(f"sandbox: its interpreter does not start: {said}; free memory, or report it") from None
        if "lacks" in answer:
            self.close()
            raise UnsupportedError(_LACKS.format(answer["lacks"]))
        self.enforced: tuple[str, ...] = tuple(answer["enforced"])

    def run(self, program: str, test: dict[str, Any] | None) -> dict[str, Any]:
        """What `watch.run` says of a program.

        Raises:
            WorkerEndedError: no answer; this worker is ended.
        """
        self._send({"program": program, "test": test is not None})
        if test is not None:
            self._send(test)
        return self._receive(time.monotonic() + self._seconds)

    def _send(self, words: dict[str, Any]) -> None:
        data = json.dumps(words).encode()
        assert self._process.stdin is not None
        view = memoryview(len(data).to_bytes(4, "big") + data)
        try:
            while view:
                view = view[self._process.stdin.write(view) :]
        except OSError:
            raise WorkerEndedError from None

    def _receive(self, deadline: float) -> dict[str, Any]:
        length = int.from_bytes(self._exactly(4, deadline), "big")
        return dict(json.loads(self._exactly(length, deadline)))

    def _exactly(self, length: int, deadline: float) -> bytes:
        assert self._process.stdout is not None
        fd, parts = self._process.stdout.fileno(), bytearray()
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        while len(parts) < length:
            left = deadline - time.monotonic()
            piece = os.read(fd, length - len(parts)) if left > 0 and poll.poll(1000 * left) else b""
            if not piece:
                raise WorkerEndedError
            parts += piece
        return bytes(parts)

    def _last_words(self) -> str:
        self._process.kill()
        _, said = self._process.communicate()
        lines = said.decode("utf-8", "replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "it says nothing")[:300]

    def close(self) -> None:
        """End it, and all that it started."""
        self._process.kill()
        self._process.communicate()
