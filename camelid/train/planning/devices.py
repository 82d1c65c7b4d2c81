"""What the matrix units of known GPUs can do, and how much arithmetic training a model is."""

from __future__ import annotations

from dataclasses import dataclass

from camelid.data.batches import TrainingBatch
from camelid.errors import OptionError, one_of
from camelid.model.config import ModelConfig, layer_shapes


@dataclass(frozen=True)
class Device:
    """One GPU, or the half of a card that a program sees as one.

    Attributes:
        title: as people write it.
        flops: bf16 multiplications and additions a second, dense, as its maker states.
        memory: bytes.
        reports: how its name begins in the driver's words.
    """

    title: str
    flops: float
    memory: int
    reports: str


_GB = 10**9

# NVIDIA's and AMD's data sheets; dense figures, without sparsity.
DEVICES = {
    row.title: row
    for row in (
        Device("A100 40GB", 312e12, 40 * _GB, "NVIDIA A100-SXM4-40GB"),
        Device("A100 80GB", 312e12, 80 * _GB, "NVIDIA A100"),
        # CINECA's: 124 multiprocessors instead of 108 (Turisini et al. 2023, arXiv:2307.16885).
        Device("A100 64GB", 358e12, 64 * _GB, "NVIDIA A100-SXM-64GB"),
        Device("H100 80GB", 989e12, 80 * _GB, "NVIDIA H100"),
        Device("H200 141GB", 989e12, 141 * _GB, "NVIDIA H200"),
        Device("B200 180GB", 2250e12, 180 * _GB, "NVIDIA B200"),
        Device("MI250X 64GB", 191.5e12, 64 * _GB, "AMD Instinct MI250X"),  # one of the card's two halves
        Device("MI300X 192GB", 1307e12, 192 * _GB, "AMD Instinct MI300X"),
        Device("RTX 4090 24GB", 165e12, 24 * _GB, "NVIDIA GeForce RTX 4090"),
    )
}


def device_named(title: str) -> Device:
    """A row of `DEVICES`.

    Raises:
        OptionError: the device is unknown.
    """
    if title not in DEVICES:
        raise OptionError(f"{title}: no GPU of that name is known; {one_of(title, DEVICES)}")
    return DEVICES[title]


def device_reported(name: str) -> Device | None:
    """The row for what a driver calls its device, as `NVIDIA A100-SXM4-80GB`; the longest beginning wins."""
    fits = [row for row in DEVICES.values() if name.startswith(row.reports)]
    return max(fits, key=lambda row: len(row.reports), default=None)


def matrix_parameters(config: ModelConfig) -> int:
    """Weights that multiply every token: all matrices, the output included, the look-up of embeddings not."""
    layer = sum(shape[0] * shape[1] for shape in layer_shapes(config).values() if len(shape) == 2)
    return config.n_layers * layer + config.vocab_size * config.dim


def flops_per_token(config: ModelConfig, context: int) -> float:
    """Arithmetic of training on one token, forward and backward, in rows of `context` tokens.

    6 for each weight that multiplies, and 12 · layers · width of the heads · context for attention, counted whole as
    PaLM does (Chowdhery et al. 2022, arXiv:2204.02311, appendix B). What is computed again to save memory is not
    counted: MFU measures useful work.
    """
    return 6 * matrix_parameters(config) + 12 * config.n_layers * config.q_dim * context


def batch_flops(config: ModelConfig, batch: TrainingBatch) -> float:
    """Arithmetic of learning from a batch, forward and backward, by the lengths of its documents.

    As `flops_per_token`, attention counted whole (n² for n tokens), but for each document on its own.
    """
    squares = float((2 * batch.positions + 1).sum())  # the sum of 2p + 1 for p < n is n²
    return 6.0 * matrix_parameters(config) * batch.ids.size + 12.0 * config.n_layers * config.q_dim * squares
