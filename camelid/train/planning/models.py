"""What of a model learns, which models a stage has in memory beside it, and how often it runs them. No torch here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from camelid.model.config import ModelConfig, layer_shapes
from camelid.recipe import stage_kind
from camelid.train.options import RunOptions


@dataclass(frozen=True)
class Beside:
    """A frozen model of the same size as the one that learns.

    Attributes:
        name: what it is, as reference.
        held: whether it is in memory while the stage learns; one that is run before it only is not.
        passes: how often each token of a step goes forward through it; training is three of them.
    """

    name: str
    held: bool = True
    passes: float = 1.0


def _always(options: RunOptions) -> bool:
    return True


def _says(name: str) -> Callable[[RunOptions], bool]:
    """Whether an option of this name is given, and names a model: a reward by code needs none."""

    def given(options: RunOptions) -> bool:
        value = getattr(options, name, None) or ()
        return any(not each.startswith("code:") for each in ((value,) if isinstance(value, str) else value))

    return given


def _positive(name: str) -> Callable[[RunOptions], bool]:
    return lambda options: bool(getattr(options, name, 0))


_REFERENCE, _WRITER = Beside("reference"), Beside("rollouts")
_REWARD, _SAFETY = Beside("reward"), Beside("safety_reward")
_WRITES, _JUDGES, _SAFELY = (replace(model, held=False) for model in (_WRITER, _REWARD, _SAFETY))

# Kind of stage → each model with when it is there. What is not here has the model that learns alone.
TABLE: dict[str, tuple[tuple[Beside, Callable[[Any], bool]], ...]] = {
    "dpo": ((Beside("reference", held=False), _always),),  # its log-probabilities are computed once, and stored
    "ppo": ((_REFERENCE, _always), (_REWARD, _says("reward")), (_SAFETY, _says("safety_reward")), (_WRITER, _always)),
    "grpo": (
        (_REFERENCE, _positive("beta")),
        (_REWARD, _says("reward")),
        (_SAFETY, _says("safety_reward")),
        (_WRITER, _always),
    ),
    "rejection": ((_WRITES, _always), (_JUDGES, _says("reward")), (_SAFELY, _says("safety_reward"))),
    "gatt": ((_WRITES, _always),),
    "distill": ((_WRITES, _always), (_JUDGES, _says("reward"))),
}


def learned_parameters(config: ModelConfig, options: RunOptions) -> int:
    """Numbers that an optimiser changes: all of a model, or its adapters."""
    if options.lora is None:
        return config.n_parameters
    shapes = {name: shape for name, shape in layer_shapes(config).items() if len(shape) == 2}
    sizes = [sum(shape) for name, shape in shapes.items() if name.rpartition(".")[2] in options.lora.matrices]
    return config.n_layers * options.lora.rank * sum(sizes)


def beside(stage: str, options: RunOptions) -> tuple[Beside, ...]:
    """The models that a stage of this name has beside the one that learns. Where the best of several answers is
    learned, all of them are written and judged, once."""
    answers = getattr(options, "answers", 1)
    models = (model for model, there in TABLE.get(stage_kind(stage), ()) if there(options))
    return tuple(model if model.held else replace(model, passes=model.passes * answers) for model in models)
