"""Results as tables for a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table

from camelid.console import Terminal
from camelid.evals.comparing import Pair
from camelid.evals.contamination import SUBSETS, Contamination, Subset
from camelid.evals.result import Result
from camelid.evals.statistics import Comparison, Figure
from camelid.evals.task import Task
from camelid.streams import literal

_LONGEST = 600  # characters of a field or answer that are shown


def _table(left: Iterable[str], right: Iterable[str] = (), last: Iterable[str] = (), no_wrap: bool = False) -> Table:
    """An empty table: columns of words, of numbers, and of words again."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for names, are_numbers in ((left, False), (right, True), (last, False)):
        for name in names:
            table.add_column(literal(name), justify="right" if are_numbers else "left", no_wrap=no_wrap)
    return table


def show_tasks(tasks: Sequence[Task]) -> None:
    """All tasks, with their shots and what they measure."""
    table = _table(("task", "shots", "metrics", ""))
    for task in tasks:
        metrics = ", ".join(metric.name for metric in task.metrics)
        shots = "–" if task.n_shots is None else str(task.n_shots)
        table.add_row(f"[bold]{literal(task.name)}[/]", shots, metrics, literal(task.title))
    Terminal().print(table)


def show_results(results: Sequence[Result]) -> None:
    """A row a metric, and what else one must know below."""
    console = Terminal()
    for result in results:
        title = f"[bold]{literal(result.task)}[/]  {literal(result.model)}"
        console.print(f"\n{title}  [dim]{result.shots} shots, {result.n:,} items[/]", soft_wrap=True)
        table = _table(("metric",), ("figure", "95 % interval", "items"), no_wrap=True)
        for at, (name, figure) in enumerate(result.metrics.items()):
            percent = bool(result.shown[name]["percent"])
            value = f"[bold]{figure_text(figure, percent)}[/]" if at == 0 else figure_text(figure, percent)
            table.add_row(name, value, interval_text(figure, percent), f"{figure.n:,}")
        console.print(table)
        if result.contamination is not None:
            console.print(_contaminated(result, result.contamination))
        for line in remarks(result):
            console.print(f"[dim]{literal(line)}[/]", soft_wrap=True)


def _contaminated(result: Result, found: Contamination) -> Table:
    """Each score's mean over the items that the training data holds, and over the others."""
    names: dict[str, str] = {}
    for name, own in result.shown.items():
        names.setdefault(own.get("score", ""), name)
    scores = [score for score in found.subsets if score in names]
    table = _table(("in the training data",), ("items", *(names[score] for score in scores)), no_wrap=True)
    for subset, about in SUBSETS.items():
        parts = [(found.subsets[score][subset], bool(result.shown[names[score]]["percent"])) for score in scores]
        n = sum(about(share) for share in found.shares.values())
        table.add_row(subset, f"{n:,}", *(_subset_text(part, percent) for part, percent in parts))
    return table


def _subset_text(part: Subset, percent: bool) -> str:
    """`31.2, z −0.4`."""
    if part.value is None:
        return "–"
    value = f"{100 * part.value:.1f}" if percent else f"{part.value:.4f}"
    return value if part.z is None else f"{value}, z {part.z:+.1f}"


def show_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Figures of another harness, which has no interval but a standard error."""
    table = _table(("task", "model", "metric"), ("figure", "±", "items"))
    for row in rows:
        for name, figure in row["metrics"].items():
            error = figure["stderr"]
            spread = f"{error:.4f}" if isinstance(error, float) else ""
            about = (literal(row["task"]), literal(row["model"]), literal(name))
            table.add_row(*about, f"[bold]{figure['value']:.4f}[/]", spread, f"{row['n'] or ''}")
    Terminal().print(table)


def show_groups(results: Sequence[Result]) -> None:
    """The first metric by category and group."""
    console = Terminal()
    for result in results:
        table = _table((result.task,), ("n", next(iter(result.metrics), "")))
        for groups, style in ((result.categories, "bold"), (result.groups, "")):
            for group, own in groups.items():
                name, found = next(iter(own.items()))
                text = figure_text(found, bool(result.shown[name]["percent"]))
                table.add_row(literal(group), f"{found.n:,}", text, style=style)
        if table.row_count:
            console.print(table)


def remarks(result: Result) -> list[str]:
    """What was counted, how long it took, and where it lies."""
    lines = []
    unparsable = {name: figure.n_unparsable for name, figure in result.metrics.items() if figure.n_unparsable}
    if unparsable:
        told = ", ".join(f"{name} {count}" for name, count in unparsable.items())
        lines.append(f"answers that could not be read: {told}")
    if result.notes:
        lines.append(", ".join(f"{note}: {count}" for note, count in result.notes.items()))
    where = "" if result.folder is None else f", {result.folder}"
    lines.append(f"{time_text(result.seconds)}{where}")
    return lines


def interval_text(figure: Figure, percent: bool) -> str:
    """`24.1 – 26.5`."""
    if figure.low is None or figure.high is None:
        return ""
    factor, digits = (100, 1) if percent else (1, 4)
    return f"{factor * figure.low:.{digits}f} – {factor * figure.high:.{digits}f}"


def show_pairs(pairs: Sequence[Pair]) -> None:
    """Differences of two models on the same items, and whether they are more than noise."""
    console = Terminal()
    for pair in pairs:
        title = f"{pair.first.task}: {pair.second.model} (second) less {pair.first.model} (first)"
        console.print(f"\n[bold]{literal(title)}[/]", soft_wrap=True)
        numbers = ("difference", "95 % interval", "first only", "second only", "p")
        table = _table(("metric",), numbers, ("",), no_wrap=True)
        for name, found in pair.comparisons.items():
            table.add_row(name, *_compared(found, bool(pair.first.shown[name]["percent"])))
        console.print(table)
        if pair.differing:
            console.print(f"[dim]conditions differ, too: {literal(', '.join(pair.differing))}[/]", soft_wrap=True)


def _compared(found: Comparison, percent: bool) -> list[str]:
    factor, digits = (100, 2) if percent else (1, 4)
    interval = (
        ""
        if found.low is None or found.high is None
        else (f"{factor * found.low:+.{digits}f} … {factor * found.high:+.{digits}f}")
    )
    only = ["" if count is None else str(count) for count in (found.only_first, found.only_second)]
    p = "" if found.p is None else f"{found.p:.3g}"
    verdict = "[dim]noise[/]" if found.is_noise else "[bold]more than noise[/]"
    return [f"{factor * found.difference:+.{digits}f}", interval, *only, p, verdict]


def show_items(items: Iterable[Mapping[str, Any]], most: int | None) -> None:
    """Items with what the model was asked and what it made of it."""
    console = Terminal()
    shown = 0
    for item in items:
        if most is not None and shown == most:
            console.print("[dim]… more; --limit shows them[/]")
            break
        shown += 1
        _show_item(console, item)
    if not shown:
        console.print("[dim]none[/]")


def _show_item(console: Terminal, item: Mapping[str, Any]) -> None:
    group = "" if item["group"] is None else f" [dim]{literal(item['group'])}[/]"
    console.print(f"[bold cyan]{literal(item['id'])}[/]{group}", soft_wrap=True)
    for name, value in item["fields"].items():
        console.print(f"  [dim]{literal(str(name))}[/] {literal(_short(value))}", soft_wrap=True)
    for turn in (*item["turns"], *item["judged"]):
        console.print(f"  [dim]answer[/] {literal(answer_text(turn['answer']))}", soft_wrap=True)
    for name in ("filtered", "scores"):
        told = ", ".join(f"{key} {value}" for key, value in item[name].items())
        console.print(f"  [dim]{name}[/] {literal(told)}", soft_wrap=True)


def show_differences(pairs: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]], most: int | None) -> None:
    """Items that two models answered differently: what both made of them."""
    console = Terminal()
    for at, (first, second) in enumerate(pairs):
        if at == most:
            console.print("[dim]… more; --limit shows them[/]")
            break
        _show_item(console, first)
        for turn in (*second["turns"], *second["judged"]):
            console.print(f"  [dim]second[/] {literal(answer_text(turn['answer']))}", soft_wrap=True)
        told = ", ".join(f"{key} {value}" for key, value in second["scores"].items())
        console.print(f"  [dim]scores[/] {literal(told)}", soft_wrap=True)


def answer_text(answer: Mapping[str, Any]) -> str:
    """An answer on a line or more."""
    if answer["kind"] == "written":
        return "\n".join(_short(text) for text in answer["texts"])
    if answer["kind"] == "likelihoods":
        return " ".join(f"{logprob:.3f}" for logprob in answer["logprobs"])
    return f"{answer['nll']:.3f} nats, {answer['n_tokens']} tokens, {answer['n_bytes']} bytes"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} … ({len(text):,} characters)"


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
