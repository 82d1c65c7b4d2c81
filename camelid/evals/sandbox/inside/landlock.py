"""Landlock (https://docs.kernel.org/userspace-api/landlock.html): files, and what else a later kernel adds."""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable

from camelid.evals.sandbox.inside import kernel

_VERSION = 1  # flag of landlock_create_ruleset: which version is there?
_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_NET = 3  # bind and connect over TCP
_SCOPES = 3  # abstract unix sockets, signals
READ = _EXECUTE | _READ_FILE | _READ_DIR
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV


def version() -> int:
    """Version of Landlock's interface; 0: not there."""
    null, size, flags = ctypes.c_void_p(None), ctypes.c_size_t(0), ctypes.c_uint32(_VERSION)
    try:
        return kernel.call("landlock_create_ruleset", null, size, flags)
    except (OSError, ValueError):
        return 0


def _files(there: int) -> int:
    """All rights on files that this version knows."""
    rights = (1 << 13) - 1
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV)):
        rights |= right if there >= since else 0
    return rights


def restrict(readable: Iterable[str], writable: Iterable[str]) -> None:
    """From now on this process and its children open nothing but these paths (folders with all that is below them),
    reach no signal and no abstract socket outside, and no network, as far as the kernel's version goes.

    Raises:
        OSError: Landlock refuses.
    """
    there = version()
    rules = struct.pack("<QQQ", _files(there), _NET if there >= 4 else 0, _SCOPES if there >= 6 else 0)
    size = 24 if there >= 6 else 16 if there >= 4 else 8
    buffer = ctypes.create_string_buffer(rules[:size], size)
    ruleset = kernel.call("landlock_create_ruleset", buffer, ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        for path in readable:
            _allow(ruleset, path, READ)
        for path in writable:
            _allow(ruleset, path, _files(there) & ~_EXECUTE)
        kernel.call("landlock_restrict_self", ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not there, so nothing to allow
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _OF_FILES & _files(version())
        rule = ctypes.create_string_buffer(struct.pack("<Qi", rights, fd), 12)
        arguments = (ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint32(0))
        kernel.call("landlock_add_rule", *arguments)
    finally:
        os.close(fd)
