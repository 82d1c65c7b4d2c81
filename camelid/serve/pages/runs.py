"""Training runs as the pages show them: read anew when their files have grown, and put into words."""

from __future__ import annotations

import difflib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camelid.errors import CamelidError
from camelid.run_layout import RUNS
from camelid.serve.pages.run_curves import panel
from camelid.train.report.metrics import NAME, Metrics
from camelid.train.report.plot import CURVES, Against
from camelid.train.report.units import count, duration, memory
from camelid.train.runs import Run, State, find_runs, state

FOLDER = Path(RUNS)
_TABLE_ROWS = 24


@dataclass(frozen=True)
class Shown:
    """A run and what has been read of it; `wrong` says why nothing could be, or what was left out."""

    run: Run
    metrics: Metrics | None
    wrong: str = ""

    @property
    def name(self) -> str:
        """Run and stage."""
        return self.run.name

    @property
    def state(self) -> State | None:
        """None if it cannot be read."""
        return state(self.metrics) if self.metrics is not None else None


class Shelf:
    """The runs of a folder. What was read of a file stays; only what is new in it is read again.

    Args:
        folder: as `runs`; it need not be there yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[Path, Metrics] = {}
        self._damaged: dict[Path, tuple[int, str]] = {}  # when the file was written, and what is wrong with it
        self._lock = threading.Lock()

    def all(self) -> list[Shown]:
        """Every run, the one that last wrote first."""
        with self._lock:
            runs = find_runs(self.folder)
            self._read = {run.folder: self._read[run.folder] for run in runs if run.folder in self._read}
            return [self._show(run) for run in runs]

    def get(self, name: str) -> Shown | None:
        """The run of this name, as `tiny/pretrain`; None if there is none."""
        with self._lock:
            return next((self._show(run) for run in find_runs(self.folder) if run.name == name), None)

    def _show(self, run: Run) -> Shown:
        written = 0
        try:
            written = (run.folder / NAME).stat().st_mtime_ns
            if self._damaged.get(run.folder, (None, ""))[0] == written:
                return Shown(run, None, self._damaged[run.folder][1])
            if run.folder not in self._read:
                self._read[run.folder] = Metrics(run.folder)
            metrics = self._read[run.folder].read()
            return Shown(run, metrics, _left_out(metrics))
        except (CamelidError, OSError) as error:
            self._read.pop(run.folder, None)  # what was read of it before must not hide that it is damaged
            self._damaged[run.folder] = (written, str(error))
            return Shown(run, None, str(error))


def _left_out(metrics: Metrics) -> str:
    """Lines that say nothing, as a power cut leaves them."""
    if not metrics.broken:
        return ""
    more = f" and {len(metrics.broken) - 1} more" if len(metrics.broken) > 1 else ""
    return f"{metrics.path}: line {metrics.broken[0]}{more}: neither a step nor an event; left out"


def view(shown: Shown) -> dict[str, Any]:
    """A run as templates show it."""
    return {"name": shown.name, "state": shown.state, "wrong": shown.wrong, "facts": facts(shown)}


def facts(shown: Shown) -> dict[str, str]:
    """How a run stands, in words; what is not known has no row."""
    metrics = shown.metrics
    if metrics is None:
        return {}
    last, steps = metrics.last, metrics.steps
    values: dict[str, Any] = {
        "Loss": _number(last("loss"), ".4f"),
        "Validation loss": _number(last("validation_loss"), ".4f"),
        "Unigram entropy": _number(metrics.about("unigram_entropy"), ".3f"),
        "Step": f"{last('step') or 0:,.0f}" + (f" of {steps:,}" if steps else ""),
        "Time left": duration(last("seconds_left") or 0) if shown.state == "training" and len(metrics) else None,
        "Tokens read": count(last("tokens") or 0),
        "Tokens a second": _number(last("tokens_per_second"), ",.0f"),
        "MFU": _number(last("mfu"), ".0%"),
        "Gradient norm": _number(last("grad_norm"), ".3g"),
        "Learning rate": _number(last("lr"), ".3g"),
        "Memory at most": memory(last("memory_bytes") or 0),
        "Time spent": duration(sum(value for value in metrics.columns.get("seconds", ()) if value == value)),
    }
    return {name: value for name, value in values.items() if value}


def panels(shown: list[Shown], against: Against) -> list[Any]:
    """Every metric that some run has, drawn against `step`, `tokens` or `time`."""
    runs = [(one.name, one.metrics) for one in shown if one.metrics is not None]
    found = [panel(name, runs, against) for name in CURVES if name not in ("validation_loss", "seconds")]
    return [one for one in found if one is not None]


def table(shown: Shown) -> list[dict[str, str]]:
    """The curves as numbers: some steps of the run, evenly taken, the last one among them."""
    metrics = shown.metrics
    if metrics is None or not len(metrics):
        return []
    n, rows = len(metrics), min(_TABLE_ROWS, len(metrics))
    places = sorted({(n - 1) * row // max(1, rows - 1) for row in range(rows)})
    forms = {"step": ",.0f", "loss": ".4f", "validation_loss": ".4f", "grad_norm": ".3g", "lr": ".3g"}
    forms |= {"tokens_per_second": ",.0f"}
    columns = {name: metrics.columns.get(name) for name in forms}
    return [
        {name: "–" if column is None else _number(column[at], forms[name]) or "–" for name, column in columns.items()}
        for at in places
    ]


def checkpoints(shown: Shown) -> list[dict[str, Any]]:
    """Kept states, the newest first, with what was measured at their steps."""
    losses, looks = (_values(shown, field) for field in ("loss", "validation_loss"))
    return [
        {
            "name": one.name,
            "step": f"{one.step:,}",
            "tokens": count(one.tokens),
            "loss": _number(losses.get(one.step), ".4f") or "–",
            "validation": _number(looks.get(one.step), ".4f") or "–",
        }
        for one in reversed(shown.run.checkpoints())
    ]


def recipe_difference(one: Shown, other: Shown) -> str:
    """What the second run's recipe changes in the first one's; empty if nothing."""
    mine, theirs = (shown.run.recipe().splitlines() for shown in (one, other))
    return "\n".join(difflib.unified_diff(mine, theirs, one.name, other.name, n=1, lineterm=""))


def _values(shown: Shown, field: str) -> dict[float, float]:
    """Step → value."""
    if shown.metrics is None or field not in shown.metrics.columns:
        return {}
    return dict(zip(*shown.metrics.points(field), strict=True))


def _number(value: float | None, form: str) -> str | None:
    return None if value is None or value != value else format(value, form)
