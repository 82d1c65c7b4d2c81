"""A model's card: each metric of its results, what is published beside it, and which tasks have no result.

found.py  results of a model ─→ rows ←─ published.py  figures of others, with what conditions.py finds to differ
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from camelid.errors import NotFoundError, OptionError
from camelid.evals.cards.conditions import differing, own_conditions, unstated
from camelid.evals.cards.found import Found, find_results, results_of
from camelid.evals.cards.published import Published, plain_name, published_of
from camelid.evals.comparing import open_result, pair_of
from camelid.evals.result import Result, figure_from
from camelid.evals.statistics import Comparison, Figure
from camelid.evals.tasks import find_task
from camelid.hub.catalog import CATALOG

# Tasks that a card asks for: a result of any form of a task will do.
USUAL = (
    *("mmlu", "gpqa", "arc-easy", "arc-challenge", "hellaswag", "piqa", "winogrande"),
    *("gsm8k:cot", "math", "humaneval", "ifeval", "xstest"),
)
_NOT_IN_CORE = ("gpqa", "gsm8k", "ifeval", "xstest")  # tasks whose items the user names with --data
_BESIDE = ("acc_per_char", "acc_bytes", "acc_per_token", "acc_pmi")  # metrics that only JSON has
_Z = 1.959963984540054  # of a two-sided 95 % interval


@dataclass(frozen=True)
class Beside:
    """A published figure beside ours.

    Attributes:
        differs: names of conditions that both state, and state differently.
        unstated: names of conditions that the source does not state.
    """

    figure: Published
    differs: tuple[str, ...]
    unstated: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """A model's metric less that of the first model, on the same items.

    Attributes:
        differing: conditions that differ beside the model.
    """

    to: str
    comparison: Comparison
    differing: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """A metric of a task; without a figure if there is only a published one.

    Attributes:
        main: whether tables show it.
        conditions: ours, in the words of `conditions.py`.
        record: all conditions, as in `result.json`.
    """

    task: str
    metric: str
    figure: Figure | None
    percent: bool = True
    main: bool = True
    conditions: Mapping[str, Any] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    published: tuple[Beside, ...] = ()
    difference: Difference | None = None


@dataclass(frozen=True)
class Missing:
    """A task without a result.

    Attributes:
        model: what `--model` takes for this model; None for one that camelid has no name for.
        shots: where what is published has another number than the task.
        needs_data: whether the user names the items.
        folder: of results.
    """

    task: str
    model: str | None
    shots: int | None
    needs_data: bool
    folder: Path

    @property
    def command(self) -> str | None:
        """What makes the result."""
        return None if self.model is None else command([self], [self.model])


def command(tasks: Sequence[Missing], models: Sequence[str]) -> str:
    """What makes the results of some tasks, of the same shots, with some models."""
    named = "".join(f" --model {shlex.quote(model)}" for model in models)
    shots = "" if tasks[0].shots is None else f" --shots {tasks[0].shots}"
    data = " --data PATH" if tasks[0].needs_data else ""
    where = "" if tasks[0].folder == Path("results") else f" --out {shlex.quote(str(tasks[0].folder))}"
    return f"camelid eval {' '.join(each.task for each in tasks)}{named}{shots}{data}{where}"


@dataclass(frozen=True)
class Card:
    """What is known of a model.

    Attributes:
        missing: tasks without a result in any form, by name.
        notes: results that could not be compared with the first model's, and why.
    """

    model: str
    rows: tuple[Row, ...]
    missing: Mapping[str, Missing]
    notes: tuple[str, ...] = ()


def make_cards(models: Sequence[str], folder: Path) -> list[Card]:
    """A card a model; those after the first are compared with it where they have the same items.

    Args:
        models: names or paths as results have them, or as published figures do; with none, all that have results.
        folder: of results.

    Raises:
        NotFoundError: no such folder, or neither a result nor a published figure of a model.
        FormatError: a result cannot be read.
    """
    found = find_results(folder) if folder.is_dir() or not models else []
    names = list(dict.fromkeys(models)) or sorted({str(each.record["model"]) for each in found})
    if not names:
        raise NotFoundError(f"{folder}: holds no results; make one, as with: camelid eval mmlu --limit 200")
    own = {name: results_of(name, found) for name in names}
    first = {each.key: each for each in own[names[0]]}
    titles = {name: _title(name, own[name]) for name in names}
    cards = []
    for name in names:
        published = published_of(name)
        if not own[name] and not published:
            raise NotFoundError(_nothing_of(name, found, folder))
        rows = _rows(own[name], published)
        card = Card(titles[name], tuple(rows), _missing(name, own[name], published, folder))
        cards.append(_compared(card, titles[names[0]], own[name], first) if name != names[0] else card)
    return cards


def _title(name: str, found: Sequence[Found]) -> str:
    """What a model is called: its name; that of a file or folder as its results have it."""
    path = Path(name).expanduser()
    if not path.exists():
        return name
    return str(found[-1].record["model"]) if found else path.resolve().name.removesuffix(".gguf")


def _nothing_of(name: str, found: Sequence[Found], folder: Path) -> str:
    known = sorted({str(each.record["model"]) for each in found})
    has = f"that folder has {', '.join(known)}" if known else "that folder has none"
    return (
        f"{name}: no results in {folder} ({has}) and no published figures; measure it: "
        f"camelid eval mmlu --model {shlex.quote(name)}"
    )


def _rows(found: Sequence[Found], published: Sequence[Published]) -> list[Row]:
    rows = [_row(each.record, metric) for each in found for metric in each.record["metrics"]]
    rows += _means(found, published)
    for figure in published:
        places = _places(rows, figure)
        if not places:
            rows.append(Row(task_name(figure.tasks), figure.metric, None))
            places = [len(rows) - 1]
        for at in places:
            rows[at] = _with_published(rows[at], figure)
    return sorted(rows, key=lambda row: order_of(row.task))


def order_of(task: str) -> tuple[int, str]:
    """Where a task stands on cards: the usual ones first."""
    usual = [name.partition(":")[0] for name in USUAL]
    base = task.rpartition(" + ")[2].partition(":")[0]
    return (usual.index(base) if base in usual else len(usual)), task


def task_name(tasks: Sequence[str]) -> str:
    """Of one task its name, of several whose mean counts their names."""
    return " + ".join(tasks)


def _row(record: Mapping[str, Any], metric: str) -> Row:
    told = record["metrics"][metric]
    return Row(
        task=record["task"],
        metric=metric,
        figure=figure_from(told),
        percent=bool(told.get("percent", True)),
        main=metric not in _BESIDE and not metric.startswith(("rating_first", "rating_second", "win_rate_")),
        conditions=own_conditions(record, metric),
        record=record["conditions"],
    )


def _means(found: Sequence[Found], published: Sequence[Published]) -> list[Row]:
    """Rows for published means of several tasks, where all of these have a result with the same shots."""
    by_key = {each.key: each.record for each in found}
    wanted = dict.fromkeys((figure.tasks, figure.metric) for figure in published if len(figure.tasks) > 1)
    rows = []
    for tasks, metric in wanted:
        for shots in sorted({key[1] for key in by_key}):
            records = [by_key.get((task, shots)) for task in tasks]
            parts = [_row(each, metric) for each in records if each is not None and metric in each["metrics"]]
            if len(parts) == len(tasks):
                items = [part.conditions["items"] for part in parts if "items" in part.conditions]
                conditions = {**parts[0].conditions, **({"items": "; ".join(items)} if items else {})}
                rows.append(
                    Row(task_name(tasks), metric, _mean([part.figure for part in parts]), conditions=conditions)
                )
    return rows


def _mean(figures: Sequence[Figure | None]) -> Figure:
    """The mean of independent figures, its interval that of the normal distribution."""
    known = [each for each in figures if each is not None]
    value = math.fsum(each.value for each in known) / len(known)
    n, unparsable = sum(each.n for each in known), sum(each.n_unparsable for each in known)
    errors = [each.stderr for each in known if each.stderr is not None]
    if len(errors) < len(known):
        return Figure(value, None, None, None, n, unparsable)
    stderr = math.sqrt(math.fsum(error**2 for error in errors)) / len(known)
    return Figure(value, stderr, value - _Z * stderr, value + _Z * stderr, n, unparsable)


def _places(rows: Sequence[Row], figure: Published) -> list[int]:
    """Where a published figure belongs: at its metric, or at the first of a task's other forms, micro or macro."""
    if len(figure.tasks) > 1:
        return [
            at for at, row in enumerate(rows) if row.task == task_name(figure.tasks) and row.metric == figure.metric
        ]
    base = figure.tasks[0].partition(":")[0]
    macro = figure.metric.endswith("_macro")
    places: dict[tuple[str, Any], int] = {}
    for at, row in enumerate(rows):
        if row.task.partition(":")[0] != base or " + " in row.task:
            continue
        key = (row.task, row.conditions.get("shots"))
        if row.metric == figure.metric:
            places[key] = at
        elif row.metric.endswith("_macro") == macro and not any(
            other.metric == figure.metric and (other.task, other.conditions.get("shots")) == key for other in rows
        ):
            places.setdefault(key, at)
    return list(places.values())


def _with_published(row: Row, figure: Published) -> Row:
    has = row.figure is not None
    differs = differing(figure.conditions, row.conditions) if has else ()
    beside = Beside(figure, differs, unstated(figure.conditions, row.conditions) if has else ())
    return replace(row, main=True, published=(*row.published, beside))


def _missing(name: str, found: Sequence[Found], published: Sequence[Published], folder: Path) -> dict[str, Missing]:
    """Usual tasks that have no result in any form, and the forms and shots that are nearest to what is published."""
    have = {each.task for each in found}
    nearest = {task: figure.conditions.get("shots") for figure in published for task in figure.tasks}
    known = {task.partition(":")[0] for task in {*have, *nearest}}
    wanted = {task: shots for task, shots in nearest.items() if task not in have}
    wanted |= {task: None for task in USUAL if task.partition(":")[0] not in known}
    model = _openable(name, found)
    missing = {}
    for task in sorted(wanted, key=order_of):
        usual, shots = find_task(task).n_shots, wanted[task]
        needed = shots if usual is not None and shots != usual else None
        missing[task] = Missing(task, model, needed, task in _NOT_IN_CORE, folder)
    return missing


def _openable(name: str, found: Sequence[Found]) -> str | None:
    """What `--model` takes for this model; None for one that camelid has no name for."""
    if found or Path(name).expanduser().exists() or name.startswith("hf:"):
        return name
    return next((each for each in CATALOG if each == name or plain_name(each) == plain_name(name)), None)


def _compared(card: Card, to: str, found: Sequence[Found], first: Mapping[tuple[str, int], Found]) -> Card:
    """The card with its differences to the first model."""
    rows, notes = list(card.rows), []
    for each in found:
        other = first.get(each.key)
        if other is None:
            continue
        try:
            pair = pair_of(_open(other.folder), _open(each.folder))
        except OptionError as error:
            notes.append(f"{card.model}: not compared with {to}: {error}")
            continue
        for at, row in enumerate(rows):
            if (row.task, row.conditions.get("shots")) == each.key and row.metric in pair.comparisons:
                difference = Difference(to, pair.comparisons[row.metric], pair.differing)
                rows[at] = replace(row, difference=difference)
    return replace(card, rows=tuple(rows), notes=tuple(notes))


@cache
def _open(folder: Path) -> Result:
    return open_result(folder)
