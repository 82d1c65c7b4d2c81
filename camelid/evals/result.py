"""A result: figures over a task's items, the items themselves, and the conditions under which they arose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camelid.evals.statistics import Figure, Row, as_json, figure, figures
from camelid.evals.task import Metric

if TYPE_CHECKING:
    from camelid.evals.contamination import Contamination


@dataclass(frozen=True)
class Result:
    """What a model made of a task.

    Attributes:
        task, model: names.
        shots: how many.
        metrics: name → figure; the first is the one that people quote.
        groups, categories: group → name of a mean → figure, without intervals.
        notes: what was counted: prompts that were cut or too long, boundaries that moved, ties …
        conditions: under which these figures arose; equal conditions give equal figures.
        items: a record an item, as in `items.jsonl`.
        seconds: that it took, all runs together.
        folder: where it lies; None if it was not written.
        shown: how to print each metric: `percent`, `higher_is_better`, and its `score` in the items if it is a mean.
        contamination: what of the items stands in the training data; None if nobody looked.
    """

    task: str
    model: str
    shots: int
    metrics: Mapping[str, Figure]
    groups: Mapping[str, Mapping[str, Figure]]
    categories: Mapping[str, Mapping[str, Figure]]
    notes: Mapping[str, int]
    conditions: Mapping[str, Any]
    items: Sequence[Mapping[str, Any]]
    seconds: float
    folder: Path | None
    shown: Mapping[str, Mapping[str, Any]]
    contamination: Contamination | None = None

    @property
    def n(self) -> int:
        """Items."""
        return len(self.items)

    def as_record(self) -> dict[str, Any]:
        """What `result.json` holds: everything but the items and what differs from run to run."""
        return {
            "task": self.task,
            "model": self.model,
            "n": self.n,
            "shots": self.shots,
            "metrics": {name: {**as_json(each), **self.shown[name]} for name, each in self.metrics.items()},
            "notes": dict(self.notes),
            "conditions": dict(self.conditions),
            "categories": _nested(self.categories),
            "groups": _nested(self.groups),
        }

    def as_json(self) -> dict[str, Any]:
        """The contract for programs."""
        folder = None if self.folder is None else str(self.folder)
        own: dict[str, Any] = {**self.as_record(), "seconds": round(self.seconds, 3), "folder": folder}
        return own if self.contamination is None else {**own, "contamination": self.contamination.as_json()}


def _nested(groups: Mapping[str, Mapping[str, Figure]]) -> dict[str, Any]:
    return {group: {name: as_json(each) for name, each in own.items()} for group, own in groups.items()}


def summarise(
    metrics: Sequence[Metric], items: Sequence[Mapping[str, Any]], clustered: bool, categories: Mapping[str, str]
) -> dict[str, Any]:
    """The fields of a `Result` that follow from its items: metrics, groups, categories, notes, shown."""
    rows = [Row(item["group"], item["scores"]) for item in items]
    by_group: dict[str, list[Row]] = {}
    by_category: dict[str, list[Row]] = {}
    for row in rows:
        if row.group is not None:
            by_group.setdefault(row.group, []).append(row)
            if row.group in categories:
                by_category.setdefault(categories[row.group], []).append(row)
    notes = Counter(note for item in items for note in item["notes"])
    return {
        "metrics": figures(metrics, rows, clustered),
        "groups": {} if len(by_group) < 2 else _by(metrics, by_group),
        "categories": _by(metrics, by_category),
        "notes": dict(sorted(notes.items())),
        "shown": {metric.name: _shown(metric) for metric in metrics},
    }


def _by(metrics: Sequence[Metric], groups: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, Figure]]:
    found: dict[str, dict[str, Figure]] = {}
    for group in sorted(groups):
        own = {
            metric.name: figure(metric, groups[group], interval=False) for metric in metrics if metric.how != "macro"
        }
        found[group] = {name: each for name, each in own.items() if each is not None}
    return found


def _shown(metric: Metric) -> dict[str, Any]:
    shown: dict[str, Any] = {"percent": metric.percent, "higher_is_better": metric.higher_is_better}
    if metric.how == "mean":
        shown["score"] = metric.score
    return shown


def from_record(
    record: Mapping[str, Any], items: Sequence[Mapping[str, Any]], seconds: float, folder: Path | None
) -> Result:
    """A result as it was written."""
    own = ("percent", "higher_is_better", "score")
    return Result(
        task=record["task"],
        model=record["model"],
        shots=record["shots"],
        metrics={name: figure_from(each) for name, each in record["metrics"].items()},
        groups=_from_nested(record["groups"]),
        categories=_from_nested(record["categories"]),
        notes=record["notes"],
        conditions=record["conditions"],
        items=items,
        seconds=seconds,
        folder=folder,
        shown={name: {key: each[key] for key in own if key in each} for name, each in record["metrics"].items()},
    )


def _from_nested(groups: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Figure]]:
    return {group: {name: figure_from(each) for name, each in own.items()} for group, own in groups.items()}


_FIGURE = [each.name for each in fields(Figure)]


def figure_from(value: Mapping[str, Any]) -> Figure:
    """A figure as `as_json` wrote it."""
    return Figure(**{"n_unparsable": 0, **{name: value[name] for name in _FIGURE if name in value}})
