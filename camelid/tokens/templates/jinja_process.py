"""Chat templates run in a process of their own, which is ended when it takes too long or breaks.

No operation of a template can then hold this process: not its threads (Python runs one at a time), not its memory. A
process is started when the first template is used, and kept; at most `MOST` run side by side.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from camelid.errors import FormatError, OptionError, ResourceError
from camelid.tokens.templates.jinja_pipe import read_message, write_message

SECONDS = 2.0  # of processor time, for one rendering
PATIENCE = 60.0  # seconds until a process that does not answer is ended, for machines that are very busy
MOST = 2
INSTEAD = "name a chat format instead"
_START = "import sys; sys.path += sys.argv[1:]; from camelid.tokens.templates.jinja_worker import main; main()"


class _Process:
    """One running `jinja_worker`."""

    def __init__(self) -> None:
        _watch()
        places = [Path(__file__).parents[3], *map(_place, ("jinja2", "markupsafe"))]
        command = [sys.executable, "-I", "-S", "-c", _START, *dict.fromkeys(map(str, places))]
        try:
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, cwd="/"
            )
        except OSError as error:
            raise ResourceError(
                f"chat template: no process can be started for it ({error.strerror}); {INSTEAD}"
            ) from None

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._child.pid

    def ask(self, request: Mapping[str, Any]) -> str | None:
        """The answer to a request; None if the process has ended instead, or had to be."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            write_message(self._child.stdin, json.dumps(request, default=_plain).encode())
            if not select.select([self._child.stdout], [], [], PATIENCE)[0]:
                self._child.kill()
            answer = read_message(self._child.stdout)
        except OSError:
            answer = None
        return None if answer is None else answer.decode("utf-8", "surrogatepass")

    def end(self) -> int:
        """End the process; its status."""
        for stream in (self._child.stdin, self._child.stdout):
            with suppress(OSError):
                if stream is not None:
                    stream.close()
        try:
            return self._child.wait(1)
        except subprocess.TimeoutExpired:
            self._child.kill()
            return self._child.wait()


_idle: list[_Process] = []
_room = threading.BoundedSemaphore(MOST)


def ask(source: str, values: Mapping[str, Any] | None = None, marks: tuple[str, str] = ("", "")) -> str:
    """Render a template with values, or compile it: then, as JSON, the names that it looks up, and whether it has the
    tag `{% generation %}`, around whose content `marks` are put.

    Raises:
        OptionError: the template refuses the values, in its own words, or breaks on them.
        FormatError: it is no template, runs too long or asks for too much memory.
        ResourceError: no process can be started.
    """
    request: dict[str, Any] = {"key": hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()}
    request |= {"seconds": SECONDS, "marks": marks} | ({} if values is None else {"values": values})
    with _room:
        answer, status = _ask_one(request, source)
        if answer is None and status != -signal.SIGPROF:  # others may have ended it before, and all idle ones
            answer, status = _ask_one(request, source, fresh=True)
    if answer is None:
        why = f"runs longer than {SECONDS:g} seconds" if status == -signal.SIGPROF else "asks for too much"
        raise FormatError(f"chat template: {why}; {INSTEAD}")
    letter, text = answer[0], answer[1:]
    if letter == "r":
        raise OptionError(f"chat template: {text}")
    if letter == "f":
        raise FormatError(f"chat template: {text}; {INSTEAD}")
    return text


def _ask_one(request: Mapping[str, Any], source: str, fresh: bool = False) -> tuple[str | None, int]:
    """The answer of an idle process, or a new one; None and the status with which it ended."""
    process = _idle.pop() if _idle and not fresh else _Process()
    try:
        answer = process.ask(request)
        if answer == "?":
            answer = process.ask({**request, "source": source})
    except BaseException:  # its answer would be taken for the next one's
        process.end()
        raise
    if answer is None:
        return None, process.end()
    _idle.append(process)
    return answer, 0


def _place(module: str) -> Path:
    """Where a library lies, which is not loaded for this."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parents[1]


def _plain(value: object) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise OptionError(f"chat template: {type(value).__name__} is no value for a template; give text, numbers and lists")


def _end_all() -> None:
    while _idle:
        _idle.pop().end()


def _forget() -> None:
    """In a forked process: the pipes are the parent's."""
    global _room
    _idle.clear()
    _room = threading.BoundedSemaphore(MOST)


@functools.cache
def _watch() -> None:
    """Once: processes end with this one, and are not shared with a forked one."""
    atexit.register(_end_all)
    os.register_at_fork(after_in_child=_forget)
