"""PPO (Schulman et al. 2017, arXiv:1707.06347) on answers, as Llama 2 used it (arXiv:2307.09288, section 3.2.3).

Answers lie one after the other, without padding: N tokens of M answers, `lengths` (M,) says where each ends. So nothing
that pads could be rewarded, whitened or averaged. What the paper leaves open is decided in docs/decisions/ppo.md.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from camelid.train.losses.token_loss import Loss

PARTS = ("loss", "policy_loss", "value_loss", "entropy", "clip_share", "value_clip_share", "update_kl")
_EPS = 1e-8

Add = Callable[[Tensor], Tensor]
"""A sum over all ranks, in place."""


def token_kl(logprobs: Tensor, reference: Tensor) -> Tensor:
    """How far the policy went at each token, (N,): log π − log π0, whose mean under π is the KL divergence (k1 of
    Schulman 2020, "Approximating KL divergence"). As a part of the reward only this one is without bias."""
    return logprobs - reference


def whiten(values: Tensor, add: Add = lambda sums: sums) -> Tensor:
    """Mean 0 and standard deviation 1 over all of them, on all ranks together; as float64, (n,).

    Of a reward model's scores this is the paper's WHITEN(LOGIT(R)), for a score is the logit of R already. Where all
    are equal, all are 0.

    Args:
        add: called twice, by every rank.
    """
    wide = values.double()
    total, count = add(torch.stack([wide.sum(), wide.new_tensor(float(wide.numel()))]))
    centred = wide - total / count.clamp(min=1)
    squares = add(centred.square().sum().reshape(1))[0]
    return centred * torch.rsqrt(squares / (count - 1).clamp(min=1) + _EPS)


def token_rewards(logprobs: Tensor, reference: Tensor, scores: Tensor, lengths: Tensor, beta: float) -> Tensor:
    """What each token earns, (N,): −β (log π − log π0), and the last token of an answer its score beside.

    Args:
        logprobs, reference: (N,) of the written tokens.
        scores: (M,) of the answers.
        lengths: (M,) int64, each at least 1.
    """
    lasts = last_tokens(lengths)
    assert int(lasts[-1]) == len(logprobs) - 1, "the last answer ends where the tokens end"
    rewards = -beta * token_kl(logprobs, reference).double()
    rewards[lasts] += scores.double()
    return rewards


def last_tokens(lengths: Tensor) -> Tensor:
    """Where each answer's last token is, (M,) int64."""
    assert bool((lengths > 0).all()), "every answer has a token: what ends it, at least"
    return lengths.cumsum(0) - 1


def advantages_of(
    rewards: Tensor, values: Tensor, lengths: Tensor, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates (Schulman et al. 2015, arXiv:1506.02438, equation 16) and returns, (N,) float64.

    δ_t = r_t + γ V_{t+1} − V_t, A_t = δ_t + γ λ A_{t+1}; after the last token of an answer V and A are 0. A return is
    A_t + V_t.

    Args:
        rewards, values: (N,); V_t is of the state before token t is written.
    """
    earned, worth = rewards.tolist(), values.double().tolist()
    ends = set(last_tokens(lengths).tolist())
    found = [0.0] * len(earned)
    for place in range(len(earned) - 1, -1, -1):
        is_last = place in ends
        after = 0.0 if is_last else worth[place + 1]
        later = 0.0 if is_last else found[place + 1]
        found[place] = earned[place] + gamma * after - worth[place] + gamma * lam * later
    advantages = torch.tensor(found, dtype=torch.float64, device=rewards.device)
    return advantages, advantages + values.double()


def ppo_loss(
    logprobs: Tensor,
    values: Tensor,
    entropies: Tensor,
    old_logprobs: Tensor,
    old_values: Tensor,
    advantages: Tensor,
    returns: Tensor,
    divisor: float,
    clip: float = 0.2,
    value_clip: float = 0.2,
    value_weight: float = 0.1,
) -> Loss:
    """The sum over tokens, divided by `divisor`, of max(−A ρ, −A clip(ρ, 1 − ε, 1 + ε)), ρ = π / π_old, and of
    `value_weight` / 2 · max((V − R)², (V_old + clip(V − V_old, ±ε_v) − R)²). All are (N,).

    Returns:
        its parts are those named in `PARTS`; the last is the mean of ρ − 1 − log ρ, how far the policy is from the one
        that wrote.
    """
    ratio = (logprobs - old_logprobs).exp()
    free, bounded = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
    policy = torch.maximum(free, bounded)
    near = old_values + (values - old_values).clamp(-value_clip, value_clip)
    far, held = (values - returns).square(), (near - returns).square()
    value = 0.5 * torch.maximum(far, held)
    total = (policy + value_weight * value).sum() / divisor
    with torch.no_grad():
        drift = ratio - 1 - (logprobs - old_logprobs)
        each = (policy, value, entropies, bounded > free, held > far, drift)
        parts = torch.stack([total.double(), *(part.sum(dtype=torch.float64) / divisor for part in each)])
    return Loss(total.float(), parts)


def explained_variance(values: Tensor, returns: Tensor, add: Add = lambda sums: sums) -> float:
    """1 − Var(R − V) / Var(R), on all ranks together: 1 where values foresee returns, 0 where they say nothing; 0 too
    where all returns are equal."""
    wide, left = returns.double(), returns.double() - values.double()
    sums = [wide.new_tensor(float(wide.numel())), wide.sum(), left.sum(), wide.square().sum(), left.square().sum()]
    count, total, rest, squares, rest_squares = add(torch.stack(sums)).tolist()
    variance = squares / count - (total / count) ** 2
    return 1 - (rest_squares / count - (rest / count) ** 2) / variance if variance > _EPS else 0.0
