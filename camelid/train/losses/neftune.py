"""Noise on the embeddings of what is learned from (NEFTune, Jain et al. 2023, arXiv:2310.05914, algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from camelid.model.llama_torch import LlamaTorch


def noise(positions: Tensor, documents: Tensor, samples: Tensor, width: int, alpha: float, seed: int) -> Tensor:
    """Uniform in ±alpha / sqrt(L · D), L being the tokens of a document and D the width: (R, T, D) float32.

    Each row is drawn from the run's seed and its own number in the order of training, so that neither a pause nor the
    number of ranks or of rows at once changes it.

    Args:
        positions: (R, T), counted anew for each document.
        documents: (R, T), number of the document within its row.
        samples: (R,), numbers of the rows.
    """
    drawn = []
    for sample in samples.tolist():
        generator = torch.Generator(positions.device).manual_seed((seed * 1_000_003 + sample) % 2**63)
        drawn.append(torch.rand((positions.shape[1], width), generator=generator, device=positions.device))
    lengths = torch.zeros_like(positions).scatter_add_(1, documents.long(), torch.ones_like(positions))
    lengths = lengths.gather(1, documents.long())
    return (2 * torch.stack(drawn) - 1) * (alpha / (lengths * width).float().sqrt())[..., None]


@contextmanager
def added_to(model: LlamaTorch, values: Tensor) -> Iterator[None]:
    """The model adds them to its embeddings meanwhile."""

    def add(module: nn.Module, given: object, embedded: Tensor) -> Tensor:
        return embedded + values.to(embedded.dtype)

    hook = model.embed_tokens.register_forward_hook(add)
    try:
        yield
    finally:
        hook.remove()
