"""Learning from pairs without a reward model: the losses of direct preference optimisation.

An answer's log-probability is the sum over its tokens; the reward that a model gives it is β times how far that is
above the reference's (Rafailov et al. 2023, arXiv:2305.18290, equation 5).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu


class Gaps(NamedTuple):
    """How much more the model prefers the chosen answer than the reference does.

    Attributes:
        total: (n,), (log π(y_c) − log π_ref(y_c)) − (log π(y_r) − log π_ref(y_r)) in nats.
        mean: (n,), the same with each answer's term divided by its tokens.
    """

    total: Tensor
    mean: Tensor


Rule = Callable[[Gaps, float, float], Tensor]
"""(gaps, β, label smoothing ε) → a loss for each pair, (n,)."""


def _sigmoid(gaps: Gaps, beta: float, smoothing: float) -> Tensor:
    """Equation 7; with ε the conservative loss of a label that is wrong so often (Mitchell 2023, cDPO)."""
    return _smoothed(beta * gaps.total, smoothing)


def _robust(gaps: Gaps, beta: float, smoothing: float) -> Tensor:
    """Unbiased where labels are wrong with probability ε (Chowdhury et al. 2024, arXiv:2403.00409, equation 12)."""
    score = beta * gaps.total
    return (-(1 - smoothing) * logsigmoid(score) + smoothing * logsigmoid(-score)) / (1 - 2 * smoothing)


def _ipo(gaps: Gaps, beta: float, smoothing: float) -> Tensor:
    """Azar et al. 2023, arXiv:2310.12036, equation 17, with β for τ; per token, as its authors ran it."""
    return (gaps.mean - 1 / (2 * beta)).square()


def _hinge(gaps: Gaps, beta: float, smoothing: float) -> Tensor:
    """Zhao et al. 2023, SLiC-HF, arXiv:2305.10425, on DPO's rewards."""
    return relu(1 - beta * gaps.total)


def _sigmoid_norm(gaps: Gaps, beta: float, smoothing: float) -> Tensor:
    """DPO per token (Lambert et al. 2024, Tülu 3, arXiv:2411.15124, equation 6)."""
    return _smoothed(beta * gaps.mean, smoothing)


def _smoothed(score: Tensor, smoothing: float) -> Tensor:
    return -(1 - smoothing) * logsigmoid(score) - smoothing * logsigmoid(-score)


LOSSES: dict[str, Rule] = {
    "sigmoid": _sigmoid,
    "sigmoid_norm": _sigmoid_norm,
    "robust": _robust,
    "ipo": _ipo,
    "hinge": _hinge,
}
"""By the recipe's word for it; those of TRL."""

SMOOTHED = ("sigmoid", "sigmoid_norm", "robust")
"""Those to which label smoothing means something."""


class PairLosses(NamedTuple):
    """Of n pairs; the first with gradient.

    Attributes:
        loss: (n,).
        chosen, rejected: (n,), the rewards of the answers, β (log π − log π_ref).
    """

    loss: Tensor
    chosen: Tensor
    rejected: Tensor


def pair_losses(
    logprobs: Tensor, reference: Tensor, lengths: Tensor, *, kind: str, beta: float, smoothing: float = 0.0
) -> PairLosses:
    """The loss of each pair.

    Args:
        logprobs: (n, 2) float32, sums over the tokens of the chosen and of the rejected answer, with gradient.
        reference: (n, 2), the same of the reference.
        lengths: (n, 2), tokens that were summed.
        kind: a key of `LOSSES`.
        beta: how much is kept to the reference; more is nearer.
        smoothing: how often a label is taken to be wrong.
    """
    ratios = logprobs - reference
    means = ratios / lengths.clamp_min(1)
    gaps = Gaps(ratios[:, 0] - ratios[:, 1], means[:, 0] - means[:, 1])
    rewards = beta * ratios.detach()
    return PairLosses(LOSSES[kind](gaps, beta, smoothing), rewards[:, 0], rewards[:, 1])


def summed(values: Tensor, owners: Tensor, count: int) -> Tensor:
    """(count,), the sums of what belongs to each answer, of values (N,) and owners (N,); an owner of -1 is nobody."""
    sums = torch.zeros(count, dtype=values.dtype, device=values.device)
    own = owners >= 0
    return sums.index_add(0, owners[own], values[own])
