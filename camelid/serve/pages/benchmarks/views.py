"""Results and their items as templates show them: figures as texts and bars, conditions in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from camelid.train.report.units import duration

if TYPE_CHECKING:
    from camelid.evals.browsing import Compared, Listed
    from camelid.evals.result import Result
    from camelid.evals.statistics import Comparison, Figure

LONGEST = 20_000  # characters of a text that are shown
_FIRST = 140  # of an item's first words in a list
_QUESTIONS = ("question", "problem", "prompt", "text")
_WORDS = {
    "prompt": "Prompt",
    "split": "Items of",
    "shots_from": "Shots of",
    "task_version": "Version of the task",
    "data_sha256": "SHA-256 of the data",
    "decoding": "Decoding",
    "scorer": "Scorer",
    "judge": "Judge",
}


@dataclass(frozen=True)
class Bar:
    """A figure as a text and, in shares of a picture's width from 0 to 1, as a bar."""

    text: str
    interval: str
    value: float
    low: float | None
    high: float | None


def bar(figure: Figure, percent: bool, full: float) -> Bar:
    """Drawn against `full`, which reaches the right edge."""
    ends = [None if end is None else _share(end, full) for end in (figure.low, figure.high)]
    interval = "" if figure.low is None or figure.high is None else f"{_told(figure.low, percent)} – "
    interval += "" if not interval or figure.high is None else _told(figure.high, percent)
    return Bar(_told(figure.value, percent), interval, _share(figure.value, full), *ends)


def _share(value: float, full: float) -> float:
    return 0.0 if full <= 0 else min(1.0, max(0.0, value / full))


def _told(value: float, percent: bool) -> str:
    return f"{100 * value:.1f} %" if percent else f"{value:.4g}"


def full(figures: Sequence[Figure], percent: bool) -> float:
    """What a bar at its longest stands for: everything, or of other units the largest."""
    return 1.0 if percent else max((figure.high or figure.value for figure in figures), default=1.0)


def row(listed: Listed) -> dict[str, Any]:
    """A result in the list."""
    values: dict[str, Any] = {"name": listed.name, "wrong": listed.wrong, "when": when(listed.made)}
    result = listed.result
    if result is not None:
        metric = next(iter(result.metrics))
        values |= {"task": result.task, "model": result.model, "n": listed.n, "metric": metric}
        values |= {"bar": _bar(result, metric), "conditions": brief(result), "percent": _percent(result, metric)}
    return values


def _percent(result: Result, metric: str) -> bool:
    return bool(result.shown[metric]["percent"]) if metric in result.shown else False


def _bar(result: Result, metric: str) -> Bar:
    figure, percent = result.metrics[metric], _percent(result, metric)
    return bar(figure, percent, full([figure], percent))


def when(seconds: float) -> str:
    """`2026-11-30 20:15 UTC`."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return "–"


def brief(result: Result) -> str:
    """Conditions in a few words."""
    conditions = result.conditions
    words = [f"{result.shots} shot" + ("s" if result.shots != 1 else "")]
    if conditions.get("chat"):
        words.append("chat")
    if conditions.get("first_items"):
        words.append(f"first {_whole(conditions['first_items'])} of {_whole(conditions.get('items_in_all'))}")
    return ", ".join(words)


def conditions(result: Result) -> list[tuple[str, str]]:
    """All conditions in words: what was asked, how, of which model, by which code."""
    left = dict(result.conditions)
    took, of = left.pop("first_items", None), left.pop("items_in_all", None)
    items = f"the first {_whole(took)} of {_whole(of)}" if took else f"all {_whole(of)}" if of else "–"
    told = [("Shots", _whole(left.pop("shots", result.shots))), ("Items", items)]
    chat = left.pop("chat", None)
    told.append(("Asked as", "a conversation, by the model's chat template" if chat else "plain text"))
    cut = "whole shots are dropped" if left.pop("truncate", False) else "an error"
    told.append(("A prompt that is too long", cut))
    model, code = left.pop("model", None), left.pop("code", None)
    told += [(_WORDS.get(name, name.replace("_", " ").capitalize()), words(value)) for name, value in left.items()]
    told += _model(model)
    if isinstance(code, dict):
        commit = f", commit {code['commit']}" if code.get("commit") else ""
        told.append(("Code", f"camelid {code.get('camelid')}{commit}"))
    return [(name, value) for name, value in told if value]


def _model(model: Any) -> list[tuple[str, str]]:
    if not isinstance(model, dict):
        return []
    told = []
    files = model.get("files")
    for file in files if isinstance(files, list) else []:
        if isinstance(file, dict):
            told.append(
                ("File", f"{file.get('name')}, {_whole(file.get('bytes'))} bytes, SHA-256 {file.get('sha256')}")
            )
    rest = {name: value for name, value in model.items() if name != "files" and value not in ({}, None)}
    return [*told, *((name.replace("_", " ").capitalize(), words(value)) for name, value in rest.items())]


def words(value: Any) -> str:
    """A condition's value as one reads it."""
    if isinstance(value, dict):
        return "; ".join(f"{name.replace('_', ' ')} {words(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(words(each) for each in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return json.dumps(value) if isinstance(value, str) and (not value.strip() or "\n" in value) else str(value)


def _whole(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def result_view(listed: Listed, result: Result) -> dict[str, Any]:
    """A result's page."""
    names = list(result.metrics)
    metrics = [
        {
            "name": name,
            "bar": _bar(result, name),
            "n": result.metrics[name].n,
            "unread": result.metrics[name].n_unparsable,
            "lower": not result.shown[name]["higher_is_better"],
        }
        for name in names
    ]
    return {
        **row(listed),
        "metrics": metrics,
        "categories": _groups(result, result.categories),
        "groups": _groups(result, result.groups),
        "notes": list(result.notes.items()),
        "conditions": conditions(result),
        "conditions_brief": brief(result),
        "seconds": duration(result.seconds) if result.seconds >= 1 else f"{result.seconds:.2g} s",
        "folder": str(listed.folder),
    }


def _groups(result: Result, groups: Mapping[str, Mapping[str, Figure]]) -> list[dict[str, Any]]:
    """The first mean of each group, the groups of one scale."""
    firsts = [(group, *next(iter(own.items()))) for group, own in groups.items() if own]
    reach = full([figure for _, _, figure in firsts], False)
    rows = []
    for group, name, figure in firsts:
        percent = _percent(result, name)
        rows.append(
            {"name": group, "metric": name, "n": figure.n, "bar": bar(figure, percent, 1.0 if percent else reach)}
        )
    return rows


def comparison_rows(compared: Compared, first: Result) -> list[dict[str, Any]]:
    """A row a metric: the difference with its interval, who alone was right, and whether it is more than noise."""
    rows = []
    for name, found in compared.comparisons.items():
        percent, higher = _percent(first, name), bool(first.shown[name]["higher_is_better"])
        only = [found.only_first, found.only_second] if higher else [found.only_second, found.only_first]
        rows.append(
            {
                "name": name,
                "difference": _signed(found.difference, percent),
                "interval": _ends(found, percent),
                "only": ["–" if count is None else f"{count:,}" for count in only],
                "p": "–" if found.p is None else f"{found.p:.3g}",
                "test": "McNemar" if found.only_first is not None else "z",
                "noise": found.is_noise,
                "bar": _difference_bar(found),
            }
        )
    return rows


def _signed(value: float, percent: bool) -> str:
    return f"{100 * value:+.2f}" if percent else f"{value:+.4g}"


def _ends(found: Comparison, percent: bool) -> str:
    if found.low is None or found.high is None:
        return ""
    return f"{_signed(found.low, percent)} … {_signed(found.high, percent)}"


def _difference_bar(found: Comparison) -> Bar | None:
    """Places from 0 to 1, nothing in the middle; the picture is as wide as it must be."""
    if found.low is None or found.high is None:
        return None
    reach = max(abs(found.low), abs(found.high), abs(found.difference), 1e-9)
    low, value, high = ((each / reach + 1) / 2 for each in (found.low, found.difference, found.high))
    return Bar("", "", value, low, high)


def item_row(at: int, item: Mapping[str, Any]) -> dict[str, Any]:
    """An item in a list."""
    texts = (value for value in item["fields"].values() if isinstance(value, str) and value.strip())
    named = (item["fields"].get(name) for name in _QUESTIONS)
    text = next((value for value in named if isinstance(value, str) and value.strip()), None) or next(texts, "")
    first = " ".join(text[: 4 * _FIRST].split())
    first = first if len(first) <= _FIRST else f"{first[:_FIRST]} …"
    return {"at": at, "id": item["id"], "group": item["group"] or "", "text": first, "scores": scores(item)}


def _place(field: str) -> int:
    """What is asked stands before what one can choose from, and the answer last."""
    order = (*_QUESTIONS, "choices")
    return order.index(field) if field in order else len(order) + (field == "answer")


def scores(item: Mapping[str, Any]) -> dict[str, str]:
    """Scores as texts."""
    return {name: "unreadable" if value is None else f"{value:.4g}" for name, value in item["scores"].items()}


def item_view(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item's page: its fields, what was answered, what was taken from that, and the scores."""
    fields = item["fields"]
    return {
        "id": item["id"],
        "group": item["group"] or "",
        "fields": [(name, shown(fields[name])) for name in sorted(fields, key=_place)],
        "turns": [_turn(turn, fields, item["filtered"]) for turn in item["turns"]],
        "judged": [_turn(turn, {}, {}) for turn in item["judged"]],
        "filtered": [(name, shown(value)) for name, value in item["filtered"].items()],
        "scores": scores(item),
        "notes": [shown(note) for note in item["notes"]],
        "shots": ", ".join(map(str, item.get("shots") or ())),
    }


def _turn(turn: Mapping[str, Any], fields: Mapping[str, Any], filtered: Mapping[str, Any]) -> dict[str, Any]:
    answer = turn["answer"]
    values: dict[str, Any] = {"n_prompt": turn.get("n_prompt"), "prompt_sha256": turn.get("prompt_sha256")}
    values |= {"ids_sha256": turn.get("ids_sha256"), "texts": [], "choices": [], "loss": ""}
    if answer["kind"] == "written":
        reasons, tokens = answer.get("finish_reasons") or (), answer.get("n_tokens") or ()
        for at, text in enumerate(answer["texts"]):
            told = [f"{tokens[at]:,} tokens"] if at < len(tokens) else []
            told += [f"ended by {reasons[at]}"] if at < len(reasons) else []
            values["texts"].append({"text": shown(text), "told": ", ".join(told)})
    elif answer["kind"] == "likelihoods":
        values["choices"] = _choices(answer, fields, filtered)
    elif answer["kind"] == "loss":
        values["loss"] = f"{answer['nll']:.3f} nats, {answer['n_tokens']:,} tokens, {answer['n_bytes']:,} bytes"
    return values


def _choices(answer: Mapping[str, Any], fields: Mapping[str, Any], filtered: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a continuation that was asked: its text where the item has it, and which score would take it."""
    texts, gold, rows = fields.get("choices"), fields.get("answer"), []
    logprobs, tokens = answer["logprobs"], answer.get("n_tokens") or ()
    alone = answer.get("unconditioned") or ()
    has_texts = isinstance(texts, list) and len(texts) == len(logprobs)
    for at, logprob in enumerate(logprobs):
        rows.append(
            {
                "text": f"{at}: {shown(texts[at])}" if has_texts and texts else f"{at}",
                "logprob": f"{logprob:.3f}",
                "tokens": tokens[at] if at < len(tokens) else "–",
                "alone": f"{alone[at]:.3f}" if at < len(alone) else "",
                "gold": has_texts and isinstance(gold, int) and gold == at,
                "picked": [name for name, value in filtered.items() if type(value) is int and value == at],
            }
        )
    return rows


def shown(value: Any) -> str:
    """A value of an item, as it is; very long ones are cut, and say so."""
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        text = "\n".join(f"{number}: {each}" for number, each in enumerate(value))
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} … ({len(text):,} characters in all)"
