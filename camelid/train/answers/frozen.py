"""A frozen model beside the one that learns: the same arithmetic, another model's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import linear

from camelid.data.batches import IGNORED
from camelid.data.chats.examples import Example, Pair
from camelid.model.config import ModelConfig
from camelid.model.llama_torch import LlamaTorch
from camelid.train.answers.references import Logprobs
from camelid.train.init import take_weights
from camelid.train.losses.token_loss import token_logprobs
from camelid.train.mixed_precision import Learner
from camelid.train.options import RunOptions
from camelid.train.parallel import Parallel
from camelid.weights.open import open_weights

if TYPE_CHECKING:
    from camelid.train.answers.stage import OwnAnswers
    from camelid.train.stages.dpo import Dpo


def frozen_learner(path: Path, config: ModelConfig, options: RunOptions, parallel: Parallel) -> Learner:
    """A model that is only asked, spread as the one that learns; every rank must call this.

    Args:
        config: of the one that learns; of another shape it cannot be.

    Raises:
        OptionError: it is of another shape.
    """
    with torch.device("meta"):
        model = LlamaTorch(config, options.context)
    model.requires_grad_(False)
    model = parallel.shard(model, options.precision)
    take_weights(model, open_weights(path))
    return Learner(model, options, parallel, fuse=False)


def ask_reference(objective: Dpo, reference: Path) -> None:
    """Have log-probabilities of all pairs in the reference file, those held out too; it may be killed, and goes on.

    It goes through training step by step and cuts each step as training will, so that where it is the model that
    training begins from, the two agree to the last bit in the first step.
    """
    pairs, held_out, parallel = objective.pairs, objective.held_out, objective.parallel
    data, steps = pairs.fingerprint(), objective.options.steps
    if all(parallel.everyone(objective.references.is_complete(data, steps))):
        return
    learner: Learner | None = None
    shares = [(pairs, step) for step in range(steps)] + [(held_out, step) for step in range(held_out.n_steps)]
    for where, step in shares:
        own = where.step(step, parallel.data_rank, parallel.data_ranks)
        if not parallel.any(objective.references.lacks(own)):
            continue
        learner = learner or frozen_learner(reference, objective.config, objective.options, parallel)
        rows = parallel.everyone(objective.references.add(own, _asked(objective, learner, own)))
        parallel.from_first(partial(objective.references.write, {key: row[key] for row in rows for key in row}))
    parallel.from_first(lambda: objective.references.finish(data, steps))


def _asked(objective: Dpo, learner: Learner, pairs: Sequence[Pair]) -> list[Logprobs]:
    found: list[Logprobs] = []
    device = objective.parallel.device
    with learner.looking():
        for run, packed in objective.packer.cut([(pair.chosen, pair.rejected) for pair in pairs]):
            rows = (torch.as_tensor(np.ascontiguousarray(part)).to(device) for part in objective.rows(packed))
            sums, _, _ = objective.logprobs(learner, len(run), *rows)
            found += [(chosen, rejected) for chosen, rejected in sums.tolist()]
    objective.parallel.rest(learner.model)
    return found


def logprobs_of(
    objective: OwnAnswers[Any], learner: Learner, examples: Sequence[Sequence[Example]]
) -> list[list[NDArray[np.float32]]]:
    """What a model says of the learned tokens of each example, at the temperature of the stage, without gradient.

    Args:
        examples: of each group.
    """
    rest = iter(measured(objective, learner, [example for group in examples for example in group]))
    return [[next(rest)[0] for _ in group] for group in examples]


def measured(
    objective: OwnAnswers[Any], learner: Learner, examples: Sequence[Example], values: bool = False
) -> list[NDArray[np.float32]]:
    """Log-probabilities of the learned tokens of each example, at the temperature of the stage, and what the model's
    scalar head says of the states before them; without gradient.

    Args:
        values: ask the scalar head too.

    Returns:
        (2, n) each; values are 0 where nobody asked.
    """
    found: list[NDArray[np.float32]] = []
    with learner.looking():
        for _, packed in objective.packer.cut([[example] for example in examples]):
            on = (torch.as_tensor(part).to(objective.parallel.device) for part in (packed.ids, packed.positions))
            hidden = learner.hidden(*on)
            targets = torch.as_tensor(packed.targets).flatten()
            own = (targets != IGNORED).nonzero().flatten()
            hidden, chosen = hidden[own.to(hidden.device)], targets[own].to(hidden.device)
            each, nothing = token_logprobs(hidden / objective.options.temperature, learner.model.output, chosen)
            worth = values_of(learner, hidden) if values else torch.zeros_like(nothing)
            owners = packed.owners.reshape(-1)[own.numpy()]
            both = torch.stack([each.float(), worth.float()]).cpu().numpy()
            found += [both[:, owners == number] for number in range(len(packed.lasts))]
    objective.parallel.rest(learner.model)
    return found


def values_of(learner: Learner, hidden: Tensor) -> Tensor:
    """What a model's scalar head says of hidden states (n, D), in float32, (n,)."""
    head: Tensor = learner.model.score.weight
    return linear(hidden.float(), head.float()).flatten()
