"""The loss and its gradients, against PyTorch's cross entropy in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.data.batches import IGNORED
from camelid.train.losses import token_loss as loss_module
from camelid.train.losses.token_loss import token_logprobs, token_loss


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
        patch.setattr(loss_module, "LOGIT_TOKENS", piece)
        total, parts = token_loss(hidden, output, targets, 17, z_weight, into)
    total.backward()
    assert parts[:2].sum().item() == pytest.approx(expected.item(), rel=1e-6, abs=1e-9)
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
    for part, exact in zip(rounded, expected, strict=True):
        assert (part.grad.float() - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("seed", range(3))
def test_token_logprobs_are_those_of_the_whole_softmax_with_their_gradient(seed, monkeypatch):
    monkeypatch.setattr("camelid.train.losses.token_loss.LOGIT_TOKENS", 5)
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn(13, 6, generator=draw, requires_grad=True)
    output = torch.randn(11, 6, generator=draw, requires_grad=True)
    targets = torch.randint(0, 11, (13,), generator=draw)
    targets[torch.rand(13, generator=draw) < 0.3] = IGNORED
    weight = torch.randn(13, generator=draw)
    logprobs, entropies = token_logprobs(hidden, output, targets)
    found = torch.autograd.grad((logprobs * weight).sum(), (hidden, output))
    whole = (hidden @ output.t()).log_softmax(-1)
    learned = targets != IGNORED
    expected = torch.where(learned, whole.gather(1, targets.clamp_min(0)[:, None]).squeeze(1), 0)
    assert torch.allclose(logprobs, expected, atol=1e-6)
    assert torch.allclose(entropies, torch.where(learned, -(whole.exp() * whole).sum(1), 0), atol=1e-6)
    for one, other in zip(found, torch.autograd.grad((expected * weight).sum(), (hidden, output)), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60), st.integers(0, 2**31), st.booleans())
def test_weights_of_tokens_and_how_many_are_right(count, seed, outside):
    hidden, output, targets = made(count, seed=seed)
    weights = torch.rand(count)
    scores = hidden.double() @ output.double().t()
    each = F.cross_entropy(scores, targets, ignore_index=IGNORED, reduction="none")
    wanted = torch.autograd.grad((each * weights).sum() / 5, (hidden, output))
    into = torch.zeros(output.shape) if outside else None
    total, parts = token_loss(hidden, output, targets, 5, into=into, weights=weights)
    total.backward()
    assert parts[0].item() == pytest.approx((each * weights).sum().item() / 5, rel=1e-5, abs=1e-9)
    assert parts[2].item() == pytest.approx(((scores.argmax(1) == targets) * weights).sum().item() / 5, abs=1e-6)
    torch.testing.assert_close(hidden.grad, wanted[0], rtol=1e-4, atol=1e-6, check_dtype=False)
    found = output.grad if into is None else into
    torch.testing.assert_close(found, wanted[1], rtol=1e-4, atol=1e-6, check_dtype=False)
