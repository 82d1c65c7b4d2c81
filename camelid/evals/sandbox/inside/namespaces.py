"""Namespaces of users, processes, mounts, network, names and control groups: a machine with one interpreter in it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from camelid.evals.sandbox.inside import kernel

USER = 1000  # whom programs are, within
_NOBODY = 65534  # and without, where the superuser starts them
_PLACES = ("/mnt", "/media", "/srv", "/opt", "/run", "/tmp")  # one of them carries the new root; nothing lands in it
_DEVICES = ("null", "zero", "full", "random", "urandom")
SCRATCH, PROC = "/scratch", "/proc"


def leave() -> int:
    """Leave the machine's namespaces, and fork; returns in the child, process 1 of its own, with all rights within.

    The parent waits for the child's end, and ends as it did.

    Returns:
        A file descriptor of the child's namespace of processes.

    Raises:
        OSError: the kernel refuses; names the namespace.
    """
    superuser, uid, gid = os.geteuid() == 0, os.geteuid(), os.getegid()
    ready_read, ready_write = os.pipe()
    mapper = os.fork()
    if mapper == 0:
        os.close(ready_write)
        os._exit(_write_maps(os.getppid(), superuser, uid, gid) if os.read(ready_read, 1) else 1)
    os.close(ready_read)
    try:
        kernel.unshare(kernel.CLONE_NEWUSER, "user namespace")
        os.write(ready_write, b"!")
    finally:
        os.close(ready_write)
        failed = os.waitstatus_to_exitcode(os.waitpid(mapper, 0)[1])
    if failed:
        raise OSError(failed, f"user namespace: {os.strerror(failed)} when users were mapped")
    for flag, what in (
        (kernel.CLONE_NEWNS, "mount namespace"),
        (kernel.CLONE_NEWPID, "pid namespace"),
        (kernel.CLONE_NEWNET, "network namespace"),
        (kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS | kernel.CLONE_NEWCGROUP, "ipc, uts and cgroup namespaces"),
    ):
        kernel.unshare(flag, what)
    child = os.fork()
    if child:
        os.closerange(0, 3)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os._exit(status if status >= 0 else 128 - status)
    kernel.control(kernel.PR_SET_PDEATHSIG, 9, "parent's death signal")
    return os.open("/proc/thread-self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)


def _write_maps(pid: int, superuser: bool, uid: int, gid: int) -> int:
    """errno of what failed, or 0."""
    inner = f"{USER} {{}} 1\n"
    zero = "0 0 1\n" if superuser else ""
    try:
        if not superuser:
            Path(f"/proc/{pid}/setgroups").write_text("deny")
        Path(f"/proc/{pid}/uid_map").write_text(zero + inner.format(_NOBODY if superuser else uid))
        Path(f"/proc/{pid}/gid_map").write_text(zero + inner.format(_NOBODY if superuser else gid))
    except OSError as error:
        return error.errno or 1
    return 0


def build_view(readable: Sequence[str], hidden: Sequence[str], packages: Sequence[str]) -> bool:
    """Make a root that holds these paths, read-only, and devices without memory; all else is gone.

    Args:
        readable: paths that are shown where they are; symbolic links stay links.
        hidden: folders among them that are shown empty.
        packages: paths that are shown all the same.

    Returns:
        Whether the processes can be counted: whether /proc could be mounted, which programs do not see.

    Raises:
        OSError: a mount failed; says which.
    """
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    real = [Path(path).resolve() for path in (*readable, *packages, "/dev")]
    taken = [place for place in map(Path, _PLACES) if place.is_dir() and not any(map(place.__eq__, _above(real)))]
    if not taken:
        raise OSError(0, f"mount namespace: none of {', '.join(_PLACES)} can carry the new root")
    root, flags = taken[0], kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount("tmpfs", str(root), "tmpfs", flags, "size=1m,mode=755")
    for path in readable:
        _show(Path(path), root)
    empty = [place for folder in hidden if (place := _below(root, Path(folder).resolve())).is_dir()]
    for place in empty:
        kernel.mount("tmpfs", str(place), "tmpfs", flags, "size=1m,mode=755")
    for path in packages:
        _show(Path(path), root)
    for device in _DEVICES:
        _bind(Path("/dev", device), root / "dev" / device, kernel.MS_NOSUID | kernel.MS_NOEXEC)
    for name in (SCRATCH, PROC):
        _below(root, Path(name)).mkdir()
    if not (root / "tmp").exists():  # it does where the interpreter lies in it
        (root / "tmp").symlink_to(SCRATCH)
    counted = True
    try:
        kernel.mount("proc", str(_below(root, Path(PROC))), "proc", flags | kernel.MS_NOEXEC)
    except OSError:  # where the machine's own is partly covered, as in a container
        counted = False
    for place in (*empty, root):
        kernel.mount("none", str(place), None, flags | kernel.MS_REMOUNT | kernel.MS_RDONLY | kernel.MS_BIND)
    os.chdir(root)
    here = os.fsencode(".")
    kernel.call("pivot_root", here, here)
    kernel.unmount(".")
    os.chdir("/")
    return counted


def _above(paths: Sequence[Path]) -> set[Path]:
    return {folder for path in paths for folder in (path, *path.parents)}


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _show(path: Path, root: Path) -> None:
    """Bind `path` below the new root, with the links that lead to it."""
    if not os.path.lexists(path) or os.path.lexists(_below(root, path)):
        return
    links = [place for place in (path, *path.parents) if place.is_symlink()]
    if links:
        _show(path.resolve(), root)
        link = _below(root, links[-1])
        if not os.path.lexists(link):
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(links[-1].readlink())
    else:
        _bind(path, _below(root, path), kernel.MS_NOSUID | kernel.MS_NODEV)


def _bind(path: Path, target: Path, flags: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        target.mkdir(exist_ok=True)
    else:
        target.touch()
    kernel.mount(str(path), str(target), None, kernel.MS_BIND | kernel.MS_REC)
    kept = os.statvfs(target).f_flag & 0xF  # what the machine forbids there stays forbidden, or the kernel refuses
    read_only = kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY
    kernel.mount("none", str(target), None, read_only | flags | kept)


def own_processes(pid_namespace: int) -> None:
    """The next fork is process 1 of a namespace of its own; when it ends, the kernel ends all in it."""
    kernel.setns(pid_namespace, kernel.CLONE_NEWPID)  # the last fork's namespace is given up
    kernel.unshare(kernel.CLONE_NEWPID, "pid namespace")


def own_scratch(size: int, proc: bool) -> None:
    """A folder in memory for this process and its children alone, which goes away with them.

    Args:
        size: bytes that it holds at most.
        proc: /proc is mounted, and is taken away.
    """
    kernel.unshare(kernel.CLONE_NEWNS, "mount namespace")
    options = f"size={size},nr_inodes=4096,mode=700,uid={USER},gid={USER}"
    kernel.mount("tmpfs", SCRATCH, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC, options)
    if proc:
        kernel.unmount(PROC)
    os.chdir(SCRATCH)


def become_user() -> None:
    """Give up the superuser within the namespace, and every right."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(USER, USER, USER)
        os.setresuid(USER, USER, USER)
    kernel.drop_capabilities()
