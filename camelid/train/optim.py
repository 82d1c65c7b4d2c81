"""The optimiser: AdamW on float32 weights, with decay where it belongs."""

from __future__ import annotations

from torch.optim import AdamW

from camelid.model.llama_torch import LlamaTorch
from camelid.train.options import OptimOptions


def make_optimizer(model: LlamaTorch, options: OptimOptions) -> AdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) with two groups of parameters.

    Matrices decay, the embedding among them, as in Llama 2. Vectors (the norms' weights) do not: they scale
    activations, and pulling them to 0 would only fight the loss. What needs no gradient is left as it is. The loop
    sets the learning rate before each step.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.dim() > 1]
    vectors = [parameter for parameter in trained if parameter.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": options.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return AdamW(
        [group for group in groups if group["params"]],
        lr=options.lr,
        betas=options.betas,
        eps=options.eps,
        fused=True,
    )
