"""The loss of a language model, from hidden states: the output matrix, the softmax and the gradient in one go.

Scores are computed for a piece of the tokens at once and become their own gradient there and then, so that they are
never whole in memory, never in float32 except within a piece, and the output matrix is multiplied three times, not
four: nothing is computed again in the backward pass. (The order of work is that of Liger Kernel, Hsu et al. 2024,
arXiv:2410.10989, and of Wijmans et al. 2024, arXiv:2411.09009.)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from camelid.data.batches import IGNORED
from camelid.train.options import LOGIT_TOKENS
from camelid.train.softmax import powers_over


class Loss(NamedTuple):
    """What a stage minimises, of some rows.

    Attributes:
        total: (), float32, what is minimised; its `backward` may be called once.
        parts: (n,) float64 without gradient, each divided as `total` is: the loss proper, then what else is measured.
    """

    total: Tensor
    parts: Tensor


def token_loss(
    hidden: Tensor,
    output: Tensor,
    targets: Tensor,
    divisor: float,
    z_weight: float = 0.0,
    into: Tensor | None = None,
    fuse: bool = False,
    weights: Tensor | None = None,
) -> Loss:
    """Sum of the losses of all tokens, divided by `divisor`.

    With the number of trained tokens of the whole step as divisor, on every rank and in every micro-batch, the sum of
    these is the mean over all tokens, however they are cut. The z-loss is `z_weight` · ln²(Z), Z being the softmax's
    divisor (Chowdhery et al. 2022, arXiv:2204.02311, section 5).

    Args:
        hidden: (N, D) after the last norm.
        output: (V, D).
        targets: (N,) int64; IGNORED is not learned and counts nothing.
        divisor: at least 1.
        z_weight: of the z-loss.
        into: (V, D) float32, to which the gradient of `output` is added at once; None: it goes through autograd.
        fuse: let torch.compile fuse what is not a matrix product.
        weights: (N,) float32, of each token; None: 1.

    Returns:
        its parts are (3,): the loss in nats, the z-loss, and how many targets have the highest score.
    """
    total, parts = _TokenLoss.apply(hidden, output, targets, divisor, z_weight, into, fuse, weights)
    return Loss(total, parts)


class _TokenLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        output: Tensor,
        targets: Tensor,
        divisor: float,
        z_weight: float,
        into: Tensor | None,
        fuse: bool,
        weights: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        learns = ctx.needs_input_grad[0]
        grad_hidden = torch.empty_like(hidden) if learns else None
        grad_output = into
        if learns and into is None and ctx.needs_input_grad[1]:
            grad_output = torch.zeros(output.shape, dtype=torch.float32, device=output.device)
        parts = torch.zeros(3, dtype=torch.float64, device=hidden.device)
        for start in range(0, len(hidden), LOGIT_TOKENS):
            some = slice(start, start + LOGIT_TOKENS)
            scores = _scores(output, hidden[some])  # (V, n)
            scale = (targets[some] != IGNORED).float().div_(divisor)  # (n,)
            if weights is not None:
                scale = scale * weights[some]
            chosen = targets[some].clamp_min(0), torch.arange(scores.shape[1], device=scores.device)
            own = scores[chosen].float()
            tops, powers, totals = powers_over(scores, fuse)
            log_z = tops + totals.log()
            parts[0] += ((log_z - own) * scale).sum(dtype=torch.float64)
            parts[1] += (z_weight * log_z.square() * scale).sum(dtype=torch.float64)
            parts[2] += ((own >= tops) * scale).sum(dtype=torch.float64)
            if grad_hidden is None:
                continue
            # The gradient of the scores is (powers - hit) · share, where hit is 0 but for the chosen.
            slope = 1 + 2 * z_weight * log_z
            share = (scale * slope / totals)[:, None]
            powers[chosen] = ((own - tops).exp() - totals / slope).to(powers.dtype)
            torch.mul(torch.mm(output.t(), powers).t(), share, out=grad_hidden[some])
            if grad_output is not None:
                grad_output.add_(torch.mm(powers, (hidden[some] * share).to(hidden.dtype)))
        ctx.grads = grad_hidden, None if into is not None or grad_output is None else grad_output.to(output.dtype)
        ctx.mark_non_differentiable(parts)
        return parts[:2].sum().float(), parts

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, output = ctx.grads
        del ctx.grads  # so that a second call fails, and memory is free
        scale = grads[0]
        scaled = (None if grad is None else grad.mul_(scale.to(grad.dtype)) for grad in (hidden, output))
        return (*scaled, None, None, None, None, None, None)


def _scores(output: Tensor, hidden: Tensor) -> Tensor:
    """(V, n), laid out as the products that come after it are fastest."""
    return torch.mm(output, hidden.t()) if hidden.device.type == "cpu" else torch.mm(hidden, output.t()).t()


def token_logprobs(hidden: Tensor, output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the targets with their gradient, for losses that weigh each token or each answer.

    Scores are computed for `LOGIT_TOKENS` at once and again in the backward pass: they are never whole in memory.

    Args:
        hidden: (N, D) after the last norm.
        output: (V, D).
        targets: (N,) int64; where IGNORED, both results are 0.

    Returns:
        log-probabilities (N,) float32 in nats, and the entropies of the distributions (N,) without gradient.
    """
    logprobs, entropies = _TokenLogprobs.apply(hidden, output, targets)
    return logprobs, entropies


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logprobs = hidden.new_zeros(len(hidden), dtype=torch.float32)
        entropies = torch.zeros_like(logprobs)
        places = (targets != IGNORED).nonzero().flatten()
        for some in places.split(LOGIT_TOKENS):
            scores = torch.mm(hidden[some], output.t()).float().log_softmax(-1)  # (n, V)
            logprobs[some] = scores.gather(1, targets[some, None]).squeeze(1)
            entropies[some] = -(scores.exp() * scores).sum(1)
        ctx.save_for_backward(hidden, output, targets, places)
        ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, output, targets, places = ctx.saved_tensors
        grad_hidden = torch.zeros_like(hidden)
        grad_output = torch.zeros(output.shape, dtype=torch.float32, device=output.device)
        for some in places.split(LOGIT_TOKENS):
            slope = torch.mm(hidden[some], output.t()).float().softmax(-1).neg_()
            slope[torch.arange(len(some), device=slope.device), targets[some]] += 1
            slope = slope.mul_(grads[0][some, None]).to(hidden.dtype)
            grad_hidden[some] = torch.mm(slope, output)
            grad_output += torch.mm(slope.t(), hidden[some])
        return grad_hidden, grad_output.to(output.dtype), None
