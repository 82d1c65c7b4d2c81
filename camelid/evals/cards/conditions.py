"""Under which conditions a figure arose, in words that two sources have in common; and what differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LETTERS, _TEXT, _WRITTEN, _STEPS = (
    "the likeliest letter",
    "the likeliest text",
    "a written letter",
    "chain of thought",
)

# Task, or what it has before ":", → what an answer is. Tasks that are not here have one form only.
_FORMS: dict[str, str] = {
    "mmlu": _LETTERS,
    "mmlu:continuation": _TEXT,
    "mmlu:chat": _WRITTEN,
    "gpqa": _LETTERS,
    "gsm8k": _STEPS,
    "math": _STEPS,
    **dict.fromkeys(("arc-easy", "arc-challenge", "hellaswag", "piqa", "boolq", "openbookqa", "sciq"), _TEXT),
    **dict.fromkeys(("commonsenseqa", "socialiqa", "winogrande", "copa"), _TEXT),
}
_WORDS = {
    "shots": "{}-shot",
    "form": "{}",
    "average": "{} average",
    "samples": "samples {}",
    "scorer": "{}",
    "items": "{}",
}
STATED = ("shots", "form", "chat", "average", "scorer", "samples")


def own_conditions(record: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """Of a metric of a result, as in `result.json`."""
    task, told = record["task"], record["conditions"]
    own: dict[str, Any] = {"shots": record["shots"]}
    if form := form_of(task):
        own["form"] = form
    own["chat"] = bool(told.get("chat", False))
    means = [name for name in record["metrics"] if not name.endswith("_macro")]
    if len(means) < len(record["metrics"]):
        own["average"] = "macro" if metric.endswith("_macro") else "micro"
    if len(means) > 1:
        own["scorer"] = metric.removesuffix("_macro")
    if told.get("request") == "generate":
        own["samples"] = told.get("vote") or told.get("decoding", {}).get("n", 1)
    if record["n"] < told.get("items_in_all", record["n"]):
        own["items"] = f"the first {record['n']:,} of {told['items_in_all']:,} items"
    return own


def form_of(task: str) -> str | None:
    """What an answer of a task is."""
    return _LETTERS if task.endswith(":letters") else _FORMS.get(task) or _FORMS.get(task.partition(":")[0])


def differing(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of what both state and state differently; a figure that says nothing of its items is of all."""
    names = [name for name in STATED if name in theirs and name in ours and theirs[name] != ours[name]]
    return (*names, "items") if "items" in ours else tuple(names)


def unstated(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of what we know of ours, and the source does not say of theirs."""
    return tuple(name for name in STATED if name in ours and name not in theirs)


def in_words(conditions: Mapping[str, Any], names: tuple[str, ...] = STATED) -> str:
    """Conditions of these names on a line: `5-shot, the likeliest letter`."""
    return ", ".join(_word(name, conditions) for name in names if name in conditions or name == "items")


def _word(name: str, conditions: Mapping[str, Any]) -> str:
    value = conditions.get(name, "all items")
    if name == "chat":
        return "as a chat" if value else "not as a chat"
    return _WORDS[name].format(value)
