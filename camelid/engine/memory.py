"""What a model needs and what this machine has: said before anything is loaded."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from camelid.engine.options import EngineOptions
from camelid.errors import OptionError, ResourceError
from camelid.model.config import ModelConfig
from camelid.weights.weights import Weights

log = logging.getLogger(__name__)

ROOT = Path("/")  # where /proc and /sys are found; tests bring their own
GB = 10**9
SCRATCH = 0.3 * GB  # Python, NumPy, and the intermediates of a chunk
CACHE_SHARE = 0.25  # of the free memory may become key/value cache beyond one context


def available_bytes(root: Path = ROOT) -> int:
    """Memory that this process may still take: the system's, or what a control group or `ulimit -v` leaves."""
    free = [_meminfo(root)]
    for group in _groups("memory", root):
        most = _number(group / "memory.max") or _number(group / "memory.limit_in_bytes")
        used = _number(group / "memory.current") or _number(group / "memory.usage_in_bytes")
        if most is not None and used is not None:
            free.append(most - used + _page_cache(group))
    if root == ROOT:
        free.append(_address_space())
    return max(0, min(free))


def cache_bytes_per_token(config: ModelConfig, bytes_per_number: int) -> int:
    """Keys and values of one position in all layers."""
    return 2 * config.n_layers * config.kv_dim * bytes_per_number


def check_fits(
    weights: Weights,
    bytes_per_weight: float,
    options: EngineOptions,
    backend: str,
    free: int,
    bytes_per_number: int | None = None,
) -> None:
    """Refuse a model that cannot fit into `free` bytes, before it is loaded.

    `bytes_per_number` is of keys and values, where they are not stored as weights are.

    Raises:
        ResourceError: says what is needed, what is free, and which settings would fit.
    """
    config = weights.config
    needed = config.n_parameters * bytes_per_weight + SCRATCH
    context = options.context or min(config.context, 2048)
    positions = max(context, options.cache_tokens or 0)
    bytes_per_number = bytes_per_number or int(bytes_per_weight)
    cache = positions * cache_bytes_per_token(config, bytes_per_number)
    if needed + cache <= free:
        return
    raise ResourceError(
        f"{weights.path}: needs {(needed + cache) / GB:.1f} GB of memory on the {backend} backend "
        f"({needed / GB:.1f} for weights, {cache / GB:.1f} for {positions} tokens of cache), {free / GB:.1f} GB free; "
        f"{_advice(config, bytes_per_number, free - needed, options)}"
    )


def _advice(config: ModelConfig, bytes_per_number: int, left: float, options: EngineOptions) -> str:
    room = int(left // cache_bytes_per_token(config, bytes_per_number)) // 64 * 64
    if room >= 128:
        flags = f"--context {room}" + (f" --cache-tokens {room}" if options.cache_tokens is not None else "")
        return f"{flags} would fit"
    if bytes_per_number > 2:
        return "try --backend cpu, which leaves quantised weights as they are, or a smaller model"
    return "choose a smaller model, or a machine with more memory"


def fitting_context(config: ModelConfig, options: EngineOptions, bytes_per_number: int, free: int) -> int:
    """The context asked for, else the model's own, reduced (and said so) only if `free` bytes demand it."""
    asked = options.context
    if asked is not None:
        if asked > config.context:
            log.warning("context %d: beyond %d, which the model was made for, text gets worse", asked, config.context)
        return asked
    room = int(0.8 * free // cache_bytes_per_token(config, bytes_per_number))
    if room >= config.context:
        return config.context
    log.warning("context reduced from %d to %d tokens: memory for the cache ends there", config.context, room)
    return max(room, 1)


def cache_tokens(config: ModelConfig, options: EngineOptions, context: int, bytes_per_number: int, free: int) -> int:
    """Positions the pool has room for: what was asked for, else a context and more while `free` bytes are plenty.

    Raises:
        OptionError: less than a context was asked for, so that a long request could never end.
    """
    if options.cache_tokens is None:
        plenty = int(free * CACHE_SHARE // cache_bytes_per_token(config, bytes_per_number))
        return max(context, min(plenty, 8 * context))
    if options.cache_tokens < context:
        raise OptionError(
            f"cache_tokens: {options.cache_tokens} is less than the context, {context}; raise it or give "
            f"--context {options.cache_tokens}"
        )
    return options.cache_tokens


def threads(root: Path = ROOT) -> tuple[int, str]:
    """How many threads help this process, and what sets the limit: affinity, cores, control group or SLURM."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    limits = {"processor affinity": float(len(allowed)), "physical cores": float(_cores(allowed, root))}
    quotas = [quota for group in _groups("cpu", root) if (quota := _cpus(group)) is not None]
    if quotas:
        limits["control group quota"] = min(quotas)
    slurm = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE")
    if slurm and slurm.isdigit():
        limits["SLURM"] = float(slurm)
    reason = min(limits, key=lambda name: limits[name])
    return max(1, int(limits[reason])), reason


def has_cuda() -> bool:
    """Whether an NVIDIA GPU is there and not hidden."""
    return Path("/dev/nvidia0").exists() and os.environ.get("CUDA_VISIBLE_DEVICES", "0") not in ("", "-1")


def _cores(processors: set[int], root: Path) -> int:
    """Physical cores under these processors: two that share one add nothing to what the memory and it can do."""
    folder = root / "sys/devices/system/cpu"
    siblings = [_lines(folder / f"cpu{number}/topology/thread_siblings_list") for number in processors]
    return len({lines[0] if lines else str(number) for number, lines in zip(processors, siblings, strict=True)})


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """Folders of the control groups that hold this process, innermost first: each one's limit counts (v1 and v2)."""
    mount = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = mount / controller if controllers else mount
        folder = top / path.lstrip("/")
        yield from (group for group in (folder, *folder.parents) if group.is_relative_to(top))


def _page_cache(group: Path) -> int:
    """Bytes of files that are counted as used but given back when asked, such as a model that was just read."""
    stat = dict(line.split() for line in _lines(group / "memory.stat"))
    return int(stat.get("active_file", 0)) + int(stat.get("inactive_file", 0))


def _cpus(group: Path) -> float | None:
    for line in _lines(group / "cpu.max"):
        quota, period = line.split()
        return None if quota == "max" else int(quota) / int(period)
    most, period_us = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
    return most / period_us if most is not None and most > 0 and period_us else None


def _meminfo(root: Path) -> int:
    for line in _lines(root / "proc/meminfo"):
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
    taken = next((int(line.split()[0]) for line in _lines(ROOT / "proc/self/statm")), 0)
    return sys.maxsize if most == resource.RLIM_INFINITY else most - taken * resource.getpagesize()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0] != "max" else None
