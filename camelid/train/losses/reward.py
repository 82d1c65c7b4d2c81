"""The loss of a reward model, from the rewards of pairs (Touvron et al. 2023, arXiv:2307.09288, section 3.2.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from camelid.data.chats.examples import GRADES

MARGINS: Mapping[str, tuple[float, ...]] = {
    "none": (0.0, 0.0, 0.0, 0.0),
    "small": (1.0, 2 / 3, 1 / 3, 0.0),
    "large": (3.0, 2.0, 1.0, 0.0),
}
"""By grade, in the order of `GRADES`: table 27 of the paper. A pair without a grade has none."""

BINS = 10  # of the probability that a model gives the answer it prefers, from one half to one
PARTS = 6 + 2 * len(GRADES) + 3 * BINS


class Pairs(NamedTuple):
    """Rewards of N pairs, and what is known of them.

    Attributes:
        chosen, rejected: (N,) float32.
        margins: (N,) float32.
        grades: (N,) int64, places in `GRADES`; -1: nobody said.
        safe: (N, 2) int64, of the chosen and of the rejected answer: 1 safe, 0 unsafe, -1: nobody said.
    """

    chosen: Tensor
    rejected: Tensor
    margins: Tensor
    grades: Tensor
    safe: Tensor


def reward_loss(pairs: Pairs, safety_weight: float = 0.0) -> tuple[Tensor, Tensor]:
    """Sums over pairs: −ln σ(chosen − rejected − margin), and `safety_weight` times −ln σ of each answer's reward where
    it is safe, of minus its reward where it is unsafe.

    Returns:
        (), to be minimised, and `PARTS` numbers that `measured` reads.
    """
    gaps = pairs.chosen - pairs.rejected
    ranking = F.softplus(pairs.margins - gaps).sum()
    both = torch.stack([pairs.chosen, pairs.rejected], 1)
    known = pairs.safe >= 0
    safety = (F.softplus(torch.where(pairs.safe == 1, -both, both)) * known).sum()
    total = ranking + safety_weight * safety
    return total, torch.cat([torch.stack([total, safety]).detach().double(), _counts(pairs)])


@torch.no_grad()
def _counts(pairs: Pairs) -> Tensor:
    gaps = (pairs.chosen - pairs.rejected).double()
    right = (gaps > 0).double()
    rewards = torch.cat([pairs.chosen, pairs.rejected]).double()
    sums = torch.stack([right.sum(), gaps.sum(), rewards.sum() / 2, rewards.square().sum() / 2])
    graded = F.one_hot(pairs.grades + 1, len(GRADES) + 1)[:, 1:].double()  # (N, grades)
    sure = torch.sigmoid(gaps.abs())
    binned = F.one_hot(((sure - 0.5) * 2 * BINS).long().clamp_max(BINS - 1), BINS).double()  # (N, bins)
    by_grade = torch.stack([graded.sum(0), (graded * right[:, None]).sum(0)])
    by_bin = torch.stack([binned.sum(0), (binned * right[:, None]).sum(0), (binned * sure[:, None]).sum(0)])
    return torch.cat([sums, by_grade.flatten(), by_bin.flatten()])


def measured(means: list[float]) -> dict[str, float]:
    """Figures by name, from parts that were divided by the number of pairs: loss, accuracy, margin (of rewards, not of
    the loss), mean and deviation of rewards, expected calibration error, and the accuracy of each grade there is.

    The error is the mean distance between how sure the model is and how often it is right, over bins of the former
    (Guo et al. 2017, arXiv:1706.04599); σ(difference) is how sure it is.
    """
    loss, safety, accuracy, margin, mean, square, *rest = means
    n = len(GRADES)
    found = {"loss": loss, "accuracy": accuracy, "margin": margin, "reward": mean}
    found |= {"reward_deviation": max(0.0, square - mean**2) ** 0.5}
    found |= {"safety_loss": safety} if safety else {}
    for grade, count, right in zip(GRADES, rest[:n], rest[n : 2 * n], strict=True):
        if count:
            found[f"accuracy_{grade.replace(' ', '_')}"] = right / count
    _, right_in, sure_in = (rest[2 * n + BINS * part :][:BINS] for part in range(3))
    found["calibration_error"] = sum(abs(right - sure) for right, sure in zip(right_in, sure_in, strict=True))
    return found
