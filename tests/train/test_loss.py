"""The loss and its gradients, against PyTorch's cross entropy in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.data.batches import IGNORED
from camelid.train import loss
from camelid.train.loss import token_loss


def made(count, width=16, vocab=50, seed=0, ignored=0.3):
    torch.manual_seed(seed)
    hidden = torch.randn(count, width, requires_grad=True)
    output = torch.randn(vocab, width, requires_grad=True)
    targets = torch.randint(0, vocab, (count,))
    targets[torch.rand(count) < ignored] = IGNORED
    return hidden, output, targets


def plain(hidden, output, targets, divisor, z_weight):
    """The definition, in float64."""
    scores = hidden.double() @ output.double().t()
    z = scores.logsumexp(-1)[targets != IGNORED].square().sum() * z_weight
    return (F.cross_entropy(scores, targets, ignore_index=IGNORED, reduction="sum") + z) / divisor


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 90),
    st.sampled_from([0.0, 1e-2]),
    st.integers(0, 2**31),
    st.sampled_from([7, 32, 1024]),
    st.booleans(),
)
def test_the_definition(count, z_weight, seed, piece, outside):
    hidden, output, targets = made(count, seed=seed)
    expected = plain(hidden, output, targets, 17, z_weight)
    wanted = torch.autograd.grad(expected, (hidden, output))
    into = torch.zeros(output.shape) if outside else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss, "LOGIT_TOKENS", piece)
        total, parts = token_loss(hidden, output, targets, 17, z_weight, into)
    total.backward()
    assert parts.sum().item() == pytest.approx(expected.item(), rel=1e-6, abs=1e-9)
    assert total.item() == pytest.approx(expected.item(), rel=1e-6, abs=1e-9)
    torch.testing.assert_close(hidden.grad, wanted[0], rtol=1e-4, atol=1e-6, check_dtype=False)
    torch.testing.assert_close(
        output.grad if into is None else into, wanted[1], rtol=1e-4, atol=1e-6, check_dtype=False
    )
    assert (output.grad is None) == outside


def test_what_is_ignored_has_no_gradient():
    hidden, output, targets = made(40, ignored=0.5)
    token_loss(hidden, output, targets, 20)[0].backward()
    assert not hidden.grad[targets == IGNORED].any()
    assert hidden.grad[targets != IGNORED].any(-1).all()


def test_pieces_add_up():
    hidden, output, targets = made(64)
    whole = token_loss(hidden, output, targets, 64).parts
    halves = [token_loss(hidden[half], output, targets[half], 64).parts for half in (slice(0, 23), slice(23, 64))]
    torch.testing.assert_close(halves[0] + halves[1], whole, rtol=1e-12, atol=1e-12)


def test_a_sure_and_right_model_loses_nothing_and_large_scores_do_no_harm():
    output = torch.eye(8)
    hidden = torch.eye(8) * 1e4
    assert token_loss(hidden, output, torch.arange(8), 8).total.item() == 0
    assert token_loss(hidden, output, torch.arange(8).flip(0), 8).total.item() == pytest.approx(1e4)


def test_bf16_gradients_are_near():
    hidden, output, targets = made(100, width=64, vocab=300)
    expected = torch.autograd.grad(plain(hidden, output, targets, 70, 0.0), (hidden, output))
    rounded = [part.detach().bfloat16().requires_grad_() for part in (hidden, output)]
    token_loss(*rounded, targets, 70).total.backward()
    for one, other in zip(rounded, expected, strict=True):
        assert (one.grad.float() - other).norm() < 0.02 * other.norm()
