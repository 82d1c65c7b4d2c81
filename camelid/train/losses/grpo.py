"""Learning from several answers to one prompt, each better or worse than the others: group relative policy
optimisation (Shao et al. 2024, arXiv:2402.03300).

G answers in each of P groups; N tokens of answers, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Scale = Literal["group", "batch", "none"]
EPS = 1e-4  # added to a deviation before it divides, as in TRL


def advantages(rewards: Tensor, scale: Scale = "group") -> Tensor:
    """How much better each answer is than the mean of its group, (P, G).

    Args:
        rewards: (P, G) float32 or wider.
        scale: divided by the deviation of its group (section 4.1.2), of all rewards, or by nothing (Liu et al. 2025,
            arXiv:2503.20783). Deviations are the unbiased ones; of a single answer it is 0.
    """
    centred = rewards - rewards.mean(1, keepdim=True)
    if scale == "none":
        return centred
    if scale == "batch":
        deviation = rewards.std() if rewards.numel() > 1 else rewards.new_zeros(())
    else:
        deviation = rewards.std(1, keepdim=True) if rewards.shape[1] > 1 else torch.zeros_like(centred[:, :1])
    return centred / (deviation + EPS)


class Totals(NamedTuple):
    """Of one step, all ranks together.

    Attributes:
        answers: that are learned from.
        tokens: of these answers.
        most: tokens that an answer may have.
    """

    answers: int
    tokens: int
    most: int


Weigh = Callable[[int, Totals], float]
"""(tokens of an answer, totals) → the weight of each of its tokens; weighted sums are divided by the answers."""

NORMS: dict[str, Weigh] = {
    "grpo": lambda length, totals: 1 / length,
    "dr_grpo": lambda length, totals: 1 / totals.most,
    "dapo": lambda length, totals: totals.answers / totals.tokens,
}
"""What the losses of tokens are averaged over: each answer first (Shao et al. 2024, equation 3); the longest answer
there may be (Liu et al. 2025, arXiv:2503.20783); all tokens of the step (Yu et al. 2025, DAPO, arXiv:2503.14476)."""


class TokenLosses(NamedTuple):
    """Of N tokens; the first with gradient, the rest to be looked at.

    Attributes:
        loss: (N,), the clipped loss and β times the divergence.
        kl: (N,), of the policy from the reference, estimated; 0 without one.
        clipped: (N,) bool, where the clip took the gradient away.
        ratio: (N,), of the probabilities now and when the answer was written.
    """

    loss: Tensor
    kl: Tensor
    clipped: Tensor
    ratio: Tensor


def token_losses(
    logprobs: Tensor,
    old: Tensor,
    gains: Tensor,
    reference: Tensor | None = None,
    *,
    clip: tuple[float, float] = (0.2, 0.2),
    beta: float = 0.0,
) -> TokenLosses:
    """Equation 3 for each token.

    Args:
        logprobs: (N,) float32 of the policy, with gradient.
        old: (N,), of the policy that wrote the answers.
        gains: (N,), the advantage of the answer that a token belongs to.
        reference: (N,), of the model that it shall stay near.
        clip: how far a ratio counts below and above 1; a higher upper one is DAPO's clip-higher.
        beta: of the divergence, whose estimate is never negative: e^d − d − 1 with d = log π_ref − log π (Schulman
            2020; equation 4).
    """
    ratio = (logprobs - old).exp()
    low, high = clip
    loss = -torch.minimum(ratio * gains, ratio.clamp(1 - low, 1 + high) * gains)
    kl = torch.zeros_like(loss)
    if reference is not None:
        distance = reference - logprobs
        kl = distance.exp() - distance - 1
        loss = loss + beta * kl
    ratio = ratio.detach()
    clipped = ((ratio < 1 - low) & (gains < 0)) | ((ratio > 1 + high) & (gains > 0))
    return TokenLosses(loss, kl.detach(), clipped, ratio)
