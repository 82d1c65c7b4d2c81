"""Which curves a run has, by the names in its metrics.jsonl: nothing here knows what a stage of training is.

A stage names what it measures; a name that has no row in `CURVES` is drawn as its own words say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from camelid.train.report.metrics import Metrics

Against = Literal["step", "tokens", "time"]
AGAINST: dict[Against, str] = {"step": "step", "tokens": "tokens", "time": "seconds"}
"""What x may be, and which field of a step that is; seconds are added up."""


@dataclass(frozen=True)
class Curve:
    """How a field of a step is drawn.

    Attributes:
        scale: what its values are multiplied with.
        smoothed: whether means are drawn over them.
        from_zero: whether the panel begins at 0.
    """

    title: str
    scale: float = 1.0
    smoothed: bool = True
    from_zero: bool = False


CURVES = {
    "loss": Curve("loss, nats a token"),
    "validation_loss": Curve("validation loss, nats a token", smoothed=False),
    "grad_norm": Curve("gradient norm"),
    "lr": Curve("learning rate", smoothed=False, from_zero=True),
    "tokens_per_second": Curve("tokens a second", from_zero=True),
    "mfu": Curve("MFU, % of the matrix units", 100, from_zero=True),
    "memory_bytes": Curve("memory, GB", 1e-9, smoothed=False, from_zero=True),
    "z_loss": Curve("z-loss"),
    "seconds": Curve("seconds a step"),
}
USUAL = ("loss", "lr", "grad_norm", "tokens_per_second")
COUNTS = ("step", "tokens", "seconds", "seconds_left", "time", "trained_tokens", "pairs", "episodes", "answers")
"""Fields of a step that say how much it was, or when."""

BEST_OF = "best_of"
"""The name of the panel that tells the expected reward of the best of K answers."""

_VALIDATION = "validation_"


def curve_of(name: str) -> Curve:
    """How a field is drawn; one without a row in `CURVES` as its name says."""
    words = ("KL" if word == "kl" else word for word in name.split("_"))
    return CURVES.get(name) or Curve(" ".join(words))


def title_of(name: str, runs: Iterable[Metrics]) -> str:
    """What a panel is called; a loss is of tokens only where tokens are learned."""
    if name in ("loss", "validation_loss") and not any("trained_tokens" in run.columns for run in runs):
        return name.replace("_", " ")
    return curve_of(name).title


def drawn(runs: Iterable[Metrics]) -> list[str]:
    """Fields that pages draw: those of `CURVES` that some run has, behind the loss what its stage alone measures.

    What was measured on validation rows is drawn with what it is the validation of.
    """
    columns = list(dict.fromkeys(name for run in runs for name in run.columns))
    known = [name for name in CURVES if name in columns and name not in ("validation_loss", "seconds")]
    return [*known[:1], *own(columns), *known[1:]] if known[:1] == ["loss"] else [*own(columns), *known]


def usual(runs: Iterable[Metrics]) -> list[str]:
    """Fields that `camelid plot` draws where nobody says which."""
    runs = list(runs)
    columns = list(dict.fromkeys(name for run in runs for name in run.columns))
    best = [BEST_OF] if any(best_of(run) for run in runs) else []
    return [USUAL[0], *own(columns), *best, *USUAL[1:]]


def best_of(run: Metrics) -> list[dict[str, float]]:
    """The points of the curve of a stage that chose among K answers: `k`, `max`, `median`; none of any other."""
    made: Any = run.about("answers")
    points = made.get("curve") if isinstance(made, dict) else None
    if not isinstance(points, list):
        return []
    wanted = ("k", "max", "median")
    return [
        {name: float(point[name]) for name in wanted}
        for point in points
        if isinstance(point, dict) and all(isinstance(point.get(name), int | float) for name in wanted)
    ]


def own(columns: Iterable[str]) -> list[str]:
    """What only some stages measure, in their own order."""
    columns = list(columns)
    return [
        name
        for name in columns
        if name not in CURVES
        and name not in COUNTS
        and not (name.startswith(_VALIDATION) and name.removeprefix(_VALIDATION) in columns)
    ]


def smoothed(values: list[float], width: int) -> list[float]:
    """Means over the last `width` values, weighted towards the latest: an exponential mean without a cold start."""
    if width <= 1:
        return values
    keep, total, weight, means = 1 - 2 / (width + 1), 0.0, 0.0, []
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        means.append(total / weight)
    return means
