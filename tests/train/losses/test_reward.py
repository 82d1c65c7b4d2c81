"""A reward model's loss: Llama 2's formula, and what is measured beside it, against plain NumPy and autograd."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid

from camelid.data.chats.examples import GRADES
from camelid.train.losses.reward import MARGINS, PARTS, Pairs, measured, reward_loss


def drawn(seed, n):
    draw = torch.Generator().manual_seed(seed)
    chosen, rejected = (2 * torch.randn(n, generator=draw, dtype=torch.float64) for _ in range(2))
    grades = torch.randint(-1, 4, (n,), generator=draw)
    safe = torch.randint(-1, 2, (n, 2), generator=draw)
    return chosen.requires_grad_(), rejected.requires_grad_(), grades, safe


def test_the_margins_are_the_papers():
    assert MARGINS["large"] == (3, 2, 1, 0)
    assert MARGINS["small"] == (1, 2 / 3, 1 / 3, 0)
    assert GRADES == ("significantly better", "better", "slightly better", "negligibly better")


@pytest.mark.parametrize("margins", MARGINS)
@pytest.mark.parametrize("seed", range(3))
def test_loss_and_gradient(margins, seed):
    """TRL's RewardTrainer: -logsigmoid(chosen - rejected - margin), here as a sum; the paper's safety loss beside."""
    chosen, rejected, grades, safe = drawn(seed, 17)
    table = torch.tensor([*MARGINS[margins], 0.0], dtype=torch.float64)
    total, parts = reward_loss(Pairs(chosen, rejected, table[grades], grades, safe), 0.25)
    expected = -logsigmoid(chosen - rejected - table[grades]).sum()
    for answer, label in ((chosen, safe[:, 0]), (rejected, safe[:, 1])):
        expected = expected - 0.25 * (logsigmoid(answer) * (label == 1) + logsigmoid(-answer) * (label == 0)).sum()
    assert total.item() == pytest.approx(expected.item())
    assert len(parts) == PARTS
    ours = torch.autograd.grad(total, (chosen, rejected))
    theirs = torch.autograd.grad(expected, (chosen, rejected))
    assert all(torch.allclose(one, other) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_what_is_measured(seed):
    chosen, rejected, grades, safe = drawn(seed, 40)
    pairs = Pairs(chosen.detach(), rejected.detach(), torch.zeros(40), grades, safe)
    halves = [Pairs(*(part[some] for part in pairs)) for some in (slice(13), slice(13, 40))]
    parts = sum(reward_loss(half)[1] for half in halves)  # however they are cut
    found = measured((parts / 40).tolist())
    one, other, grade = chosen.detach().numpy(), rejected.detach().numpy(), grades.numpy()
    right, both = one > other, np.concatenate([one, other])
    assert found["accuracy"] == pytest.approx(right.mean())
    assert found["margin"] == pytest.approx((one - other).mean())
    assert (found["reward"], found["reward_deviation"]) == pytest.approx((both.mean(), both.std()))
    for number, name in enumerate(GRADES):
        if (grade == number).any():
            assert found[f"accuracy_{name.replace(' ', '_')}"] == pytest.approx(right[grade == number].mean())
    sure = 1 / (1 + np.exp(-abs(one - other)))
    error = 0.0
    for low in np.arange(0.5, 1, 0.05):
        inside = (sure >= low) & (sure < low + 0.05)
        error += abs(right[inside].sum() - sure[inside].sum()) / 40
    assert found["calibration_error"] == pytest.approx(error)


def test_without_pairs_nothing_is_lost():
    nothing = torch.zeros(0, requires_grad=True)
    total, parts = reward_loss(Pairs(nothing, nothing, nothing, torch.zeros(0).long(), torch.zeros(0, 2).long()), 1.0)
    total.backward()
    assert total.item() == 0
    assert parts.sum() == 0


def test_a_worked_example():
    one, other = torch.tensor([1.0]), torch.tensor([0.0])
    total, _ = reward_loss(Pairs(one, other, torch.tensor([1.0]), torch.tensor([0]), torch.tensor([[1, 0]])), 1.0)
    assert total.item() == pytest.approx(math.log(2) + math.log(1 + math.exp(-1)) + math.log(2))
