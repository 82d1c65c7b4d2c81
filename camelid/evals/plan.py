"""What will be asked: the items, the shots of each, and the check that no item stands in its own prompt."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from camelid.errors import OptionError, VerifyError, first_few
from camelid.evals.sources import Source
from camelid.evals.task import Item, Request, Task

NEAR = 0.9  # share of three-word runs that two texts have in common, from which on they count as one
_FEWEST = 8  # words, below which only equal texts count as one
_MESSAGE_LIMIT = 3


@dataclass(frozen=True)
class Plan:
    """Items in the published order, and the shots of each.

    Attributes:
        data_sha256: of the items and shots as they were read, in whatever they were packed.
        n_all: items that the split has; `items` are the first of them where there is a limit.
    """

    task: Task
    items: tuple[Item, ...]
    shots: tuple[tuple[Item, ...], ...]
    n_shots: int
    data_sha256: str
    n_all: int

    def request(self, number: int, n_dropped: int = 0) -> Request:
        """What is asked first of an item; without the first `n_dropped` shots."""
        return self.task.request(self.items[number], self.shots[number][n_dropped:])


def make_plan(task: Task, source: Source, limit: int | None = None, n_shots: int | None = None) -> Plan:
    """Read the items and choose their shots.

    Args:
        limit: only the first so many items.
        n_shots: instead of the task's own number.

    Raises:
        OptionError: no such split, no items, fewer shots than asked for, or a task that takes none.
        FormatError: items of another form.
        VerifyError: an item stands among its own shots.
    """
    everything = _read(task, source, task.splits.items)
    items = everything[:limit]
    if n_shots is None:
        n_shots = task.n_shots or 0
    elif n_shots and task.n_shots is None:
        raise OptionError(f"{task.name}: takes no shots; leave --shots out", param="shots")
    pool = _read(task, source, task.splits.shots) if n_shots and task.splits.shots is not None else []
    chosen = [tuple(shots) for shots in task.choose_shots(items, pool, n_shots)]
    few = [item for item, shots in zip(items, chosen, strict=True) if len(shots) < n_shots]
    if few:
        most = min(len(shots) for shots in chosen)
        raise OptionError(
            f"{task.name}: {few[0].id}: has {most} shots, not {n_shots}; ask for at most {most} with --shots",
            param="shots",
        )
    check_leaks(task, items, chosen)
    used = {shot.id: shot for shots in chosen for shot in shots}
    return Plan(task, tuple(items), tuple(chosen), n_shots, _hash_of([*items, *used.values()]), len(everything))


def _read(task: Task, source: Source, split: str) -> list[Item]:
    items = list(task.read(source, split))
    if not items:
        raise OptionError(f"{source.name}: the split {split!r} of {task.name} has no items", param="data")
    seen: set[str] = set()
    twice = [item.id for item in items if item.id in seen or seen.add(item.id)]  # type: ignore[func-returns-value]
    if twice:
        raise OptionError(f"{source.name}: {task.name}: two items are called {first_few(twice)}", param="data")
    return items


def _hash_of(items: Sequence[Item]) -> str:
    digest = hashlib.sha256()
    for item in items:
        digest.update(canonical({"id": item.id, "group": item.group, "fields": dict(item.fields)}))
    return digest.hexdigest()


def canonical(value: Any) -> bytes:
    """JSON of which there is one for each value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return text.encode(errors="surrogatepass")


def check_leaks(task: Task, items: Sequence[Item], shots: Sequence[Sequence[Item]]) -> None:
    """Refuse shots that are the item itself: the same words, or nearly.

    Raises:
        VerifyError: names the first few.
    """
    texts = {shot.id: Words(shot.fields) for own in shots for shot in own}
    found = []
    for item, own in zip(items, shots, strict=True):
        words = Words(item.fields) if own else None
        found += [f"{item.id} (its shot {shot.id})" for shot in own if words and words.is_nearly(texts[shot.id])]
    if found:
        raise VerifyError(
            f"{task.name}: {len(found)} items stand in their own prompts: {first_few(found, _MESSAGE_LIMIT)}; take "
            f"shots from another file, or --shots 0"
        )


class Words:
    """An item's words, without case and marks, to find out whether two items are one."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.text = tuple(re.findall(r"\w+", " ".join(_strings(fields)).lower()))
        self._runs: frozenset[tuple[str, ...]] | None = None

    @property
    def runs(self) -> frozenset[tuple[str, ...]]:
        """All runs of three words."""
        if self._runs is None:
            self._runs = frozenset(self.text[at : at + 3] for at in range(len(self.text) - 2))
        return self._runs

    def is_nearly(self, other: Words) -> bool:
        """Whether both are the same text, or nearly: then they have more than `NEAR` of their runs in common."""
        if self.text == other.text:
            return bool(self.text)
        shorter, longer = sorted((len(self.text), len(other.text)))
        if shorter < _FEWEST or shorter < NEAR * longer:
            return False
        both = len(self.runs & other.runs)
        return both >= NEAR * len(self.runs | other.runs)


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for inner in value.values() for text in _strings(inner)]
    if isinstance(value, list | tuple):
        return [text for inner in value for text in _strings(inner)]
    return []
