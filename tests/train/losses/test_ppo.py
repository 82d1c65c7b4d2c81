"""PPO's parts against values worked by hand, and against themselves in another order."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor

from camelid.train.losses.ppo import (
    PARTS,
    advantages_of,
    explained_variance,
    last_tokens,
    ppo_loss,
    token_kl,
    token_rewards,
    whiten,
)

LENGTHS = tensor([2, 1])


def logit(probability):
    return math.log(probability / (1 - probability))


def test_a_token_earns_minus_beta_times_its_kl_and_the_last_one_the_score():
    logprobs, reference = tensor([-1.0, -2.0, -0.5]), tensor([-1.5, -1.8, -0.5])
    assert token_kl(logprobs, reference).tolist() == pytest.approx([0.5, -0.2, 0.0])
    rewards = token_rewards(logprobs, reference, tensor([1.0, -2.0]), LENGTHS, 0.1)
    assert rewards.tolist() == pytest.approx([-0.05, 0.02 + 1, -2.0])
    assert token_rewards(logprobs, reference, tensor([1.0, -2.0]), LENGTHS, 0).tolist() == [0, 1, -2]


def test_the_score_lands_on_the_last_written_token_or_nowhere():
    assert last_tokens(tensor([2, 1, 4])).tolist() == [1, 2, 6]
    with pytest.raises(AssertionError, match="every answer has a token"):
        last_tokens(tensor([2, 0]))
    with pytest.raises(AssertionError, match="ends where the tokens end"):  # a place behind the answer, as padding
        token_rewards(torch.zeros(4), torch.zeros(4), tensor([1.0, 1.0]), LENGTHS, 0.1)


def test_advantages_are_those_worked_by_hand():
    # Last token: .77 = 1.02 - .25; the one before: (-.05 + .25 - .5) + .95 · .77; the other answer alone: -2 - 1.
    advantages, returns = advantages_of(tensor([-0.05, 1.02, -2.0]), tensor([0.5, 0.25, 1.0]), LENGTHS)
    assert advantages.tolist() == pytest.approx([-0.3 + 0.95 * 0.77, 0.77, -3.0])
    assert returns.tolist() == pytest.approx([0.5 - 0.3 + 0.95 * 0.77, 1.02, -2.0])
    # γ = .5, λ = 1: the return is r_0 + .5 r_1, whatever the values are.
    _, discounted = advantages_of(tensor([1.0, 4.0]), tensor([0.3, 9.0]), tensor([2]), gamma=0.5, lam=1.0)
    assert discounted.tolist() == pytest.approx([3.0, 4.0])
    # λ = 0: one step ahead only.
    one, _ = advantages_of(tensor([1.0, 4.0]), tensor([0.5, 9.0]), tensor([2]), gamma=1.0, lam=0.0)
    assert one.tolist() == pytest.approx([1 + 9 - 0.5, 4 - 9])


def test_whitening_takes_the_scores_of_a_reward_model_as_logits():
    rewards = [0.2, 0.5, 0.9]  # R of the paper; what a reward model says is their logit
    scores = tensor([logit(each) for each in rewards], dtype=torch.float64)
    assert torch.allclose(scores.sigmoid(), tensor(rewards, dtype=torch.float64))
    mean = sum(map(logit, rewards)) / 3
    deviation = math.sqrt(sum((logit(each) - mean) ** 2 for each in rewards) / 2)
    assert whiten(scores).tolist() == pytest.approx([(logit(each) - mean) / deviation for each in rewards])
    assert whiten(tensor([1.0, 2.0, 3.0])).tolist() == pytest.approx([-1, 0, 1])
    assert whiten(tensor([4.0, 4.0])).tolist() == [0, 0]
    assert whiten(tensor([4.0])).tolist() == [0]
    assert whiten(tensor([])).tolist() == []


def test_whitening_is_of_all_ranks_together():
    whole, sums = torch.randn(11, generator=torch.Generator().manual_seed(0)), []

    def of_the_other(values):
        """Sums as they would come back from a rank that has the last seven."""
        other = whole[4:].double()
        centred = other - whole.double().mean()
        added = values + (tensor([other.sum(), 7.0]) if len(values) == 2 else centred.square().sum().reshape(1))
        sums.append(added)
        return added

    assert torch.allclose(whiten(whole[:4], of_the_other), whiten(whole)[:4], atol=1e-12)
    assert len(sums) == 2


def test_the_loss_is_the_one_worked_by_hand():
    ratios, advantages = [1.3, 1.3, 0.7, 0.7, 1.1], [1.0, -1.0, -1.0, 1.0, 2.0]
    values, old, returns = [1.0, 0.5, 0.0, 0.0, 0.1], [0.5, 0.5, 0.5, 0.0, 0.0], [2.0, 1.5, 1.0, 0.0, 0.3]
    # -min: clipped at 1.2 where a gain would grow, free where it shrinks.
    policy = [-1.2, 1.3, 0.8, -0.7, -2.2]
    # near: .7, .5, .3, 0, .1; the worse of both squares.
    value = [0.5 * worse for worse in (1.3**2, 1.0, 1.0, 0.0, 0.04)]
    old_logprobs = tensor([-2.0, -1.0, -0.5, -3.0, -1.0])
    logprobs = (old_logprobs + tensor(ratios).log()).requires_grad_()
    loss = ppo_loss(
        logprobs,
        tensor(values),
        torch.ones(5),
        old_logprobs,
        tensor(old),
        tensor(advantages),
        tensor(returns),
        10,
        value_weight=0.1,
    )
    said = dict(zip(PARTS, loss.parts.tolist(), strict=True))
    assert said["policy_loss"] == pytest.approx(sum(policy) / 10)
    assert said["value_loss"] == pytest.approx(sum(value) / 10)
    assert said["loss"] == pytest.approx((sum(policy) + 0.1 * sum(value)) / 10) == pytest.approx(loss.total.item())
    assert said["entropy"] == pytest.approx(0.5)
    assert said["clip_share"] == pytest.approx(2 / 10)
    assert said["value_clip_share"] == pytest.approx(1 / 10)
    assert said["update_kl"] == pytest.approx(sum(r - 1 - math.log(r) for r in ratios) / 10, rel=1e-5)
    loss.total.backward()
    # The gradient of -A ρ in log π is -A ρ; none where it is clipped.
    assert logprobs.grad.tolist() == pytest.approx([0, 0.13, 0, -0.07, -0.22])


def test_what_values_foresee():
    returns = tensor([1.0, 2.0, 3.0])
    assert explained_variance(returns, returns) == 1
    assert explained_variance(torch.zeros(3), returns) == pytest.approx(0)
    assert explained_variance(returns + 5, returns) == pytest.approx(1)  # a constant apart
    assert explained_variance(-returns, returns) == pytest.approx(-3)
    assert explained_variance(returns, torch.ones(3)) == 0


@given(st.lists(st.integers(1, 9), min_size=2, max_size=8), st.integers(0, 2**31))
def test_the_order_of_answers_changes_nothing(lengths, seed):
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(lengths)).tolist()
    starts = np.cumsum([0, *lengths])
    places = [place for number in order for place in range(starts[number], starts[number + 1])]
    n = int(starts[-1])
    logprobs, reference, values = (torch.from_numpy(draw.normal(size=n)) for _ in range(3))
    scores = torch.from_numpy(draw.normal(size=len(lengths)))

    def learned(some, answers):
        own = tensor([lengths[number] for number in answers])
        rewards = token_rewards(logprobs[some], reference[some], whiten(scores[answers]), own, 0.1)
        advantages, returns = advantages_of(rewards, values[some], own)
        new = logprobs[some] + 0.3 * reference[some].sin()
        zeros = torch.zeros(n)
        loss = ppo_loss(new, values[some] + 0.1, zeros, logprobs[some], values[some], whiten(advantages), returns, n)
        return advantages, returns, loss

    one, other = learned(list(range(n)), list(range(len(lengths)))), learned(places, order)
    assert torch.allclose(one[0][places], other[0], atol=1e-9)
    assert torch.allclose(one[1][places], other[1], atol=1e-9)
    assert torch.allclose(one[2].parts, other[2].parts, atol=1e-9)


def test_padding_as_others_have_it_changes_nothing():
    """The same in rows that are filled up, masked, as `masked_whiten` and GAE over columns do it elsewhere."""
    draw = torch.Generator().manual_seed(3)
    lengths, width = [5, 1, 3], 8
    rows = torch.full((3, width), 1e9, dtype=torch.float64)
    mask = tensor([[place < length for place in range(width)] for length in lengths])
    rewards, values = (torch.randn(9, generator=draw, dtype=torch.float64) for _ in range(2))
    padded_rewards, padded_values = rows.clone(), rows.clone()
    padded_rewards[mask], padded_values[mask] = rewards, values
    padded_rewards[~mask] = padded_values[~mask] = 0  # what a mask must do first
    after, columns = torch.zeros(3, dtype=torch.float64), []
    for place in reversed(range(width)):
        ahead = padded_values[:, place + 1] if place + 1 < width else 0.0
        delta = padded_rewards[:, place] + ahead - padded_values[:, place]
        after = delta + 0.95 * after
        columns.append(after)
    padded = torch.stack(columns[::-1], 1)
    advantages, _ = advantages_of(rewards, values, tensor(lengths))
    assert torch.allclose(padded[mask], advantages, atol=1e-12)
    mean = (padded * mask).sum() / mask.sum()
    variance = (((padded - mean) ** 2) * mask).sum() / (mask.sum() - 1)
    assert torch.allclose(((padded - mean) * torch.rsqrt(variance + 1e-8))[mask], whiten(advantages), atol=1e-12)
