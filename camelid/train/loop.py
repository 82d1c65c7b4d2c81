"""The training loop: the only one. Batches come in, the model gets better, a `Step` comes out for each change."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from camelid.data.batches import Batches, TrainingBatch
from camelid.errors import NumericsError
from camelid.model.llama_torch import LlamaTorch
from camelid.train.flops import batch_flops, peak_memory
from camelid.train.mixed_precision import Working
from camelid.train.options import PretrainOptions
from camelid.train.parallel import Parallel
from camelid.train.schedule import learning_rate
from camelid.train.step import Step


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
    state: State,
    working: Working,
    batches: Batches,
    options: PretrainOptions,
    parallel: Parallel,
    validation: Batches | None = None,
    peak: float | None = None,
) -> Iterator[Step]:
    """Train from `state.step` to `options.steps`; between two steps the state is whole and may be saved.

    The gradient is that of the sum of all token losses of a step, divided by the number of tokens that all ranks
    learn in it, so that neither micro-batches nor ranks nor the packing of documents change it.

    Args:
        peak: FLOPs a second of one rank's matrix units.

    Raises:
        NumericsError: a loss or a gradient is not finite, or nothing is learned in a step. The weights are still
            those of the last step then.
    """
    n_rows = micro_rows(options, parallel)
    while state.step < options.steps:
        started, number = time.perf_counter(), state.step + 1
        batch = batches.step(state.step, parallel.data_rank, parallel.data_ranks)
        counts = torch.tensor([batch.n_trained, batch_flops(state.model.config, batch)], dtype=torch.float64)
        n_trained, flops = parallel.sum(counts.to(parallel.device)).tolist()
        if not n_trained:
            raise NumericsError(f"step {number}: no token of its rows is learned; see: camelid inspect --step {number}")
        loss, z_loss = _learn(working, batch, n_rows, int(n_trained), parallel)
        norm = float(parallel.clip(state.model.parameters(), options.clip))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise NumericsError(_lost(number, loss, norm))
        rate = learning_rate(options, number)
        _change(state.optimizer, rate)
        working.take_masters()
        state.step, state.tokens = number, state.tokens + options.batch_tokens
        seconds = time.perf_counter() - started
        apart = None
        if validation is not None and _due(number, options):
            apart = validation_loss(working, validation, options, parallel)
        yield Step(
            step=number,
            tokens=state.tokens,
            trained_tokens=int(n_trained),
            loss=loss,
            z_loss=z_loss if options.z_loss else None,
            grad_norm=norm,
            lr=rate,
            seconds=seconds,
            tokens_per_second=options.batch_tokens / seconds,
            mfu=flops / seconds / (peak * parallel.n_ranks) if peak else None,
            memory_bytes=peak_memory(parallel.device),
            validation_loss=apart,
        )


def _learn(
    working: Working, batch: TrainingBatch, n_rows: int, n_trained: int, parallel: Parallel
) -> tuple[float, float]:
    """Forward and backward over all micro-batches; loss and z-loss of all ranks, per trained token."""
    parts = torch.zeros(2, dtype=torch.float64, device=parallel.device)
    for some in _micro_batches(batch, n_rows, parallel.device):
        parts += working.learn(*some, n_trained)
    loss, z_loss = parallel.sum(parts).tolist()
    return loss, z_loss


def _change(optimizer: Optimizer, rate: float) -> None:
    """One step of the optimiser at this learning rate; the gradient is used up."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()


def validation_loss(
    working: Working, validation: Batches, options: PretrainOptions, parallel: Parallel
) -> float | None:
    """Nats per token on the first rows that were kept apart, about `options.validation_rows`; None without any."""
    n_steps = min(validation.n_steps, math.ceil(options.validation_rows / validation.rows_per_step))
    sums = torch.zeros(2, dtype=torch.float64, device=parallel.device)
    for step in range(n_steps):
        batch = validation.step(step, parallel.data_rank, parallel.data_ranks)
        for ids, positions, targets in _micro_batches(batch, len(batch.ids), parallel.device):
            sums[0] += working.look(ids, positions, targets)
            sums[1] += batch.n_trained
    parallel.rest(working.model)
    total, count = parallel.sum(sums).tolist()
    return total / count if count else None


def micro_rows(options: PretrainOptions, parallel: Parallel) -> int:
    """Rows that one rank works on at once: as the recipe says, else so many that they have 8192 tokens, or 16384 on
    a GPU, and at least one. It depends on nothing that may change from start to start, so that a run can go on
    with the same bits."""
    share = max(1, options.rows // parallel.data_ranks)
    if options.micro_rows is not None:
        return min(options.micro_rows, share)
    tokens = 16384 if parallel.device.type == "cuda" else 8192
    return max(1, min(share, tokens // options.context))


def _micro_batches(batch: TrainingBatch, n_rows: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """ids, positions and targets, each (R, T), of a few rows at a time."""
    for start in range(0, len(batch.ids), n_rows):
        some = slice(start, start + n_rows)
        parts = (torch.from_numpy(part[some]).to(device) for part in (batch.ids, batch.positions, batch.targets))
        ids, positions, targets = parts
        yield ids, positions, targets


def _due(step: int, options: PretrainOptions) -> bool:
    every = options.validation_every
    return bool(every) and (step % every == 0 or step == options.steps)


def _lost(step: int, loss: float, norm: float) -> str:
    what = "the loss is" if not math.isfinite(loss) else "the gradient's norm is"
    value = loss if not math.isfinite(loss) else norm
    return (
        f"step {step}: {what} {value}; nothing of it is kept: go on from the last checkpoint with a lower "
        f"learning rate, or see what it read: camelid inspect --step {step}"
    )
