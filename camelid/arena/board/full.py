"""The full leaderboard: beside what people prefer, what `camelid eval` has measured and what others have published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from urllib.parse import quote

from camelid.arena.board.table import Line
from camelid.evals.browsing import Listed, ResultStore
from camelid.evals.cards.card import order_of
from camelid.evals.cards.published import plain_name, published_of
from camelid.serve.addresses import link

Figures = Mapping[str, tuple[float, str, str]]


def with_figures(lines: Sequence[Line], results: ResultStore | None) -> tuple[list[Line], list[str]]:
    """Lines with a figure a task, and the tasks in the order of score cards.

    Our own measurement goes before what is published; of several, the newest.
    """
    own: dict[str, list[Listed]] = {}
    for listed in results.all() if results is not None else ():
        if listed.result is not None:
            own.setdefault(plain_name(listed.result.model), []).append(listed)
    joined = []
    for line in lines:
        name = line.facts.results or line.name
        joined.append(replace(line, figures={**_published(name), **_measured(own.get(plain_name(name), ()))}))
    tasks = {task for line in joined for task in line.figures}
    return joined, sorted(tasks, key=order_of)


def _measured(found: Sequence[Listed]) -> Figures:
    figures: dict[str, tuple[float, str, str]] = {}
    for listed in reversed(found):  # the newest last, so that it stays
        assert listed.result is not None
        name, figure = next(iter(listed.result.metrics.items()))
        percent = bool(listed.result.shown.get(name, {}).get("percent"))
        task = listed.result.task.partition(":")[0]
        address = link(f"/benchmarks/{quote(listed.name, safe='')}")
        figures[task] = (figure.value, _text(figure.value, percent), address)
    return figures


def _published(name: str) -> Figures:
    """The first that is published of each task; its address is that of the source."""
    figures: dict[str, tuple[float, str, str]] = {}
    for each in published_of(name):
        if len(each.tasks) == 1:
            figures.setdefault(each.tasks[0].partition(":")[0], (each.value, _text(each.value, True), each.url))
    return figures


def _text(value: float, percent: bool) -> str:
    return f"{100 * value:.1f} %" if percent else f"{value:.3g}"
