"""What one optimiser step reports: the only thing that the training loop tells the rest of the program."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimiser step, done.

    Steps are counted from 1: step n is the n-th change of the weights, made with learning rate n of the schedule on
    the rows that `Batches.step(n - 1)` gives. A checkpoint of step n holds the weights after it.

    Attributes:
        step: its number, from 1.
        tokens: ids read since the start of the run, padding and all, all ranks together.
        trained_tokens: targets learned in this step, all ranks together.
        loss: nats per trained token, before this step's change, without the z-loss.
        z_loss: what was added to it, weight and all; None if the recipe has none.
        grad_norm: global L2 norm of the gradient before clipping.
        lr: learning rate used.
        seconds: wall clock of the step.
        tokens_per_second: ids read a second, all ranks together.
        mfu: arithmetic done, as a share of what the devices' matrix units can do; None if that is unknown.
        memory_bytes: peak of this rank so far: resident memory on CPU, allocated on a GPU.
        validation_loss: nats per token on the validation rows after this step; None if not measured now.
    """

    step: int
    tokens: int
    trained_tokens: int
    loss: float
    z_loss: float | None = None
    grad_norm: float
    lr: float
    seconds: float
    tokens_per_second: float
    mfu: float | None = None
    memory_bytes: int = 0
    validation_loss: float | None = None
