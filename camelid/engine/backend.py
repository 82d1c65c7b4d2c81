"""Who computes: the protocol of a backend, and the choice of one for this machine."""

from __future__ import annotations

import importlib.util
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from camelid.errors import MissingError, OptionError, one_of
from camelid.model.config import ModelConfig

if TYPE_CHECKING:
    from camelid.engine.options import EngineOptions
    from camelid.weights.weights import Weights

log = logging.getLogger(__name__)

Rows = Literal["last", "all", "none"]


@dataclass(frozen=True)
class Span:
    """One sequence's share of a forward pass; set by the scheduler.

    Attributes:
        ids: new ids.
        start: position of the first, which is also how many positions the pages hold already.
        pages: the sequence's pages in order, with room for the new positions.
        logits: which of the new ids' rows are wanted.
        read: ids of the prompt that the sequence began with; see `model.rope.rope_table`.
    """

    ids: tuple[int, ...]
    start: int
    pages: tuple[int, ...]
    logits: Rows
    read: int = 0


@dataclass(frozen=True)
class Batch:
    """What one forward pass is given."""

    spans: tuple[Span, ...]


class Backend(Protocol):
    """Computes forward passes; owns the weights and the pool of pages.

    A row's result must not depend on the other spans of its batch.

    Attributes:
        absent: ids of the output matrix that are no token (see `absent_ids`); their logits are always -inf.
    """

    name: str
    config: ModelConfig
    page_size: int
    bytes_per_number: int  # of keys and values
    absent: NDArray[np.int64]

    def free_bytes(self) -> int:
        """Memory that is left where keys and values are going to lie."""

    def allocate(self, n_pages: int) -> None:
        """Make the pool, with room for `n_pages` pages; what was in it is lost."""

    def forward(self, batch: Batch) -> NDArray[np.float32]:
        """Write the new positions' keys and values into their pages; logits of the wanted rows, (rows, V), in order."""

    def hidden(self, batch: Batch) -> NDArray[np.float32]:
        """The same pass, but hidden states of the wanted rows after the final norm, (rows, D)."""

    def copy_page(self, source: int, target: int) -> None:
        """Copy the keys and values of one page onto another."""


BACKENDS = ("numpy", "torch", "cpu")
ALL_ARE_TOKENS: NDArray[np.int64] = np.empty(0, np.int64)  # no id is absent


def absent_ids(weights: Weights) -> NDArray[np.int64]:
    """Rows of a model's output matrix that are no token: those beyond the tokenizer, and its unused pieces.

    Ids that the files name as stop ids count as tokens: they end a text and need no piece. Without a tokenizer nothing
    is known to be absent.
    """
    if not weights.has_tokenizer:
        return ALL_ARE_TOKENS
    absent = weights.tokenizer.absent_ids(weights.config.vocab_size)
    return absent[~np.isin(absent, weights.stop_ids)]


def without_absent(logits: NDArray[np.float32], absent: NDArray[np.int64]) -> NDArray[np.float32]:
    """Logits, (rows, V), in which ids that are no token are -inf; written in place."""
    if len(absent):
        logits[:, absent] = -np.inf
    return logits


def choose(weights: Weights, name: str, options: EngineOptions) -> Backend:
    """Load a model into the backend `name`; `auto` takes torch where there is a CUDA GPU, else the C++ engine.

    Raises:
        OptionError: no such backend.
        MissingError: the backend is not installed.
        ResourceError: the model does not fit into memory.
    """
    backend = _load(weights, automatic() if name == "auto" else name, options)
    backend.absent = absent_ids(weights)
    return backend


def _load(weights: Weights, name: str, options: EngineOptions) -> Backend:
    if name not in BACKENDS:
        raise OptionError(f"backend: {name!r} is none; {one_of(name, (*BACKENDS, 'auto'))}", param="backend")
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
    if has_torch_for_cuda() and has_cuda():
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
    found = importlib.util.find_spec("torch")
    folders = [Path(folder) / "lib" for folder in (found.submodule_search_locations if found else None) or ()]
    return any((folder / name).exists() for folder in folders for name in ("libtorch_cuda.so", "torch_cuda.dll"))


def has_cuda() -> bool:
    """Whether an NVIDIA GPU is there and not hidden."""
    return Path("/dev/nvidia0").exists() and os.environ.get("CUDA_VISIBLE_DEVICES", "0") not in ("", "-1")
