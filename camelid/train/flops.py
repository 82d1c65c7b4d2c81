"""What is measured of the machine: matrix products a second, memory used, and what arithmetic a batch is."""

from __future__ import annotations

import resource
import shutil
import sys
import time

import numpy as np
import torch

from camelid.data.batches import TrainingBatch
from camelid.model.config import ModelConfig
from camelid.train.devices import device_reported, matrix_parameters

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


def batch_flops(config: ModelConfig, batch: TrainingBatch) -> float:
    """Arithmetic of learning from a batch, forward and backward, by the lengths of its documents.

    As `devices.flops_per_token`, attention counted whole (n² for n tokens), but for each document on its own.
    """
    squares = float((2 * batch.positions + 1).sum())  # the sum of 2p + 1 for p < n is n²
    return 6.0 * matrix_parameters(config) * batch.ids.size + 12.0 * config.n_layers * config.q_dim * squares


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
    one = torch.from_numpy(np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)).to(dtype)
    out, best, end = torch.empty_like(one), float("inf"), time.perf_counter() + _SECONDS / 2
    torch.mm(one, one, out=out)
    while (begun := time.perf_counter()) < end:
        torch.mm(one, one, out=out)
        best = min(best, time.perf_counter() - begun)
    return 2 * size**3 / best if best < float("inf") else 0.0
