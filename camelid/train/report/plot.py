"""Curves of runs as a picture: PNG, SVG or PDF, drawn by matplotlib, which only this file needs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from camelid.errors import MissingError, OptionError, ResourceError, one_of
from camelid.train.report.metrics import Metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
KINDS = (".png", ".svg", ".pdf")
_COLOURS = ("#0f5c63", "#a8324e", "#c98a1b", "#33518f", "#5b7a2f", "#7a4f9a", "#555555")
_UNITS: dict[Against, tuple[tuple[str, float], ...]] = {
    "step": (("step", 1),),
    "tokens": (("tokens", 1), ("thousand tokens", 1e3), ("million tokens", 1e6), ("billion tokens", 1e9)),
    "time": (("seconds of training", 1), ("minutes of training", 60), ("hours of training", 3600), ("days", 86400)),
}
_STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8b8a84",
    "axes.labelcolor": "#5b5e63",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#e1ddd4",
    "grid.linewidth": 0.7,
    "xtick.color": "#5b5e63",
    "ytick.color": "#5b5e63",
    "figure.facecolor": "white",
    "legend.frameon": False,
    "svg.hashsalt": "camelid",  # the same curves are the same file
    "svg.fonttype": "none",
}


def plot(
    runs: Sequence[tuple[str, Metrics]],
    out: Path,
    against: Against = "step",
    metrics: Sequence[str] = USUAL,
    smooth: int | None = None,
) -> Path:
    """Draw the curves of one or more runs, a panel for each metric; raw values are pale, their means strong.

    Args:
        runs: name and metrics of each.
        out: the picture; its ending says which kind. Replaced if it is there.
        against: what x is; `time` is time spent training, without pauses.
        metrics: fields of a step; `loss` brings the validation loss with it.
        smooth: steps of the mean; with None a fiftieth of the run, 1 for none.

    Raises:
        OptionError: no such metric or ending, or nothing to draw.
        MissingError: matplotlib is not installed, or no run has the metric.
    """
    if out.suffix.lower() not in KINDS:
        raise OptionError(f"{out}: wants a name that ends in {', '.join(KINDS)}")
    known = [*CURVES, *(name for _, run in runs for name in run.columns)]
    for name in metrics:
        if name not in known:
            raise OptionError(f"metrics: no {name!r}; {one_of(name, CURVES)}")
    if not metrics or not any(len(run) for _, run in runs):
        raise OptionError("nothing to draw: no metrics were named, or no step has been recorded yet")
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingError("plots need matplotlib: pip install 'camelid[plots]'") from None
    columns = 1 if len(metrics) == 1 else 2
    rows = -(-len(metrics) // columns)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.8 * columns + 0.6, 2.7 * rows + 0.5), layout="constrained")
        for number, name in enumerate(metrics):
            _panel(figure.add_subplot(rows, columns, number + 1), runs, name, against, smooth)
        if len(runs) > 1:
            _legend(figure, runs)
        return _write(figure, out)


def _panel(axes: Axes, runs: Sequence[tuple[str, Metrics]], name: str, against: Against, smooth: int | None) -> None:
    curve = CURVES.get(name, Curve(name))
    unit, per = _unit(runs, against)
    drawn = 0
    for number, (_, run) in enumerate(runs):
        colour = _COLOURS[number % len(_COLOURS)]
        xs, ys = _points(run, name, against, per, curve.scale)
        drawn += len(xs)
        means = smoothed(ys, smooth or max(1, len(ys) // 50)) if curve.smoothed else ys
        if means != ys:
            axes.plot(xs, ys, color=colour, linewidth=0.7, alpha=0.3)
        axes.plot(xs, means, color=colour, linewidth=1.8, marker="o" if len(xs) < 12 else None, markersize=3)
        if name == "loss":
            _references(axes, run, against, per, colour)
    if not drawn:
        raise MissingError(f"{name}: no step of these runs has it")
    axes.set_title(curve.title)
    axes.set_xlabel(unit)
    axes.margins(x=0.01)
    if curve.from_zero:
        axes.set_ylim(bottom=0)


def _references(axes: Axes, run: Metrics, against: Against, per: float, colour: str) -> None:
    """Beside the loss: what the validation rows say, and what a model reaches that knows frequencies only."""
    xs, ys = _points(run, "validation_loss", against, per, 1.0)
    if xs:
        axes.plot(xs, ys, "o", color=colour, markersize=5, markerfacecolor="white", label="validation")
    if (entropy := run.about("unigram_entropy")) is not None:
        axes.axhline(entropy, color=colour, linewidth=1, linestyle=(0, (4, 3)), label="unigram entropy")
    handles = {label: copy(handle) for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    for handle in handles.values():
        handle.set(color=_COLOURS[-1])  # of every run; their own colours say which
    if handles:
        axes.legend(handles.values(), handles.keys(), loc="upper right", fontsize=8.5)


def _legend(figure: Figure, runs: Sequence[tuple[str, Metrics]]) -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=_COLOURS[n % len(_COLOURS)], linewidth=2) for n in range(len(runs))]
    figure.legend(lines, [name for name, _ in runs], loc="outside upper left", ncols=min(4, len(runs)))


def _points(run: Metrics, name: str, against: Against, per: float, scale: float) -> tuple[list[float], list[float]]:
    if name not in run.columns:
        return [], []
    xs, ys = run.points(name, AGAINST[against])
    return [x / per for x in xs], [y * scale for y in ys]


def _unit(runs: Sequence[tuple[str, Metrics]], against: Against) -> tuple[str, float]:
    """What x is called, and what it is divided by."""
    last = max((max(run.points("step", AGAINST[against])[0], default=0)) for _, run in runs)
    units = _UNITS[against]
    name, per = next((name, per) for name, per in reversed(units) if last >= 2 * per or per == 1)
    return name, per


def smoothed(values: list[float], width: int) -> list[float]:
    """Means over the last `width` values, weighted towards the latest: an exponential mean without a cold start."""
    if width <= 1:
        return values
    keep, total, weight, means = 1 - 2 / (width + 1), 0.0, 0.0, []
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        means.append(total / weight)
    return means


def _write(figure: Figure, out: Path) -> Path:
    beside = out.with_name(f".{out.stem}.partial-{os.getpid()}{out.suffix}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        dates = {"Date": None} if out.suffix.lower() == ".svg" else {}
        figure.savefig(beside, dpi=160, metadata=dates)
        beside.replace(out)
    except OSError as error:
        raise ResourceError(f"{out}: cannot be written ({error.strerror}); choose another place with --out") from None
    finally:
        with suppress(OSError):  # there is no such place
            beside.unlink(missing_ok=True)
    return out
