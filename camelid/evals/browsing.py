"""Results of a folder, to be looked through: what is on record, and items one at a time, however many there are.

Of `items.jsonl` only an index is held: where its lines begin, what their scores are, and hashes of ids and contents;
some 40 bytes an item and score.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from camelid.errors import CamelidError, FormatError, OptionError, first_few
from camelid.evals.comparing import differing_conditions
from camelid.evals.plan import canonical
from camelid.evals.records import ITEMS, LOG, RESULT, read_result, read_timing
from camelid.evals.result import Result, from_record
from camelid.evals.statistics import Comparison, Figure, compare
from camelid.pedigree import NAME as RUN

LONGEST = 1 << 24  # bytes of a result or an item that are read
KEPT = 8  # indexes
ABSENT, UNREAD = math.nan, math.inf  # an item has no such score; its answer could not be read
_DAMAGE = (CamelidError, OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
Outcome = Literal["both", "first", "second", "neither"]


@dataclass(frozen=True)
class Listed:
    """A folder in which a result lies, or should.

    Attributes:
        result: without its items; None if it is damaged or not finished.
        n: items.
        made: seconds since the epoch.
        wrong: why there is no result, in a line.
    """

    name: str
    folder: Path
    result: Result | None
    n: int
    made: float
    wrong: str = ""


class ItemIndex:
    """Where the lines of an `items.jsonl` begin, and their scores; a line is read when it is asked for.

    Attributes:
        scores: name → a value an item; `ABSENT`, or `UNREAD`.
        groups: the groups' names, in the order of the file.
        group: of each item, its place in `groups`; -1 if it has none.
        broken: numbers of lines that hold no item, from 1; they are left out.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.scores: dict[str, array[float]] = {}
        self.groups: list[str] = []
        self.group = array("l")
        self.broken: list[int] = []
        self._offsets, self._ids, self._contents = array("Q"), array("Q"), array("Q")
        places: dict[str, int] = {}
        with path.open("rb") as file:
            number = offset = 0
            while line := file.readline(LONGEST):
                number += 1
                try:
                    self._add(offset, _item(line), places)
                except _DAMAGE:
                    self.broken.append(number)
                while not line.endswith(b"\n") and (line := file.readline(LONGEST)):
                    pass  # the rest of a line that is too long
                offset = file.tell()

    def _add(self, offset: int, item: Mapping[str, Any], places: dict[str, int]) -> None:
        own = {name: UNREAD if value is None else float(value) for name, value in item["scores"].items()}
        content, group, id = _hash(canonical(item["fields"])), _clean(item["group"]), _hash_of(item["id"])
        for name in own.keys() - self.scores.keys():
            self.scores[name] = array("d", [ABSENT]) * len(self._offsets)
        for name, values in self.scores.items():
            values.append(own.get(name, ABSENT))
        if group is not None and group not in places:
            places[group] = len(places)
            self.groups.append(group)
        self.group.append(-1 if group is None else places[group])
        self._offsets.append(offset)
        self._ids.append(id)
        self._contents.append(content)

    def __len__(self) -> int:
        return len(self._offsets)

    def read(self, at: int) -> dict[str, Any]:
        """The item at a place.

        Raises:
            FormatError: the file has changed meanwhile.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self._offsets[at])
                item = _item(file.readline(LONGEST))
                if _hash_of(item["id"]) != self._ids[at]:
                    raise ValueError("another item")
                cleaned: dict[str, Any] = _clean(item)
                return cleaned
        except _DAMAGE:
            raise FormatError(f"{self.path}: has changed while it was read; ask again") from None

    def wrong(self, score: str, higher_is_better: bool) -> list[int]:
        """Places of items that have the score and were not right; an answer that could not be read is not."""
        values = enumerate(self.scores.get(score, ()))
        return [at for at, value in values if value == value and not _is_right(value, higher_is_better)]

    def unread(self, score: str) -> list[int]:
        """Places of items whose answer could not be read."""
        return [at for at, value in enumerate(self.scores.get(score, ())) if value == UNREAD]

    def paired(self, other: ItemIndex) -> tuple[list[tuple[int, int]], list[int]]:
        """Places of the items that both have, and those here whose contents are other ones there."""
        theirs = {id: at for at, id in enumerate(other._ids)}
        both = [(at, theirs[id]) for at, id in enumerate(self._ids) if id in theirs]
        return both, [here for here, there in both if self._contents[here] != other._contents[there]]


def _item(line: bytes) -> dict[str, Any]:
    """An item of a line; anything else is a ValueError, or what comes of using it."""
    item: dict[str, Any] = json.loads(line)
    sound = isinstance(item["id"], str) and isinstance(item["fields"], dict) and isinstance(item["filtered"], dict)
    sound = sound and isinstance(item["group"], str | None) and isinstance(item["notes"], list)
    for turn in (*item["turns"], *item["judged"]):
        sound = sound and isinstance(turn["answer"]["kind"], str)
    if not sound or not all(value is None or _is_number(value) for value in item["scores"].values()):
        raise ValueError("not an item")
    return item


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _is_right(value: float, higher_is_better: bool) -> bool:
    return value != UNREAD and (value > 0) == higher_is_better


def _clean(value: Any) -> Any:
    """JSON values that can be sent as UTF-8: half of a surrogate pair, which a model may write, cannot."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, list):
        return [_clean(each) for each in value]
    return {_clean(name): _clean(each) for name, each in value.items()} if isinstance(value, dict) else value


def _hash_of(id: str) -> int:
    return _hash(id.encode(errors="surrogatepass"))


def _hash(text: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


@dataclass(frozen=True)
class Compared:
    """Two results of a task, item by item, as `comparing.Pair`, but with places instead of items.

    Attributes:
        both: places of the items that both have.
    """

    first: Listed
    second: Listed
    indexes: tuple[ItemIndex, ItemIndex]
    both: Sequence[tuple[int, int]]
    differing: tuple[str, ...]
    comparisons: Mapping[str, Comparison]

    def outcomes(self, score: str, higher_is_better: bool) -> dict[Outcome, list[tuple[int, int]]]:
        """Items that both, only one, or neither got right; of scores between 0 and 1 the better one is alone."""
        found: dict[Outcome, list[tuple[int, int]]] = {"both": [], "first": [], "second": [], "neither": []}
        for places, first, second in _values(self.both, self.indexes, score):
            if first != second:
                found["first" if (first > second) == higher_is_better else "second"].append(places)
            else:
                found["both" if _is_right(first, higher_is_better) else "neither"].append(places)
        return found


def _values(
    both: Sequence[tuple[int, int]], indexes: tuple[ItemIndex, ItemIndex], score: str
) -> list[tuple[tuple[int, int], float, float]]:
    """Scores of the items in which both have one; an answer that could not be read counts as 0."""
    here, there = (index.scores.get(score) for index in indexes)
    if here is None or there is None:
        return []
    told = ((places, here[places[0]], there[places[1]]) for places in both)
    return [
        (places, 0.0 if a == UNREAD else a, 0.0 if b == UNREAD else b) for places, a, b in told if a == a and b == b
    ]


class ResultStore:
    """The results of a folder. What was read of a file stays until the file changes.

    Args:
        folder: as `results`; it need not be there yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listed: dict[str, tuple[Any, Listed]] = {}
        self._indexes: dict[Path, tuple[Any, ItemIndex]] = {}
        self._lock = threading.Lock()

    def all(self) -> list[Listed]:
        """Every result, the newest first."""
        with self._lock:
            found = {name: self._list(name) for name in self._names()}
            self._listed = {name: kept for name, kept in self._listed.items() if name in found}
            return sorted(found.values(), key=lambda each: (-each.made, each.name))

    def get(self, name: str) -> Listed | None:
        """The result of this name; None if it is not found."""
        with self._lock:
            return self._list(name) if name in self._names() else None

    def _names(self) -> list[str]:
        try:
            folders = [path for path in self.folder.iterdir() if path.is_dir()]
        except OSError:
            return []
        held = [path.name for path in folders if (path / RESULT).exists() or (path / LOG).exists()]
        return [name for name in held if name.isprintable()]  # others cannot stand in an address

    def _list(self, name: str) -> Listed:
        folder = self.folder / name
        stamp = (_stamp(folder / RESULT), _stamp(folder / LOG))
        if name not in self._listed or self._listed[name][0] != stamp:
            self._listed[name] = (stamp, _read(name, folder))
        return self._listed[name][1]

    def items(self, listed: Listed) -> ItemIndex:
        """The index of a result's items; it takes a moment the first time.

        Raises:
            FormatError: there are none.
        """
        path = listed.folder / ITEMS
        with self._lock:
            stamp = _stamp(path)
            if stamp is None:
                raise FormatError(f"{path}: is not there; evaluate again, with --again")
            kept = self._indexes.pop(path, None)
            try:
                index = kept[1] if kept is not None and kept[0] == stamp else ItemIndex(path)
            except OSError as error:
                raise FormatError(f"{path}: cannot be read: {error.strerror}") from None
            self._indexes[path] = (stamp, index)  # the last asked for is the last to go
            while len(self._indexes) > KEPT:
                del self._indexes[next(iter(self._indexes))]
            return index

    def compare(self, first: Listed, second: Listed) -> Compared:
        """Two results on the items that both have.

        Raises:
            OptionError: they are of different tasks, or have no items in common, or the same items with other contents.
            FormatError: one of them cannot be read.
        """
        results = first.result, second.result
        if results[0] is None or results[1] is None:
            raise FormatError(first.wrong or second.wrong)
        one, two = results[0], results[1]
        if one.task != two.task:
            raise OptionError(f"{two.task} and {one.task} are different tasks; compare results of one")
        indexes = self.items(first), self.items(second)
        both, changed = indexes[0].paired(indexes[1])
        if not both:
            raise OptionError(f"{one.task}: the two results have no items in common")
        if changed:
            named = [indexes[0].read(at)["id"] for at in changed[:3]] + [""] * (len(changed) - 3)
            raise OptionError(f"{one.task}: items have other contents in the two results: {first_few(named)}")
        comparisons = {}
        for name, shown in one.shown.items():
            values = _values(both, indexes, shown["score"]) if "score" in shown and name in two.metrics else []
            if values:
                comparisons[name] = compare([value[1] for value in values], [value[2] for value in values])
        differing = differing_conditions(one.conditions, two.conditions)
        return Compared(first, second, indexes, both, differing, comparisons)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Changes when the file does."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(name: str, folder: Path) -> Listed:
    path = folder / RESULT
    made = 0.0
    try:
        if not path.exists():
            made = (folder / LOG).stat().st_mtime
            return Listed(name, folder, None, 0, made, f"{folder}: not finished; the same command goes on with it")
        status = path.stat()
        made = _made(folder, status.st_mtime)
        if status.st_size > LONGEST:
            raise FormatError(f"{path}: {status.st_size:,} bytes are no result of camelid's")
        record = read_result(folder)
        if record is None:
            raise FormatError(f"{path}: not a file; remove it and evaluate again")
        result = from_record(_clean(record), (), read_timing(folder), folder)
        _check(result, record["n"])
        return Listed(name, folder, result, record["n"], made)
    except (CamelidError, OSError) as error:
        return Listed(name, folder, None, 0, made, " ".join(str(error).split()))
    except _DAMAGE:
        return Listed(name, folder, None, 0, made, f"{path}: not a result of camelid's; remove it and evaluate again")


def _check(result: Result, n: Any) -> None:
    """ValueError where a value is not of its kind: pages show what is on record, so it must be what it says."""
    figures = [*result.metrics.values()]
    for groups in (result.groups, result.categories):
        figures += [figure for own in groups.values() for figure in own.values()]
    texts = [result.task, result.model, *(each.get("score", "") for each in result.shown.values())]
    sound = all(_is_sound(figure) for figure in figures) and all(isinstance(text, str) for text in texts)
    counts = [n, result.shots, *result.notes.values()]
    sound = sound and all(isinstance(count, int) and 0 <= count < 10**15 for count in counts)
    sound = sound and all({"percent", "higher_is_better"} <= each.keys() for each in result.shown.values())
    sound = sound and isinstance(result.conditions, dict) and result.metrics != {} and _is_number(result.seconds)
    if not sound:
        raise ValueError("not a result")


def _is_sound(figure: Figure) -> bool:
    optional = (figure.stderr, figure.low, figure.high)
    counts = (figure.n, figure.n_unparsable)
    numbers = (figure.value, *counts, *(each for each in optional if each is not None))
    return all(_is_number(number) for number in numbers) and all(isinstance(count, int) for count in counts)


def _made(folder: Path, otherwise: float) -> float:
    """When, as the pedigree says."""
    try:
        return datetime.fromisoformat(json.loads((folder / RUN).read_bytes())["date"]).timestamp()
    except _DAMAGE:
        return otherwise
