"""Cards as lines and footnotes: what the terminal, Markdown and HTML have in common; and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from camelid.evals.cards.card import Beside, Card, Difference, Missing, Row, command, order_of
from camelid.evals.cards.conditions import STATED, in_words
from camelid.evals.report import figure_text, interval_text
from camelid.evals.statistics import Figure

NONE = "–"  # a figure that is missing
_NAMES = {"form": "form of the answer", "chat": "chat or not", "average": "micro or macro"}


@dataclass(frozen=True)
class Line:
    """A metric of a task and a model.

    Attributes:
        published: text of each figure, and the number of its footnote.
    """

    task: str
    shots: str
    metric: str
    model: str
    figure: str
    interval: str
    items: str
    difference: str
    verdict: str
    published: tuple[tuple[str, int], ...]
    own: Figure | None
    percent: bool
    marks: tuple[float, ...]


@dataclass(frozen=True)
class Note:
    """A footnote: whose figure it is, and what differs."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Sheet:
    """Everything that is shown of some cards, in its order: by task and metric, models below one another.

    Attributes:
        sources: title, address and notes of each that has a figure here.
        missing: models, and the commands that make what these lack; none where camelid has no name for the model.
    """

    models: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[Note, ...]
    sources: tuple[tuple[str, str, str], ...]
    missing: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    remarks: tuple[str, ...]

    @property
    def several(self) -> bool:
        """Whether there is more than one model."""
        return len(self.models) > 1


def lay_out(cards: Sequence[Card]) -> Sheet:
    """Lines and footnotes of cards."""
    notes: dict[Note, int] = {}
    keys = dict.fromkeys(_key(row) for card in cards for row in card.rows if row.main)
    order = {key: at for at, key in enumerate(sorted(keys, key=lambda key: _first(cards, key)))}
    lines = [
        (order[_key(row)], at, _line(card.model, row, notes))
        for at, card in enumerate(cards)
        for row in card.rows
        if row.main and (row.figure is not None or not _stands_before(cards[:at], row))
    ]
    lines.sort(key=lambda each: each[:2])
    return Sheet(
        tuple(card.model for card in cards),
        tuple(line for _, _, line in lines),
        tuple(notes),
        tuple(dict.fromkeys(_source(each) for card in cards for row in card.rows for each in row.published)),
        _missing(cards),
        tuple(note for card in cards for note in card.notes) + _differing(cards),
    )


def _stands_before(cards: Sequence[Card], row: Row) -> bool:
    """Whether an earlier card has the same published figures, as that of another quantisation."""
    return any(other.published == row.published for card in cards for other in card.rows if _key(other) == _key(row))


def _missing(cards: Sequence[Card]) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    """Models that lack the same tasks, and their commands: one for tasks whose items were pulled, then the rest."""
    alike: dict[tuple[str, ...], list[Card]] = {}
    unnamed = []
    for card in cards:
        if any(each.model is None for each in card.missing.values()):
            unnamed.append(((card.model,), ()))
        elif card.missing:
            alike.setdefault(tuple(card.missing), []).append(card)
    found = []
    for same in alike.values():
        tasks = list(same[0].missing.values())
        pulled: dict[int | None, list[Missing]] = {}
        for each in tasks:
            if not each.needs_data:
                pulled.setdefault(each.shots, []).append(each)
        groups = [*pulled.values(), *([each] for each in tasks if each.needs_data)]
        models = [model for card in same if (model := next(iter(card.missing.values())).model) is not None]
        names = tuple(card.model for card in same)
        found.append((names, tuple(command(group, models) for group in groups)))
    return (*found, *unnamed)


def _key(row: Row) -> tuple[str, Any, str]:
    return row.task, _shots(row), row.metric


def _shots(row: Row) -> int | None:
    """Of a figure; where there is only a published one, its own: so it stands beside those of other models."""
    told = [each.figure.conditions.get("shots") for each in row.published]
    shots: int | None = row.conditions.get("shots", told[0] if told else None)
    return shots


def _first(cards: Sequence[Card], key: tuple[str, Any, str]) -> tuple[Any, ...]:
    """Where a row stands: by its task, then as in the first card that has it."""
    return (
        *order_of(key[0]),
        -1 if key[1] is None else key[1],
        *next((at, place) for at, card in enumerate(cards) for place, row in enumerate(card.rows) if _key(row) == key),
    )


def _line(model: str, row: Row, notes: dict[Note, int]) -> Line:
    own = row.figure
    published = [
        (f"{100 * each.figure.value:.1f}", notes.setdefault(_note(row, each), len(notes) + 1)) for each in row.published
    ]
    shots = _shots(row)
    difference, verdict = _difference(row.difference, row.percent)
    return Line(
        task=row.task,
        shots=NONE if shots is None else str(shots),
        metric=row.metric,
        model=model,
        figure=NONE if own is None else figure_text(replace(own, stderr=None), row.percent),
        interval="" if own is None else interval_text(own, row.percent),
        items="" if own is None else f"{own.n:,}",
        difference=difference,
        verdict=verdict,
        published=tuple(published),
        own=own,
        percent=row.percent,
        marks=tuple(each.figure.value for each in row.published),
    )


def _difference(found: Difference | None, percent: bool) -> tuple[str, str]:
    if found is None:
        return "", ""
    told, factor, digits = found.comparison, 100 if percent else 1, 2 if percent else 4
    text = f"{factor * told.difference:+.{digits}f}"
    if told.low is not None and told.high is not None:
        text += f" ({factor * told.low:+.{digits}f} … {factor * told.high:+.{digits}f})"
    return text, "noise" if told.is_noise else "more than noise"


def _note(row: Row, beside: Beside) -> Note:
    figure, lines = beside.figure, []
    if beside.differs:
        theirs, ours = (in_words(each, beside.differs) for each in (figure.conditions, row.conditions))
        lines.append(f"theirs: {theirs}; ours: {ours}")
    elif row.figure is None and figure.conditions:
        lines.append(f"theirs: {in_words(figure.conditions)}")
    if beside.unstated:
        lines.append(f"not stated: {', '.join(_NAMES.get(name, name) for name in beside.unstated)}")
    if figure.note:
        lines.append(figure.note)
    return Note(f"{figure.benchmark}, {figure.source}", tuple(lines))


def _source(beside: Beside) -> tuple[str, str, str]:
    figure = beside.figure
    return figure.source, figure.url, " ".join(figure.source_notes)


def _differing(cards: Sequence[Card]) -> tuple[str, ...]:
    """Comparisons that are not of the model alone."""
    found = {
        f"{row.task}: {card.model} and {row.difference.to} differ in more than the model: "
        f"{', '.join(row.difference.differing)}"
        for card in cards
        for row in card.rows
        if row.difference is not None and row.difference.differing
    }
    return tuple(sorted(found))


def cards_as_json(cards: Sequence[Card]) -> dict[str, Any]:
    """The contract for programs."""
    return {
        "cards": [
            {
                "model": card.model,
                "rows": [_row_as_json(row) for row in card.rows],
                "missing": [{"task": task, "command": each.command} for task, each in card.missing.items()],
                "notes": list(card.notes),
            }
            for card in cards
        ]
    }


def _row_as_json(row: Row) -> dict[str, Any]:
    own = row.figure
    told: dict[str, Any] = {
        "task": row.task,
        "metric": row.metric,
        "value": None if own is None else own.value,
        "stderr": None if own is None else own.stderr,
        "interval": None if own is None or own.low is None else [own.low, own.high],
        "n": 0 if own is None else own.n,
        "conditions": {**row.record, **row.conditions},
        "published": [_beside_as_json(row, each) for each in row.published],
    }
    if row.difference is not None:
        found = row.difference.comparison
        told["difference"] = {
            "to": row.difference.to,
            "value": found.difference,
            "stderr": found.stderr,
            "interval": None if found.low is None else [found.low, found.high],
            "n": found.n,
            "p": found.p,
            "more_than_noise": not found.is_noise,
            "differs": list(row.difference.differing),
        }
    return told


def _beside_as_json(row: Row, beside: Beside) -> dict[str, Any]:
    figure = beside.figure
    told = [
        f"{name}: theirs {figure.conditions.get(name, 'all items')}, ours {row.conditions[name]}"
        for name in beside.differs
    ]
    return {
        "value": figure.value,
        "source": figure.source,
        "url": figure.url,
        "conditions": {name: figure.conditions[name] for name in STATED if name in figure.conditions},
        "differs": told,
        "unstated": list(beside.unstated),
        "note": figure.note,
        "source_notes": list(figure.source_notes),
    }
