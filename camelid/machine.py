"""What this machine has for a process, within every limit set on it, and what its C runtime is told."""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")  # where /proc, /sys and /dev are found; tests bring their own
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # malloc.h
_LARGEST = 2**31 - 1


def available_bytes(root: Path = ROOT) -> int:
    """Memory that this process may still take: the system's, or what a control group or `ulimit -v` leaves."""
    free = [_meminfo(root)]
    for group in control_groups("memory", root):
        most = _number(group / "memory.max") or _number(group / "memory.limit_in_bytes")
        used = _number(group / "memory.current") or _number(group / "memory.usage_in_bytes")
        if most is not None and used is not None:
            free.append(most - used + _page_cache(group))
    if root == ROOT:
        free.append(_address_space())
    return max(0, min(free))


def threads(root: Path = ROOT) -> tuple[int, str]:
    """How many threads help this process, and what sets the limit: affinity, cores, control group or SLURM."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    limits = {"processor affinity": float(len(allowed)), "physical cores": float(_cores(allowed, root))}
    quotas = [quota for group in control_groups("cpu", root) if (quota := _cpus(group)) is not None]
    if quotas:
        limits["control group quota"] = min(quotas)
    slurm = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE")
    if slurm and slurm.isdigit():
        limits["SLURM"] = float(slurm)
    reason = min(limits, key=lambda name: limits[name])
    return max(1, int(limits[reason])), reason


def processors() -> int:
    """Processors that this process may use, two of one core counted twice, within what SLURM gave it."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return max(1, min(allowed, int(given) if given.isdigit() else allowed))


def gpus(root: Path = ROOT) -> int:
    """How many NVIDIA GPUs are there and not hidden by $CUDA_VISIBLE_DEVICES, which ends where it names none."""
    there = len(list((root / "dev").glob("nvidia[0-9]*")))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return there
    return min(there, len(list(itertools.takewhile(lambda name: name.strip() not in ("", "-1"), visible.split(",")))))


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to keep what is freed, for the rest of this process; False where there is no glibc.

    glibc maps large blocks one by one and unmaps them when they are freed; each new mapping is zeroed page by page as
    it is touched. Training allocates the same large blocks in every step, and spends up to half its time so. With the
    thresholds raised, blocks come from one heap that stays.

    Python objects of other libraries are served by the same malloc, so that a process's resident memory stays at its
    highest. To be called before the first large tensor.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return all(
        mallopt(parameter, value)
        for parameter, value in ((_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, _LARGEST), (_TOP_PAD, 1 << 26))
    )


def sleep_while_waiting() -> None:
    """Let OpenMP threads that wait for each other sleep soon; to be called before torch is imported.

    libgomp's threads spin for milliseconds. Where other programs want the same cores, a thread spins until it is put
    aside, in every loop: on two cores with a load of five, a step of recipes/tiny.toml took 7.2 s and 4.4 s of
    processor time, and 3.4 s and 1.2 s with this. What the user has set stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _cores(processors: set[int], root: Path) -> int:
    """Physical cores under these processors: two that share one add nothing to what the memory and it can do."""
    folder = root / "sys/devices/system/cpu"
    siblings = [read_lines(folder / f"cpu{number}/topology/thread_siblings_list") for number in processors]
    return len({lines[0] if lines else str(number) for number, lines in zip(processors, siblings, strict=True)})


def control_groups(controller: str, root: Path) -> Iterator[Path]:
    """Folders of the control groups that hold this process, innermost first: each one's limit counts (v1 and v2)."""
    mount = root / "sys/fs/cgroup"
    for line in read_lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = mount / controller if controllers else mount
        folder = top / path.lstrip("/")
        yield from (group for group in (folder, *folder.parents) if group.is_relative_to(top))


def _page_cache(group: Path) -> int:
    """Bytes of files that are counted as used but given back when asked, such as a model that was just read."""
    stat = dict(line.split() for line in read_lines(group / "memory.stat"))
    return int(stat.get("active_file", 0)) + int(stat.get("inactive_file", 0))


def _cpus(group: Path) -> float | None:
    for line in read_lines(group / "cpu.max"):
        quota, period = line.split()
        return None if quota == "max" else int(quota) / int(period)
    most, period_us = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
    return most / period_us if most is not None and most > 0 and period_us else None


def _meminfo(root: Path) -> int:
    for line in read_lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _address_space() -> int:
    """What `ulimit -v` leaves."""
    try:
        import resource
    except ImportError:  # Windows
        return sys.maxsize
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    taken = next((int(line.split()[0]) for line in read_lines(ROOT / "proc/self/statm")), 0)
    return sys.maxsize if most == resource.RLIM_INFINITY else most - taken * resource.getpagesize()


def read_lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    lines = read_lines(path)
    return int(lines[0]) if lines and lines[0] != "max" else None
