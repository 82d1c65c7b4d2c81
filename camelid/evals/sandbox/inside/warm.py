"""The warm interpreter: started once, with nothing but the standard library, it forks for each program.

    request   settings, once; then for each program {"program", "test": bool}, and after it the test, if there is one
    answer    {"enforced": […]} or {"lacks": …}, once; then for each program what `watch.run` returns

Messages are those of channel.py, requests on standard input, answers on standard output.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from camelid.evals.sandbox.inside import channel, kernel, landlock, namespaces, seccomp, watch

# What programs import most, read once. A name that this version of Python lacks is left out.
_USUAL = """
abc array bisect calendar cmath collections copy dataclasses datetime decimal enum fractions functools hashlib heapq io
itertools json math numbers operator os random re statistics string sys textwrap time traceback typing
"""
_MOST = 1 << 30


def main() -> None:
    """Serve until standard input ends."""
    settings = json.loads(channel.receive(0, _MOST))
    os.environ.pop("LD_LIBRARY_PATH", None)
    sys.path[:] = [path for path in sys.path if path.startswith("/")] + settings["paths"]
    try:
        for name in [*_USUAL.split(), *settings["imports"]]:
            importlib.import_module(name)
    except ImportError as error:
        _answer({"lacks": f"import: {error}"})
        return
    try:
        enforced = _shut_in(settings)
    except OSError as error:
        _answer({"lacks": error.strerror or str(error)})
        return
    gc.collect()
    gc.freeze()
    _answer({"enforced": enforced})
    while True:
        try:
            job = json.loads(channel.receive(0, _MOST))
        except channel.EndedError:
            return
        result = watch.run(settings, job)
        _answer(result)
        if not result["read"]:  # the test's process ended before it read the test, which is still on its way
            return


def _answer(words: dict[str, Any]) -> None:
    channel.send(1, json.dumps(words).encode())


def _shut_in(settings: dict[str, Any]) -> list[str]:
    """Leave the machine as far as the level says; what holds from now on, one line each.

    Raises:
        OSError: strict, and the machine lacks something.
    """
    strict = settings["level"] == "strict"
    pages = [int(word) for word in Path("/proc/self/statm").read_text().split()]
    settings["base_memory"], settings["base_pages"] = pages[0] * os.sysconf("SC_PAGE_SIZE"), pages[1]
    settings |= {"seccomp": seccomp.available(), "landlock": landlock.version() > 0, "counted": False}
    if strict:
        if not settings["seccomp"]:
            raise OSError(0, "seccomp")
        settings["own_processes"] = 4  # these two, and the test with its thread
        settings["pid_namespace"] = namespaces.leave()
        settings["counted"] = namespaces.build_view(*(settings[name] for name in ("readable", "hidden", "packages")))
        if settings["landlock"]:
            settings["readable"] = ["/"]
    else:
        kernel.control(kernel.PR_SET_CHILD_SUBREAPER, 1, "subreaper")
        settings["readable"] = _without(settings["readable"], settings["hidden"]) + settings["packages"]
    return _enforced(settings)


def _without(paths: list[str], hidden: list[str]) -> list[str]:
    """The paths; of a folder that holds a hidden one, what else is in it."""
    found = []
    for path in paths:
        below = [folder for folder in hidden if folder.startswith(path + "/")]
        if path in hidden or not below:
            found += [] if path in hidden else [path]
        else:
            found += _without([entry.path for entry in os.scandir(path)], hidden)
    return found


def _enforced(settings: dict[str, Any]) -> list[str]:
    limits, there = settings["limits"], landlock.version()
    whose = "each process" if not settings["counted"] else "all processes together"
    rows = [
        f"memory: {limits['memory_bytes'] >> 20} MiB for {whose}",
        f"time: {limits['seconds']:g} s by the clock, {limits['cpu_seconds']} s of a processor for each process",
        f"output: {limits['output_bytes'] >> 10} KiB",
        f"open files: {limits['open_files']}, of {limits['file_bytes'] >> 20} MiB at most",
        "environment: empty; standard input: empty",
    ]
    if settings["level"] == "strict":
        rows += [
            "users: no rights, in a user namespace",
            "files: the interpreter's alone, read-only, in a mount namespace; no /proc",
            f"scratch: {limits['scratch_bytes'] >> 20} MiB in memory, gone with the program",
            f"processes: {limits['processes']} at most, in a pid namespace that ends with the program",
            "network: none, in a network namespace",
        ]
    elif settings["landlock"]:
        rows.append(
            "files: the interpreter's alone, read-only, and a scratch folder on disk (names of others are seen)"
        )
    if settings["landlock"]:
        rows.append(f"landlock: version {there}")
    if settings["seccomp"]:
        rows.append("seccomp: no sockets, no other programs, no ptrace, no mounts")
        rows += [] if settings["level"] == "strict" else ["processes: the program alone, and its threads"]
    return rows
