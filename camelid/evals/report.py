"""Results as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from camelid.console import Terminal
from camelid.evals.result import Result
from camelid.evals.statistics import Figure
from camelid.evals.task import Task
from camelid.streams import literal


def show_tasks(tasks: Sequence[Task]) -> None:
    """All tasks, with their shots and what they measure."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("task", "shots", "metrics", ""):
        table.add_column(name)
    for task in tasks:
        metrics = ", ".join(metric.name for metric in task.metrics)
        shots = "–" if task.n_shots is None else str(task.n_shots)
        table.add_row(f"[bold]{literal(task.name)}[/]", shots, metrics, literal(task.title))
    Terminal().print(table)


def show_results(results: Sequence[Result]) -> None:
    """A row a metric, and what else one must know below."""
    console = Terminal()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("task", "model", "shots", "n", "metric"):
        table.add_column(name, justify="right" if name in ("shots", "n") else "left")
    table.add_column("value", justify="right")
    table.add_column("95 % interval")
    for result in results:
        for at, (name, figure) in enumerate(result.metrics.items()):
            left = (literal(result.task), literal(result.model), str(result.shots), f"{figure.n:,}")
            percent = bool(result.shown[name]["percent"])
            value = f"[bold]{figure_text(figure, percent)}[/]" if at == 0 else figure_text(figure, percent)
            table.add_row(*(left if at == 0 else ("", "", "", "")), name, value, interval_text(figure, percent))
    console.print(table)
    for result in results:
        for line in remarks(result):
            console.print(f"[dim]{literal(line)}[/]", soft_wrap=True)


def remarks(result: Result) -> list[str]:
    """What was counted, how long it took, and where it lies."""
    lines = []
    unparsable = {name: figure.n_unparsable for name, figure in result.metrics.items() if figure.n_unparsable}
    if unparsable:
        told = ", ".join(f"{name} {count}" for name, count in unparsable.items())
        lines.append(f"{result.task}: answers that could not be read: {told}")
    if result.notes:
        lines.append(f"{result.task}: " + ", ".join(f"{note}: {count}" for note, count in result.notes.items()))
    where = "" if result.folder is None else f", {result.folder}"
    lines.append(f"{result.task}: {time_text(result.seconds)}{where}")
    return lines


def interval_text(figure: Figure, percent: bool) -> str:
    """`24.1 – 26.5`."""
    if figure.low is None or figure.high is None:
        return ""
    factor, digits = (100, 1) if percent else (1, 4)
    return f"{factor * figure.low:.{digits}f} – {factor * figure.high:.{digits}f}"


def shown(values: Mapping[str, Any]) -> str:
    """Names and values on one line."""
    return ", ".join(f"{name} {value}" for name, value in values.items())


def figure_text(figure: Figure, percent: bool = True) -> str:
    """A figure with its error: `25.31 ± 0.42`."""
    factor, digits = (100, 2) if percent else (1, 4)
    text = f"{factor * figure.value:.{digits}f}"
    return text if figure.stderr is None else f"{text} ± {factor * figure.stderr:.{digits}f}"


def time_text(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
