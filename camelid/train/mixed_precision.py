"""The weights that arithmetic reads, beside the float32 weights that the optimiser changes.

In bf16 on one device they are a copy, made anew after each change: a small change would vanish in bf16's eight bits,
so the float32 weights keep it (Micikevicius et al. 2018, arXiv:1710.03740). Gradients are added up in float32 over
micro-batches. With several ranks FSDP2 makes the copies, layer by layer, and adds up.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from camelid.model.llama_torch import LlamaTorch
from camelid.train.adapters.linear import share_blocks
from camelid.train.attention import attention_on
from camelid.train.losses.token_loss import Loss, token_loss
from camelid.train.options import RunOptions
from camelid.train.parallel import Parallel


class Learner:
    """A model that an objective learns with, micro-batch after micro-batch.

    Args:
        masters: float32, initialised or restored; what the optimiser changes. Its gradients are written here.
        options: of the stage.
        parallel: the ranks.
        fuse: let torch.compile fuse what stands between matrix products.

    Attributes:
        model: what computes: the masters, or their copy in bf16.
    """

    def __init__(self, masters: LlamaTorch, options: RunOptions, parallel: Parallel, fuse: bool) -> None:
        self._masters, self._parallel, self._fuse = masters, parallel, fuse
        self._learns = True
        self._copies = options.precision == "bf16" and parallel.n_ranks == 1
        self.model = _copy(masters) if self._copies else masters
        self.model.recompute = options.recompute
        self._attention = attention_on(parallel.device)
        if fuse:
            for layer in self.model.layers:
                layer.forward = torch.compile(layer.forward, dynamic=False)

    def hidden(self, ids: Tensor, positions: Tensor) -> Tensor:
        """(R · T, D) after the last norm, of ids and positions (R, T); positions begin anew with each document.

        The forward pass is the same while nothing is learned, so that compiled code serves both.
        """
        if self.model.adapters is not None:
            self.model.adapters.drops.begin(self._learns)
        self._attention.prepare(positions)
        with torch.enable_grad():
            hidden: Tensor = self.model(ids, positions, self._attention)
        return hidden.flatten(0, -2) if self._learns else hidden.flatten(0, -2).detach()

    def token_loss(
        self, hidden: Tensor, targets: Tensor, divisor: int, z_weight: float = 0.0, weights: Tensor | None = None
    ) -> Loss:
        """The loss of the next token, of targets (R, T) and their weights: see `losses.token_loss`."""
        into = self._output_gradient() if self._learns else None
        return token_loss(hidden, self.model.output, targets.flatten(), divisor, z_weight, into, self._fuse, weights)

    @property
    def learns(self) -> bool:
        """Whether losses have a gradient just now."""
        return self._learns

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Nothing is learned in it: losses have no gradient."""
        self._learns = False
        try:
            with torch.no_grad():
                yield
        finally:
            self._learns = True

    @torch.no_grad()
    def take_masters(self) -> None:
        """Copy the changed weights."""
        if self._copies:
            pairs = zip(self.model.parameters(), self._masters.parameters(), strict=True)
            copies, masters = zip(*((copy, master) for copy, master in pairs if copy is not master), strict=True)
            torch._foreach_copy_(copies, masters)

    def _output_gradient(self) -> Tensor | None:
        """Where the output matrix's gradient is added up, in float32; None where FSDP must see it, or nothing must."""
        output = self._masters.output
        if self._parallel.n_ranks > 1 or not output.requires_grad:
            return None
        if output.grad is None:
            output.grad = torch.zeros_like(output)
        return output.grad


def _copy(masters: LlamaTorch) -> LlamaTorch:
    """A bf16 copy whose gradients, as soon as each is there, are added to those of the float32 weights; what is frozen
    in bf16 already is not copied."""
    with torch.device("meta"):
        copy = LlamaTorch(masters.config, len(masters.cos), score=hasattr(masters, "score"))
    copy.cos, copy.sin = masters.cos, masters.sin
    if masters.adapters is not None:
        masters.adapters.put_into(copy)
        share_blocks(masters, copy)
    for name, master in masters.named_parameters():
        owner, _, own = name.rpartition(".")
        if not master.requires_grad and master.dtype == torch.bfloat16:  # a frozen base is there once
            copy.get_submodule(owner).register_parameter(own, master)
            continue
        parameter = nn.Parameter(master.detach().to(torch.bfloat16), requires_grad=master.requires_grad)
        copy.get_submodule(owner).register_parameter(own, parameter)
        if master.requires_grad:
            parameter.register_post_accumulate_grad_hook(_adding_to(master))
    return copy


def _adding_to(master: nn.Parameter) -> Any:
    @torch.no_grad()
    def add(parameter: Tensor) -> None:
        if parameter.grad is None:  # an output matrix's, which is there already
            return
        if master.grad is None:
            master.grad = parameter.grad.float()
        else:
            master.grad.add_(parameter.grad)
        parameter.grad = None

    return add
