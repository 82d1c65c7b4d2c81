"""The weights that arithmetic reads, beside the float32 weights that the optimiser changes.

In bf16 on one device they are a copy, made anew after each change: a small change would vanish in bf16's eight bits,
so the float32 weights keep it (Micikevicius et al. 2018, arXiv:1710.03740). Gradients are added up in float32 over
micro-batches. With several ranks FSDP2 makes the copies, layer by layer, and adds up.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from camelid.model.llama_torch import LlamaTorch
from camelid.train.attention import attention_on
from camelid.train.loss import TokenLoss, token_loss
from camelid.train.options import PretrainOptions
from camelid.train.parallel import Parallel


class Working:
    """A model ready to learn from micro-batches.

    Args:
        masters: float32, initialised or restored; what the optimiser changes. Its gradients are written here.
        options: of the stage.
        parallel: the ranks.
        fuse: let torch.compile fuse what stands between matrix products.
    """

    def __init__(self, masters: LlamaTorch, options: PretrainOptions, parallel: Parallel, fuse: bool) -> None:
        self._masters, self._parallel, self._fuse = masters, parallel, fuse
        self._z_weight = options.z_loss
        self._copies = options.precision == "bf16" and parallel.n_ranks == 1
        self.model = _copy(masters) if self._copies else masters
        self.model.recompute = options.recompute
        self._attend = attention_on(parallel.device)
        if fuse:
            for layer in self.model.layers:
                layer.forward = torch.compile(layer.forward, dynamic=False)

    def learn(self, ids: Tensor, positions: Tensor, targets: Tensor, divisor: int) -> Tensor:
        """Add a micro-batch's gradients to those of the masters; ids, positions and targets (R, T).

        Returns:
            (2,) float64: loss and z-loss, summed over tokens, divided by `divisor`.
        """
        found = self._loss(self._hidden(ids, positions), targets, divisor, self._output_gradient())
        found.total.backward()
        return found.parts

    def look(self, ids: Tensor, positions: Tensor, targets: Tensor) -> Tensor:
        """The sum of a micro-batch's losses, (), float64; nothing is learned.

        The forward pass is that of `learn`, so that compiled code serves both.
        """
        hidden = self._hidden(ids, positions).detach()
        with torch.no_grad():
            return self._loss(hidden, targets, 1, None).parts[0]

    @torch.no_grad()
    def take_masters(self) -> None:
        """Copy the changed weights."""
        if self._copies:
            torch._foreach_copy_(list(self.model.parameters()), list(self._masters.parameters()))

    def _hidden(self, ids: Tensor, positions: Tensor) -> Tensor:
        self._attend.prepare(positions)
        hidden: Tensor = self.model(ids, positions, self._attend)
        return hidden.flatten(0, -2)

    def _loss(self, hidden: Tensor, targets: Tensor, divisor: int, into: Tensor | None) -> TokenLoss:
        return token_loss(hidden, self.model.output, targets.flatten(), divisor, self._z_weight, into, self._fuse)

    def _output_gradient(self) -> Tensor | None:
        """Where the output matrix's gradient is added up, in float32; None where FSDP must see it."""
        if self._parallel.n_ranks > 1:
            return None
        output = self._masters.output
        if output.grad is None:
            output.grad = torch.zeros_like(output)
        return output.grad


def _copy(masters: LlamaTorch) -> LlamaTorch:
    """A bf16 copy whose gradients, as soon as each is there, are added to those of the float32 weights."""
    with torch.device("meta"):
        copy = LlamaTorch(masters.config, len(masters.cos))
    copy.cos, copy.sin = masters.cos, masters.sin
    for name, master in masters.named_parameters():
        owner, _, own = name.rpartition(".")
        parameter = nn.Parameter(master.detach().to(torch.bfloat16))
        copy.get_submodule(owner).register_parameter(own, parameter)
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
