"""Two results item by item: which differ, and whether their figures differ by more than noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from camelid.errors import NotFoundError, OptionError, first_few
from camelid.evals.contamination import read_contamination
from camelid.evals.records import read_items, read_result, read_timing
from camelid.evals.result import Result, from_record
from camelid.evals.statistics import Comparison, compare

_EXPECTED = ("model", "judge", "code")  # conditions that two results may differ in and still be comparable


@dataclass(frozen=True)
class Pair:
    """Two results of the same items.

    Attributes:
        differing: names of conditions in which they differ, beside model and code: then a difference is not the
            model's alone.
        comparisons: of each metric that is a mean over items.
    """

    first: Result
    second: Result
    differing: tuple[str, ...]
    comparisons: Mapping[str, Comparison]

    def items(self, score: str) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
        """Items whose score differs."""
        second = {item["id"]: item for item in self.second.items}
        for item in self.first.items:
            other = second.get(item["id"])
            if other is not None and item["scores"].get(score) != other["scores"].get(score):
                yield item, other


def open_result(folder: Path) -> Result:
    """A finished result.

    Raises:
        NotFoundError: the folder holds none, or one that is not finished.
        FormatError: it cannot be read.
    """
    record = read_result(folder)
    if record is None:
        raise NotFoundError(f"{folder}: holds no finished result; name a folder that camelid eval has made")
    result = from_record(record, read_items(folder), read_timing(folder), folder)
    return replace(result, contamination=read_contamination(folder))


def pair_of(first: Result, second: Result) -> Pair:
    """Compare two results on the items that both have.

    Raises:
        OptionError: they are of different tasks, or have no items in common, or the same items with other contents.
    """
    if first.task != second.task:
        raise OptionError(f"{second.task} and {first.task} are different tasks; compare results of one")
    theirs = {item["id"]: item for item in second.items}
    both = [(item, theirs[item["id"]]) for item in first.items if item["id"] in theirs]
    if not both:
        raise OptionError(f"{first.task}: the two results have no items in common")
    changed = [item["id"] for item, other in both if item["fields"] != other["fields"]]
    if changed:
        raise OptionError(f"{first.task}: items have other contents in the two results: {first_few(changed)}")
    differing = differing_conditions(first.conditions, second.conditions)
    comparisons = {}
    for name, shown in first.shown.items():
        if "score" in shown and name in first.metrics and name in second.metrics:
            values = _values(both, shown["score"])
            if values[0]:
                comparisons[name] = compare(*values)
    return Pair(first, second, differing, comparisons)


def differing_conditions(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of conditions, beside model, judge and code, in which two results differ."""
    names = sorted({*first, *second} - {*_EXPECTED})
    return tuple(name for name in names if first.get(name) != second.get(name))


def _values(both: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], score: str) -> tuple[list[float], list[float]]:
    """Scores of the items in which both have one; an unparsable answer counts as 0."""
    pairs = [
        (item["scores"][score] or 0.0, other["scores"][score] or 0.0)
        for item, other in both
        if score in item["scores"] and score in other["scores"]
    ]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def pairs_among(results: Sequence[Result]) -> list[Pair]:
    """Each later model against the first, task by task; results that cannot be compared are left out."""
    found = []
    for at, result in enumerate(results):
        first = next((each for each in results[:at] if each.task == result.task), None)
        if first is not None:
            try:
                found.append(pair_of(first, result))
            except OptionError:
                continue
    return found
