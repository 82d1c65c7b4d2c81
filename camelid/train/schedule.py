"""How the learning rate moves: pure functions of the step's number.

Steps are counted from 1; step 0, before anything is learned, has rate 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from camelid.train.options import OptimOptions


def learning_rate(options: OptimOptions, step: int) -> float:
    """The rate of step 0 … `options.steps`: up from 0 to `lr` at `warmup_steps`, then as the schedule says.

    The last step has `lr · min_lr_ratio` under every schedule but `constant`.
    """
    if step < options.warmup_steps:
        return options.lr * step / options.warmup_steps
    return options.lr * SCHEDULES[options.schedule](options, step)


def _cosine(options: OptimOptions, step: int) -> float:
    """Half a cosine from 1 to the least (Loshchilov & Hutter 2017, arXiv:1608.03983; Llama 2, arXiv:2307.09288)."""
    return _between(options, (1 + math.cos(math.pi * _done(options, step, options.warmup_steps))) / 2)


def _linear(options: OptimOptions, step: int) -> float:
    """A straight line from 1 to the least (OLMo, arXiv:2402.00838)."""
    return _between(options, 1 - _done(options, step, options.warmup_steps))


def _wsd(options: OptimOptions, step: int) -> float:
    """Warm-up, stable, decay: 1 until the last `decay_share` of all steps, then down by 1 - sqrt.

    Hu et al. 2024 (MiniCPM, arXiv:2404.06395); the shape of the decay is Hägele et al. 2024 (arXiv:2405.18392).
    """
    begins = max(options.warmup_steps, options.steps - math.ceil(options.decay_share * options.steps))
    return _between(options, 1 - math.sqrt(_done(options, step, begins))) if step > begins else 1.0


def _constant(options: OptimOptions, step: int) -> float:
    return 1.0


SCHEDULES: dict[str, Callable[[OptimOptions, int], float]] = {
    "cosine": _cosine,
    "linear": _linear,
    "wsd": _wsd,
    "constant": _constant,
}


def _done(options: OptimOptions, step: int, begins: int) -> float:
    """How much of the way from step `begins` to the last one lies behind, 0 … 1."""
    return min(1.0, (step - begins) / max(1, options.steps - begins))


def _between(options: OptimOptions, share: float) -> float:
    return options.min_lr_ratio + (1 - options.min_lr_ratio) * share
