"""A fork of the warm interpreter that becomes a program, with all rights given up before its first line runs."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import gc
import os
import random
import resource
import sys
import threading
import types
from collections.abc import Callable
from typing import Any, NoReturn, TextIO

from camelid.evals.sandbox.inside import channel, kernel, landlock, namespaces, plain, seccomp

_CHANNEL = 3
TOKEN_BYTES = 32
MOST_ITEMS = 1_000_000  # that an iterator of the program's gives its test


def shut_in(settings: dict[str, Any], stdout: int | None, stderr: int | None, *others: int) -> None:
    """In a new fork: a scratch folder, limits, no rights, few system calls; and no file descriptors but standard input
    (empty), output and error (None: thrown away), and the others as 3, 4 …"""
    strict, limits = settings["level"] == "strict", settings["limits"]
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    kept = [null if fd is None else fd for fd in (null, stdout, stderr, *others)]
    aside = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in kept]  # so that none is written over before its turn
    for place, fd in enumerate(aside):
        os.dup2(fd, place)
    os.closerange(len(aside), 1 << 16)
    if strict:
        namespaces.own_scratch(limits["scratch_bytes"], settings["counted"])
        namespaces.become_user()
    else:
        os.chdir(settings["scratch"])
        if os.geteuid() == 0:
            kernel.drop_capabilities()
    _limit(settings)
    kernel.control(kernel.PR_SET_NO_NEW_PRIVS, 1, "no new privileges")
    if settings["landlock"]:
        scratch = namespaces.SCRATCH if strict else settings["scratch"]
        landlock.restrict(settings["readable"], [scratch, "/dev/null"])
    if settings["seccomp"]:
        apart = strict or (settings["landlock"] and landlock.version() >= 6)  # which then keeps signals from others
        seccomp.restrict(alone=strict, signals=apart)


def _limit(settings: dict[str, Any]) -> None:
    limits = settings["limits"]
    memory = settings["base_memory"] + limits["memory_bytes"]
    rows = [
        (resource.RLIMIT_AS, memory, memory),
        (resource.RLIMIT_CPU, limits["cpu_seconds"], limits["cpu_seconds"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"], limits["file_bytes"]),
        (resource.RLIMIT_NOFILE, limits["open_files"], limits["open_files"]),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_STACK, 8 << 20, 8 << 20),
    ]
    if settings["level"] == "strict":  # the kernel counts per user and namespace; else it counts all that the user runs
        most = limits["processes"] + settings["own_processes"]
        rows.append((resource.RLIMIT_NPROC, most, most))
    for kind, soft, hard in rows:
        _, allowed = resource.getrlimit(kind)
        if allowed != resource.RLIM_INFINITY:
            soft, hard = min(soft, allowed), min(hard, allowed)
        resource.setrlimit(kind, (soft, hard))


def _as_main() -> dict[str, Any]:
    """A fresh `__main__`; nothing of the sandbox is left in `sys.modules`, and random numbers begin at 0 for all."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "camelid"]:
        del sys.modules[name]
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    sys.argv[:] = ["program.py"]
    random.seed(0)
    gc.collect(0)
    gc.freeze()  # what was there before is none of the program's, and is not looked through again
    return main.__dict__


def run_file(source: str) -> NoReturn:
    """Run a program to its end, and only then write the token that was sent.

    Meanwhile only `os.writev` holds the token, in memory of its own: no frame, object or file leads there, in any
    version of Python. A program that reads its own memory can find it, and claims no more than its own end by it.
    """
    os.register_at_fork(after_in_child=functools.partial(os.dup2, 0, _CHANNEL))  # a copy's end is not the program's
    leave, namespace = os._exit, _as_main()
    os.writev(_CHANNEL, _TokenAndEnd(source, namespace))
    leave(0)


class _TokenAndEnd:
    """A sequence whose first item is the token, and whose second is there when the program has ended."""

    def __init__(self, source: str, namespace: dict[str, Any]) -> None:
        self.source, self.namespace = source, namespace

    def __len__(self) -> int:
        return 2

    def __getitem__(self, place: int) -> bytes:
        return os.read(_CHANNEL, TOKEN_BYTES) if place == 0 else _to_the_end(self.source, self.namespace)


def _to_the_end(source: str, namespace: dict[str, Any]) -> bytes:
    leave, wait, last = os._exit, threading._shutdown, atexit._run_exitfuncs  # type: ignore[attr-defined]
    out, errors = sys.stdout, sys.stderr
    try:
        _execute(source, namespace)
        wait()
        last()
        out.flush()
        errors.flush()
    except BaseException as error:
        _tell(error, leave)
    return b""


def _execute(source: str, namespace: dict[str, Any]) -> None:
    exec(compile(source, "program.py", "exec", dont_inherit=True), namespace)


def _tell(error: BaseException, leave: Callable[[int], NoReturn]) -> NoReturn:
    """Say how a program ended before its end, as Python does, on standard error."""
    import traceback

    status = 1
    try:
        if isinstance(error, SystemExit):
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
            sys.stderr.write(f"SystemExit: {error.code}\n")
        else:
            frames = error.__traceback__
            while frames is not None and frames.tb_frame.f_code.co_filename != "program.py":
                frames = frames.tb_next
            sys.stderr.write("".join(traceback.format_exception(type(error), error, frames)))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        leave(status & 255)


def serve_calls(source: str) -> NoReturn:
    """Run a program, say which names it has, then do what its test asks until that is over."""
    leave, namespace, kept, out = os._exit, _as_main(), list[object](), sys.stdout
    try:
        _execute(source, namespace)
        _flush(out)
        channel.send(_CHANNEL, plain.dumps([name for name in namespace if isinstance(name, str)], str))
        while True:
            try:
                request = channel.receive(_CHANNEL, plain.MOST_BYTES)
            except channel.EndedError:
                break
            answer = _answer(request, namespace, kept)
            _flush(out)
            channel.send(_CHANNEL, answer)
        sys.stdout.flush()
    except BaseException as error:
        _tell(error, leave)
    leave(0)


def _flush(out: TextIO) -> None:
    """Before each answer: with its test's end the program is ended too, and what it has not written would be lost."""
    with contextlib.suppress(OSError, ValueError):  # it has closed its output
        out.flush()


def _answer(request: bytes, namespace: dict[str, Any], kept: list[object]) -> bytes:
    def keep(value: object) -> dict[str, int]:
        kept.append(value)
        return {"o": len(kept) - 1}

    what, target, arguments, named = plain.loads(request, kept.__getitem__)
    before = [_copy(argument) for argument in arguments]
    try:
        value = _do(what, target, arguments, named, namespace)
        changed = [(place, now) for place, now in enumerate(arguments) if before[place] != _copy(now)]
        return plain.dumps(("value", value, changed), keep)
    except Exception as error:
        return plain.dumps(("raised", (type(error).__name__, str(error)[:1000]), []), keep)


def _copy(value: object) -> bytes | None:
    return plain.dumps(value, lambda _: None) if isinstance(value, list | dict | set) else None


def _do(what: str, target: Any, arguments: tuple[Any, ...], named: dict[str, Any], namespace: dict[str, Any]) -> Any:
    if what == "get":
        return namespace[target]
    if what == "call":
        return target(*arguments, **named)
    if what == "attribute":
        return getattr(target, *arguments)
    if what == "set":
        return setattr(target, *arguments)
    if what == "item":
        return target[arguments[0]]
    if what == "length":
        return len(target)
    items = []
    for item in target:
        items.append(item)
        if len(items) > MOST_ITEMS:
            raise OverflowError(f"more than {MOST_ITEMS} items")
    return items
