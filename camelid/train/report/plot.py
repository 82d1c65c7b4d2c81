"""Curves of runs as a picture: PNG, SVG or PDF, drawn by matplotlib, which only this file needs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camelid.errors import MissingError, OptionError, ResourceError, one_of
from camelid.train.report.curves import AGAINST, BEST_OF, CURVES, Against, best_of, curve_of, smoothed, title_of, usual
from camelid.train.report.metrics import Metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

KINDS = (".png", ".svg", ".pdf")
_COLOURS = ("#0f5c63", "#a8324e", "#c98a1b", "#33518f", "#5b7a2f", "#7a4f9a", "#555555")
_UNITS: dict[Against, tuple[tuple[str, float], ...]] = {
    "step": (("step", 1),),
    "tokens": (("tokens", 1), ("thousand tokens", 1e3), ("million tokens", 1e6), ("billion tokens", 1e9)),
    "time": (("seconds of training", 1), ("minutes of training", 60), ("hours of training", 3600), ("days", 86400)),
}
STYLE: dict[str, Any] = {
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


Runs = Sequence[tuple[str, Metrics]]


def plot(
    runs: Runs, out: Path, against: Against = "step", metrics: Sequence[str] | None = None, smooth: int | None = None
) -> Path:
    """Draw the curves of one or more runs, a panel for each metric; raw values are pale, their means strong.

    Args:
        runs: name and metrics of each.
        out: the picture; its ending says which kind. Replaced if it is there.
        against: what x is; `time` is time spent training, without pauses.
        metrics: fields of a step, which bring what was measured on validation rows with them, or `best_of`; with None
            the usual ones, and what these runs' stages alone measure.
        smooth: steps of the mean; with None a fiftieth of the run, 1 for none.

    Raises:
        OptionError: no such metric or ending, or nothing to draw.
        MissingError: matplotlib is not installed, or no run has the metric.
    """
    return _draw([("", runs, _chosen(runs, metrics))], out, against, smooth)


def plot_life(
    stages: Runs, out: Path, against: Against = "step", metrics: Sequence[str] | None = None, smooth: int | None = None
) -> Path:
    """Draw the stages of one run below each other, each with its own metrics; arguments and errors as in `plot`."""
    parts = [(name, [(name, run)], _chosen([(name, run)], metrics)) for name, run in stages if len(run)]
    return _draw(parts, out, against, smooth)


def _chosen(runs: Runs, metrics: Sequence[str] | None) -> list[str]:
    known = [BEST_OF, *CURVES, *(name for _, run in runs for name in run.columns)]
    for name in metrics or ():
        if name not in known:
            raise OptionError(f"metrics: no {name!r}; {one_of(name, CURVES)}")
    return list(metrics) if metrics is not None else usual(run for _, run in runs)


def _draw(parts: Sequence[tuple[str, Runs, Sequence[str]]], out: Path, against: Against, smooth: int | None) -> Path:
    if out.suffix.lower() not in KINDS:
        raise OptionError(f"{out}: wants a name that ends in {', '.join(KINDS)}")
    if not any(metrics and any(len(run) for _, run in runs) for _, runs, metrics in parts):
        raise OptionError("nothing to draw: no metrics were named, or no step has been recorded yet")
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingError("plots need matplotlib: pip install 'camelid[plots]'") from None
    columns = min(2 if len(parts) == 1 else 4, max(len(metrics) for _, _, metrics in parts))
    rows = [-(-len(metrics) // columns) for _, _, metrics in parts]
    with mpl.rc_context(STYLE):
        size = (4.8 * columns + 0.6, 2.7 * sum(rows) + 0.5 * len(parts))
        figure = Figure(figsize=size, layout="constrained")
        figures: list[FigureBase] = [figure]
        if len(parts) > 1:
            figures = list(figure.subfigures(len(parts), 1, squeeze=False, height_ratios=rows)[:, 0])
        for part, n_rows, (title, runs, metrics) in zip(figures, rows, parts, strict=True):
            for number, name in enumerate(metrics):
                _panel(part.add_subplot(n_rows, columns, number + 1), runs, name, against, smooth)
            if title:
                part.suptitle(title, x=0.01, ha="left", fontweight="bold")
            if len(runs) > 1:
                _legend(part, runs)
        return write_figure(figure, out)


def _panel(axes: Axes, runs: Runs, name: str, against: Against, smooth: int | None) -> None:
    if name == BEST_OF:
        _best_of(axes, runs)
        return
    curve = curve_of(name)
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
        _references(axes, run, name, against, per, colour)
    if not drawn:
        raise MissingError(f"{name}: no step of these runs has it")
    axes.set_title(title_of(name, [run for _, run in runs]))
    axes.set_xlabel(unit)
    axes.margins(x=0.01)
    if curve.from_zero:
        axes.set_ylim(bottom=0)


def _best_of(axes: Axes, runs: Runs) -> None:
    """The expected highest and median reward of K answers, as in Llama 2's figure 7."""
    for number, (_, run) in enumerate(runs):
        colour, points = _COLOURS[number % len(_COLOURS)], best_of(run)
        for name, style in (("max", "-"), ("median", "--")) if points else ():
            xs, ys = [point["k"] for point in points], [point[name] for point in points]
            label = f"{name} of K" if number == 0 else None
            axes.plot(xs, ys, style, color=colour, linewidth=1.8, marker="o", markersize=3, label=label)
    if not axes.lines:
        raise MissingError(f"{BEST_OF}: none of these runs has chosen among answers")
    axes.set_title("reward of the best of K answers")
    axes.set_xlabel("K, answers to each prompt")
    axes.locator_params("x", integer=True)
    axes.legend(loc="best", fontsize=8.5)


def _references(axes: Axes, run: Metrics, name: str, against: Against, per: float, colour: str) -> None:
    """What the validation rows say; beside the loss, what a model reaches that knows frequencies only."""
    xs, ys = _points(run, f"validation_{name}", against, per, curve_of(name).scale)
    if xs:
        axes.plot(xs, ys, "o", color=colour, markersize=5, markerfacecolor="white", label="validation")
    entropy = run.about("unigram_entropy") if name == "loss" else None
    if entropy is not None:
        axes.axhline(entropy, color=colour, linewidth=1, linestyle=(0, (4, 3)), label="unigram entropy")
    handles = {label: copy(handle) for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    for handle in handles.values():
        handle.set(color=_COLOURS[-1])  # of every run; their own colours say which
    if handles:
        axes.legend(handles.values(), handles.keys(), loc="upper right", fontsize=8.5)


def _legend(figure: FigureBase, runs: Runs) -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=_COLOURS[n % len(_COLOURS)], linewidth=2) for n in range(len(runs))]
    figure.legend(lines, [name for name, _ in runs], loc="outside upper left", ncols=min(4, len(runs)))


def _points(run: Metrics, name: str, against: Against, per: float, scale: float) -> tuple[list[float], list[float]]:
    if name not in run.columns:
        return [], []
    xs, ys = run.points(name, AGAINST[against])
    return [x / per for x in xs], [y * scale for y in ys]


def _unit(runs: Runs, against: Against) -> tuple[str, float]:
    """What x is called, and what it is divided by."""
    last = max((max(run.points("step", AGAINST[against])[0], default=0)) for _, run in runs)
    units = _UNITS[against]
    name, per = next((name, per) for name, per in reversed(units) if last >= 2 * per or per == 1)
    return name, per


def write_figure(figure: Figure, out: Path) -> Path:
    """A whole picture at `out`, or none; its ending says which kind. ResourceError: the place cannot be written."""
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
