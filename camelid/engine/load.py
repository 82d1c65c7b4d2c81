"""Which backend computes on this machine, and a model loaded into it."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from camelid.engine.backend import Backend, absent_ids
from camelid.errors import MissingError, OptionError, UnsupportedError, one_of
from camelid.machine import gpus

if TYPE_CHECKING:
    from camelid.engine.options import EngineOptions
    from camelid.weights.weights import Weights

log = logging.getLogger(__name__)

BACKENDS = ("numpy", "torch", "cpu")


def choose_backend(weights: Weights, name: str, options: EngineOptions) -> Backend:
    """Load a model into the backend `name`; `auto` takes torch where there is a CUDA GPU, else the C++ engine.

    Raises:
        OptionError: no such backend.
        MissingError: the backend is not installed.
        ResourceError: the model does not fit into memory.
    """
    if weights.config.scalar_head:
        raise UnsupportedError(f"{weights.path}: rates answers and writes none; use it with: camelid reward")
    backend = _load(weights, automatic() if name == "auto" else name, options)
    backend.absent = absent_ids(weights)
    return backend


def _load(weights: Weights, name: str, options: EngineOptions) -> Backend:
    if name not in BACKENDS:
        raise OptionError(f"backend: unknown backend {name!r}; {one_of(name, (*BACKENDS, 'auto'))}", param="backend")
    if name == "cpu":
        if not has_cpu():
            raise MissingError(
                "backend 'cpu': its C++ part is not built; get a compiler, then pip install --force-reinstall camelid"
            )
        from camelid.engine.backend_cpu import CpuBackend

        return CpuBackend.load(weights, options)
    if name == "torch":
        if not has_torch():
            raise MissingError("backend 'torch': PyTorch is not installed: pip install 'camelid[train]'")
        from camelid.engine.backend_torch import TorchBackend

        return TorchBackend.load(weights, options)
    from camelid.engine.backend_numpy import NumpyBackend

    return NumpyBackend.load(weights, options)


def automatic() -> str:
    """The best backend here, found without importing torch."""
    if has_torch_for_cuda() and gpus():
        return "torch"
    if has_cpu():
        return "cpu"
    log.warning(
        "the C++ engine is not built, NumPy computes, much slower; with a compiler: pip install --force camelid"
    )
    return "numpy"


def has_cpu() -> bool:
    """Whether the C++ engine was built when camelid was installed."""
    return importlib.util.find_spec("camelid.engine._cpu") is not None


def has_torch() -> bool:
    """Whether PyTorch can be imported."""
    return importlib.util.find_spec("torch") is not None


def has_torch_for_cuda() -> bool:
    """Whether PyTorch is installed with its CUDA half; a CPU build would be slower than NumPy."""
    torch = importlib.util.find_spec("torch")
    folders = [Path(folder) / "lib" for folder in (torch.submodule_search_locations if torch else None) or ()]
    return any((folder / name).exists() for folder in folders for name in ("libtorch_cuda.so", "torch_cuda.dll"))
