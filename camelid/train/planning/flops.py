"""What is measured of the machine: matrix products a second, and memory used."""

from __future__ import annotations

import resource
import shutil
import sys
import time

import numpy as np
import torch

from camelid.train.planning.devices import device_reported

_SECONDS = 0.6
_WORTH_COMPILING = 100.0  # seconds of matrix products; compiling takes 5 to 13 and saves a tenth of all


def matrix_peak(device: torch.device, precision: str) -> float | None:
    """FLOPs a second that the device's matrix units can do in bf16 or fp32; None for an unknown GPU.

    A GPU: what its maker states for bf16. A CPU: the fastest of a few large products, measured now (half a second).
    """
    if device.type == "cuda":
        known = device_reported(torch.cuda.get_device_name(device))
        return known.flops if known is not None else None
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return max(_product_rate(size, dtype) for size in (1024, 2048))


def peak_memory(device: torch.device) -> int:
    """Most bytes so far: allocated on a GPU, resident of this process on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def fusing_pays(device: torch.device, flops: float, peak: float | None) -> bool:
    """Whether torch.compile earns the time it takes: on GPUs; on CPUs for runs of minutes, where a compiler is."""
    if device.type == "cuda":
        return True
    return peak is not None and flops / peak > _WORTH_COMPILING and shutil.which("g++") is not None


def _product_rate(size: int, dtype: torch.dtype) -> float:
    matrix = torch.from_numpy(np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)).to(dtype)
    out, best, end = torch.empty_like(matrix), float("inf"), time.perf_counter() + _SECONDS / 2
    torch.mm(matrix, matrix, out=out)
    while (begun := time.perf_counter()) < end:
        torch.mm(matrix, matrix, out=out)
        best = min(best, time.perf_counter() - begun)
    return 2 * size**3 / best if best < float("inf") else 0.0
