"""The training loop: the only one. An objective says what is learned, the model gets better, a `Step` comes out for
each change."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from camelid.errors import NumericsError
from camelid.model.llama_torch import LlamaTorch
from camelid.train.events import Step
from camelid.train.mixed_precision import Learner
from camelid.train.objective import Objective, Size
from camelid.train.options import RunOptions
from camelid.train.parallel import Parallel
from camelid.train.planning.flops import peak_memory
from camelid.train.schedule import learning_rate


@dataclass
class State:
    """Everything that training changes.

    Attributes:
        model: its parameters, float32, or this rank's shards of them.
        optimizer: of these parameters.
        step: steps done.
        tokens: ids read by them, all ranks together.
    """

    model: LlamaTorch
    optimizer: Optimizer
    step: int = 0
    tokens: int = 0


def optimise(
    state: State, learner: Learner, objective: Objective[Any], parallel: Parallel, peak: float | None = None
) -> Iterator[Step]:
    """Train from `state.step` to the objective's last step; between two steps the state is whole and may be saved.

    The gradient is that of the sum of all losses of a step, divided by what all ranks learn in it (tokens, pairs), so
    that neither micro-batches nor ranks nor the packing of documents change it.

    Args:
        peak: FLOPs a second of one rank's matrix units.

    Raises:
        NumericsError: a loss or a gradient is not finite, or nothing is learned in a step. The weights are still
            those of the last step then.
    """
    options = objective.options
    while state.step < options.steps:
        started, number = time.perf_counter(), state.step + 1
        share = objective.batch(state.step, learner)
        size = _of_all_ranks(objective.size(share), parallel)
        if not size.learned:
            raise NumericsError(f"step {number}: no token of its rows is learned; see: camelid inspect --step {number}")
        means = _learn(objective, learner, share, size.learned, parallel)
        norm = float(parallel.clip(state.model.parameters(), options.clip))
        if not (math.isfinite(means[0]) and math.isfinite(norm)):
            raise NumericsError(_lost(number, means[0], norm))
        rate = learning_rate(options, number)
        _change(state.optimizer, rate)
        learner.take_masters()
        state.step, state.tokens = number, state.tokens + size.tokens
        seconds = time.perf_counter() - started
        validated = validate(objective, learner, parallel) if _is_due(number, options) else {}
        yield Step(
            step=number,
            tokens=state.tokens,
            metrics={objective.unit: size.learned, **objective.metrics(means), **validated},
            grad_norm=norm,
            lr=rate,
            seconds=seconds,
            tokens_per_second=size.tokens / seconds,
            mfu=size.flops / seconds / (peak * parallel.n_ranks) if peak else None,
            memory_bytes=peak_memory(parallel.device),
        )


def validate(objective: Objective[Any], learner: Learner, parallel: Parallel) -> dict[str, float]:
    """The validated metrics of the rows that were kept apart, as `validation_loss`; nothing without any."""
    sums, n_learned = torch.zeros(1, dtype=torch.float64, device=parallel.device), 0
    with learner.looking():
        for share in objective.validation():
            for piece in objective.micro_batches(share):
                sums = sums + objective.loss(learner, 1, *_on(parallel.device, piece)).parts
            n_learned += objective.size(share).learned
    parallel.rest(learner.model)
    *totals, count = parallel.sum(torch.cat([sums, sums.new_tensor([n_learned])])).tolist()
    if not count:
        return {}
    metrics = objective.metrics([total / count for total in totals])
    return {f"validation_{name}": metrics[name] for name in objective.validated}


def _learn(objective: Objective[Any], learner: Learner, share: Any, divisor: int, parallel: Parallel) -> list[float]:
    """Forward and backward over all micro-batches; the parts of all ranks' losses, per unit that is learned."""
    sums = torch.zeros(1, dtype=torch.float64, device=parallel.device)
    for piece in objective.micro_batches(share):
        loss = objective.loss(learner, divisor, *_on(parallel.device, piece))
        loss.total.backward()
        sums = sums + loss.parts
    means: list[float] = parallel.sum(sums).tolist()
    return means


def _on(device: torch.device, piece: tuple[Any, ...]) -> Iterator[Tensor]:
    return (torch.as_tensor(part).to(device) for part in piece)


def _of_all_ranks(size: Size, parallel: Parallel) -> Size:
    counts = torch.tensor(size, dtype=torch.float64).to(parallel.device)
    learned, tokens, flops = parallel.sum(counts).tolist()
    return Size(int(learned), int(tokens), flops)


def _change(optimizer: Optimizer, rate: float) -> None:
    """One step of the optimiser at this learning rate; the gradient is used up."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()


def _is_due(step: int, options: RunOptions) -> bool:
    """Whether a validation comes after this step."""
    every = options.validation_every
    return bool(every) and (step % every == 0 or step == options.steps)


def _lost(step: int, loss: float, norm: float) -> str:
    what = "the loss is" if not math.isfinite(loss) else "the gradient's norm is"
    value = loss if not math.isfinite(loss) else norm
    return (
        f"step {step}: {what} {value}; nothing of it is kept: go on from the last checkpoint with a lower "
        f"learning rate, or see what it read: camelid inspect --step {step}"
    )
