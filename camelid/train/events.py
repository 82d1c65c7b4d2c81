"""What training tells the rest of the program, as it happens: all that displays, records and tests know of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Started:
    """A session has begun to train.

    Attributes:
        step: steps that lie behind: 0, or the restored checkpoint's.
        steps: the last step's number.
        about: what a reader may want to know: parameters, device, ranks, threads, compiled, peak_flops (of a rank,
            None if unknown), and what the stage says of its data.
    """

    step: int
    steps: int
    about: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimiser step, done.

    Steps are counted from 1: step n is the n-th change of the weights, made with learning rate n of the schedule on
    the batch that the stage gives for n - 1. A checkpoint of step n holds the weights after it.

    Attributes:
        step: its number, from 1.
        tokens: ids read since the start of the run, padding and all, all ranks together.
        metrics: what the stage measured, means over all ranks' share of the step: `loss`, which every stage has, before
            this step's change; how much was learned, as `trained_tokens`; after a validation `validation_loss`.
        grad_norm: global L2 norm of the gradient before clipping.
        lr: learning rate used.
        seconds: wall clock of the step.
        tokens_per_second: ids read a second, all ranks together.
        mfu: arithmetic done, as a share of what the devices' matrix units can do; None if that is unknown.
        memory_bytes: peak of this rank so far: resident memory on CPU, allocated on a GPU.
    """

    step: int
    tokens: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    grad_norm: float
    lr: float
    seconds: float
    tokens_per_second: float
    mfu: float | None = None
    memory_bytes: int = 0

    @property
    def loss(self) -> float:
        """What was minimised, without what is added to it."""
        return self.metrics["loss"]

    def numbers(self) -> dict[str, float]:
        """Every number by its name, as metrics.jsonl has them; what is None is left out."""
        own = {"grad_norm": self.grad_norm, "lr": self.lr, "seconds": self.seconds}
        own |= {"tokens_per_second": self.tokens_per_second}
        if self.mfu is not None:
            own["mfu"] = self.mfu
        return {"step": self.step, "tokens": self.tokens, **self.metrics, **own, "memory_bytes": self.memory_bytes}


@dataclass(frozen=True)
class Saved:
    """A checkpoint is complete.

    Attributes:
        step: the last one in it.
        folder: its name.
        seconds: that the save took.
    """

    step: int
    folder: str
    seconds: float | None


@dataclass(frozen=True)
class Stopped:
    """A session ends in good order, and everything is saved.

    Attributes:
        step: the last one done.
        done: whether that is the recipe's last.
        reason: who or what asked it to stop early; None where it was to take so many steps.
    """

    step: int
    done: bool
    reason: str | None = None


@dataclass(frozen=True)
class Skipped:
    """A stage has all its steps already; `life.live` says so, in place of all that `Event` is.

    Attributes:
        step: its last one.
    """

    step: int


Event = Started | Step | Saved | Stopped
