"""metrics.jsonl: what a run told of itself, one JSON object a line, written as it happens and never changed.

A line is a step (the `numbers` of a `Step`, and `seconds_left`) or an event (`event` says which; `start` at the
beginning and after every pause, `save`, `stop` …). Every line has `time`, seconds since 1970.
After a resume the file goes on: an event `start` with the step that was restored says that lines of later steps, read
before it, count no more. No torch here: plots, pages and `camelid inspect` read these files too.
"""

from __future__ import annotations

import json
import logging
import math
import os
import statistics
import time
from array import array
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from camelid.errors import FormatError, MissingError, ResourceError
from camelid.run_layout import METRICS
from camelid.train.events import Step

if TYPE_CHECKING:
    from camelid.train.report.trackers import Tracker

log = logging.getLogger(__name__)

NAME = METRICS
_RECENT_STEPS = 50
_MOST_STEPS, _LARGEST = 2**53, 1e100  # float64 counts so far; float32, which losses are in, ends at 3e38


class TimeLeft:
    """Seconds until a run ends, from the median of its last steps: a validation or a save does not upset it."""

    def __init__(self, steps: int) -> None:
        self._steps, self._recent = steps, deque[float](maxlen=_RECENT_STEPS)

    def after(self, step: Step) -> float:
        """To be called once for each step, in order."""
        self._recent.append(step.seconds)
        return max(0, self._steps - step.step) * statistics.median(self._recent)


class MetricsWriter:
    """Writes metrics.jsonl of one stage of a run; a context that closes the file.

    Args:
        folder: of the stage, as `runs/tiny/pretrain`; there already.
        steps: the last step's number.
        start: steps that lie behind: 0, or the restored checkpoint's.
        trackers: are told of every step too, and closed with the file.
        about: kept in the `start` event: what a reader may want to know of this session, as device or ranks.

    Raises:
        ResourceError: the file cannot be written.
    """

    def __init__(
        self, folder: Path, steps: int, start: int = 0, trackers: Sequence[Tracker] = (), **about: Any
    ) -> None:
        self._path, self._left, self._trackers = folder / NAME, TimeLeft(steps), trackers
        try:
            _end_line(self._path)
            self._file = self._path.open("a", encoding="utf-8")
        except OSError as error:
            raise ResourceError(f"{self._path}: cannot be written ({error.strerror}); check the folder") from None
        self.event("start", step=start, steps=steps, **about)

    def write(self, step: Step) -> None:
        """Append a step."""
        line = self._append({**step.numbers(), "seconds_left": round(self._left.after(step), 3)})
        for tracker in self._trackers:
            tracker.step({name: value for name, value in line.items() if value is not None})

    def event(self, event: str, **values: Any) -> None:
        """Append something else that happened, as `event("save", step=1000, folder="step1000-tokens4M")`."""
        self._append({"event": event, **values})

    def close(self) -> None:
        """Nothing more will come."""
        self._file.close()
        for tracker in self._trackers:
            tracker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _append(self, values: dict[str, Any]) -> dict[str, Any]:
        numbers = {name: None if _is_lost(value) else value for name, value in values.items()}
        line = {**numbers, "time": round(time.time(), 3)}
        try:
            self._file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise ResourceError(f"{self._path}: cannot be written ({error.strerror}); free some disk") from None
        return line


class Metrics:
    """All that a metrics.jsonl says that still counts; `read` takes in what has been written since the last time.

    Attributes:
        path: the file.
        columns: field of a step → its values, as long as there are steps, NaN where a step has none; `step` rises.
        events: every event, in order of writing.
        broken: numbers of lines that are neither a step nor an event, as a power cut leaves; they are left out, and a
            warning names the first.

    Raises:
        MissingError: there is no such file.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        if not self.path.is_file():
            raise MissingError(f"{folder}: no {NAME}; give the folder of a run that `camelid train` has begun")
        self._forget()

    def __len__(self) -> int:
        return len(self.columns["step"])

    @property
    def steps(self) -> int | None:
        """The last step's number, as the run's latest session was told; None if it never said."""
        return self.about("steps")

    def about(self, name: str) -> Any:
        """What the latest session that said it told about the run when it began; None if none did."""
        said = [event[name] for event in self.events if event["event"] == "start" and name in event]
        return said[-1] if said else None

    def last(self, name: str) -> float | None:
        """The latest value of a field; None if no step has it."""
        return next((value for value in reversed(self.columns.get(name, ())) if not math.isnan(value)), None)

    def points(self, name: str, against: str = "step") -> tuple[list[float], list[float]]:
        """The (x, y) of steps that have both; `seconds` as x is time spent training, pauses left out.

        Raises:
            MissingError: no step has that field.
        """
        for field in (name, against):
            if field not in self.columns:
                raise MissingError(f"{self.path}: no {field} yet; it has {', '.join(sorted(self.columns))}")
        xs: list[float] = list(self.columns[against])
        if against == "seconds":
            xs = _running_sum(xs)
        pairs = [(x, y) for x, y in zip(xs, self.columns[name], strict=True) if not (math.isnan(x) or math.isnan(y))]
        return [x for x, _ in pairs], [y for _, y in pairs]

    def read(self) -> Self:
        """Take in the lines written since. A last line that is still being written waits for the next call.

        Raises:
            FormatError: the first line is neither a step nor an event.
        """
        with self.path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < self._offset:  # not the file that was read before
                self._forget()
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                self._lines += 1
                self._take(line)
        return self

    def _forget(self) -> None:
        self._offset = self._lines = 0
        self.broken: list[int] = []
        self.columns: dict[str, array[float]] = {"step": array("d")}
        self.events: list[dict[str, Any]] = []

    def _take(self, line: bytes) -> None:
        try:
            values = json.loads(line)
            event = values.get("event")
            step = values["step"] if event is None else _check(values)
            if not (isinstance(step, int) and 0 <= step < _MOST_STEPS):
                raise ValueError(f"step is {step!r}")
            numbers = _numbers(values)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            if self._lines == 1:
                raise FormatError(f"{self.path}: line 1: neither a step nor an event; not a run's metrics") from None
            self.broken.append(self._lines)
            if len(self.broken) == 1:
                log.warning("%s: line %d: neither a step nor an event; it is left out", self.path, self._lines)
            return
        if event is None:
            self._drop_from(step)
            self._add(numbers)
        else:
            self.events.append(values)
            if event == "start":
                self._drop_from(step + 1)

    def _drop_from(self, step: float) -> None:
        """Forget steps from this one on: they were trained again."""
        steps = self.columns["step"]
        keep = len(steps)
        while keep and steps[keep - 1] >= step:
            keep -= 1
        if keep == len(steps):  # nearly always; cutting nothing off would still copy each column
            return
        for column in self.columns.values():
            del column[keep:]

    def _add(self, numbers: Mapping[str, float]) -> None:
        before, columns = len(self), self.columns
        for name, number in numbers.items():
            if name not in columns:
                columns[name] = array("d", [math.nan]) * before
            columns[name].append(number)
        if len(numbers) < len(columns):
            for column in columns.values():
                if len(column) == before:
                    column.append(math.nan)


def read_metrics(folder: Path) -> Metrics:
    """What a stage's metrics.jsonl says now.

    Raises:
        MissingError: the folder has none.
        FormatError: its first line is neither step nor event.
    """
    return Metrics(folder).read()


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line; NaN where one was lost.

    Raises:
        OverflowError: one is too large to be drawn.
    """
    numbers = {}
    for name, value in values.items():
        if isinstance(value, (int, float)):
            if value > _LARGEST or value < -_LARGEST:
                raise OverflowError(f"{name} is too large")
            numbers[name] = float(value)
        elif value is None:
            numbers[name] = math.nan
    return numbers


def _check(values: Mapping[str, Any]) -> Any:
    """Whether plots and pages can work with an event; returns its step, 0 if it has none.

    Raises:
        ValueError, TypeError: they cannot.
    """
    if not isinstance(values["event"], str):
        raise ValueError("event is no word")
    steps = values.get("steps", 0)
    if not (isinstance(steps, int) and 0 <= steps < _MOST_STEPS):
        raise ValueError(f"steps is {steps!r}")
    if not isinstance(values.get("unigram_entropy", 0.0), float | int | None):
        raise ValueError("unigram_entropy is no number")
    return values.get("step", 0)


def _end_line(path: Path) -> None:
    """Cut off half a line that a killed run left."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        begin = file.seek(0, os.SEEK_END)
        while begin:
            end, begin = begin, max(0, begin - 4096)
            file.seek(begin)
            newline = file.read(end - begin).rfind(b"\n")
            if newline >= 0:
                file.truncate(begin + newline + 1)
                return
        file.truncate(0)


def _is_lost(value: Any) -> bool:
    """Whether JSON has no word for it."""
    return isinstance(value, float) and not math.isfinite(value)


def _running_sum(values: list[float]) -> list[float]:
    total, sums = 0.0, []
    for value in values:
        total += 0.0 if math.isnan(value) else value
        sums.append(total)
    return sums
