"""System calls that Python has no function for (os.unshare and os.setns came with 3.12)."""

from __future__ import annotations

import ctypes
import os
import platform

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
MS_REC, MS_PRIVATE = 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, PR_SET_CHILD_SUBREAPER = 1, 22, 38, 36
SECCOMP_MODE_FILTER = 2

# name → number on x86_64, on aarch64
_NUMBERS = {
    "pivot_root": (155, 41),
    "capset": (126, 91),
    "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445),
    "landlock_restrict_self": (446, 446),
}
MACHINES = ("x86_64", "aarch64")


def libc() -> ctypes.CDLL:
    """The C library, with errno kept."""
    return ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> int:
    """The result of a call.

    Raises:
        OSError: it is -1; names the call.
    """
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def call(name: str, *arguments: object) -> int:
    """A system call by name.

    Raises:
        OSError: it failed.
    """
    number = _NUMBERS[name][MACHINES.index(platform.machine())]
    return check(libc().syscall(ctypes.c_long(number), *arguments), name)


def unshare(flags: int, what: str) -> None:
    """Leave namespaces; `what` names them in the error."""
    check(libc().unshare(ctypes.c_int(flags)), what)


def setns(fd: int, kind: int) -> None:
    """Enter a namespace."""
    check(libc().setns(ctypes.c_int(fd), ctypes.c_int(kind)), "setns")


def mount(source: str, target: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """mount(2).

    Raises:
        OSError: it failed; says where.
    """
    parts = (None if text is None else os.fsencode(text) for text in (source, target, kind))
    words = None if data is None else data.encode()
    check(libc().mount(*parts, ctypes.c_ulong(flags), words), f"mount {kind or 'bind'} at {target}")


def unmount(target: str) -> None:
    """umount2(2), at once, whoever still has it open."""
    check(libc().umount2(os.fsencode(target), MNT_DETACH), f"umount {target}")


def control(option: int, value: int, what: str) -> None:
    """prctl(2) with one value."""
    word = ctypes.c_ulong
    check(libc().prctl(ctypes.c_int(option), word(value), word(0), word(0), word(0)), what)


def drop_capabilities() -> None:
    """Give up every right of the superuser in this process, for good with `no_new_privs`."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    call("capset", ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)()))
