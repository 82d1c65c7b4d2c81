"""What a model needs and what this machine has: said before anything is loaded."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from camelid.engine.options import EngineOptions
from camelid.errors import ResourceError
from camelid.model.config import ModelConfig
from camelid.weights.weights import Weights

log = logging.getLogger(__name__)

GB = 10**9
SCRATCH = 0.3 * GB  # Python, NumPy, and the intermediates of a chunk
CACHE_SHARE = 0.25  # of the free memory may become key/value cache beyond one context


def available_bytes() -> int:
    """Memory that a new process may take: the system's free memory, or what the control group leaves."""
    free = [_meminfo("MemAvailable")]
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        most, now = _number(limit), _number(used)
        if most is not None and now is not None:
            free.append(most - now)
    return min(free)


def cache_bytes_per_token(config: ModelConfig, bytes_per_number: int) -> int:
    """Keys and values of one position in all layers."""
    return 2 * config.n_layers * config.kv_dim * bytes_per_number


def check_fits(weights: Weights, bytes_per_weight: int, options: EngineOptions, backend: str) -> None:
    """Refuse a model that cannot fit, before it is loaded.

    Raises:
        ResourceError: says what is needed, what is free, and which settings would fit.
    """
    config = weights.config
    needed = config.n_parameters * bytes_per_weight + SCRATCH
    context = options.context or min(config.context, 2048)
    cache = context * cache_bytes_per_token(config, bytes_per_weight)
    free = available_bytes()
    if needed + cache <= free:
        return
    raise ResourceError(
        f"{weights.path}: needs {(needed + cache) / GB:.1f} GB of memory on the {backend} backend "
        f"({needed / GB:.1f} for weights, {cache / GB:.1f} for {context} tokens of cache), {free / GB:.1f} GB free; "
        f"{_advice(config, bytes_per_weight, free - needed)}"
    )


def _advice(config: ModelConfig, bytes_per_weight: int, left: float) -> str:
    room = int(left // cache_bytes_per_token(config, bytes_per_weight))
    if room >= 128:
        return f"--context {room // 64 * 64} would fit"
    if bytes_per_weight > 2:
        return "try --backend torch --dtype bfloat16, which needs half, or a smaller model"
    return "choose a smaller model, or a machine with more memory"


def fitting_context(config: ModelConfig, options: EngineOptions, bytes_per_number: int) -> int:
    """The context asked for, else the model's own, reduced (and said so) only if memory demands it."""
    if options.context is not None:
        return options.context
    room = int(0.8 * available_bytes() // cache_bytes_per_token(config, bytes_per_number))
    if room >= config.context:
        return config.context
    log.warning("context reduced from %d to %d tokens: memory for the cache ends there", config.context, room)
    return max(room, 1)


def cache_tokens(config: ModelConfig, options: EngineOptions, context: int, bytes_per_number: int) -> int:
    """Positions the pool has room for: what was asked for, else a context and more while memory is plenty."""
    if options.cache_tokens is not None:
        return max(options.cache_tokens, context)
    plenty = int(available_bytes() * CACHE_SHARE // cache_bytes_per_token(config, bytes_per_number))
    return max(context, min(plenty, 8 * context))


def threads() -> tuple[int, str]:
    """How many threads this process may use, and what sets the limit: affinity, control group or SLURM."""
    limits = {"processor affinity": float(len(os.sched_getaffinity(0)))}
    quota = _cgroup_cpus()
    if quota is not None:
        limits["control group quota"] = quota
    slurm = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE")
    if slurm and slurm.isdigit():
        limits["SLURM"] = float(slurm)
    reason = min(limits, key=lambda name: limits[name])
    return max(1, int(limits[reason])), reason


def _cgroup_cpus() -> float | None:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    most, period_us = _number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), _number("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
    return most / period_us if most is not None and most > 0 and period_us else None


def _meminfo(name: str) -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return None
