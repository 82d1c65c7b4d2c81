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
from camelid.train.report.curves import BEST_OF, Against, best_of, curve_of, drawn, own
from camelid.train.report.metrics import NAME, Metrics
from camelid.train.report.samples import read_samples
from camelid.train.report.units import count, duration, memory
from camelid.train.runs import LifeStage, Run, State, find_runs, life, state

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


class RunStore:
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

    def life(self, name: str) -> list[LifeStage]:
        """The stages of a run in order; none if there is no such run."""
        with self._lock:
            found = any(run.folder.parent.name == name for run in find_runs(self.folder))
        return life(self.folder / name) if found else []

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
        **{words(name): _number(last(name), ".4g") for name in own(metrics.columns)},
        **_answers(metrics.about("answers")),
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


def _answers(made: Any) -> dict[str, str]:
    """What is to be known of the answers that a stage wrote before it learned them."""
    if not isinstance(made, dict):
        return {}
    numbers = {name: value for name, value in made.items() if isinstance(value, int | float) and value == value}
    return {words(name): f"{value:,}" if isinstance(value, int) else f"{value:.4g}" for name, value in numbers.items()}


def words(name: str) -> str:
    """What a field is called in a table."""
    title = curve_of(name).title
    return title[:1].upper() + title[1:]


def life_view(stage: LifeStage, against: Against) -> dict[str, Any]:
    """A stage of a life as templates show it."""
    shown = Shown(stage.run, stage.metrics, stage.wrong)
    metrics = stage.metrics
    steps = (int(metrics.last("step") or 0), metrics.steps) if metrics is not None and metrics.steps else None
    told = facts(shown)
    skipped = ("Step", "Time left", "Tokens read", "Tokens a second", "MFU", "Gradient norm", "Learning rate")
    kept = [name for name in told if name not in (*skipped, "Memory at most", "Time spent", "Unigram entropy")]
    return {
        "name": stage.name,
        "state": stage.standing,
        "link": stage.run.name if metrics is not None else "",
        "steps": steps,
        "says": ", ".join(f"{name[:1].lower()}{name[1:]} {told[name]}" for name in kept[:4]),
        "wrong": stage.wrong,
        "panels": panels([shown], against),
        "samples": samples_view(stage.run),
    }


def samples_view(run: Run, most: int = 12) -> dict[str, Any]:
    """Answers of the same prompts over time: the prompts, and by step the answers; some steps, evenly taken."""
    found = read_samples(run.folder)
    steps = sorted({sample.step for sample in found})
    if len(steps) > most:
        steps = sorted({steps[(len(steps) - 1) * number // (most - 1)] for number in range(most)})
    prompts = list(dict.fromkeys(sample.prompt for sample in found))
    by_place = {(sample.step, sample.prompt): sample for sample in found}
    return {
        "prompts": prompts,
        "rows": [(step, [by_place.get((step, prompt)) for prompt in prompts]) for step in steps],
    }


def panels(shown: list[Shown], against: Against) -> list[Any]:
    """Every metric that some run has, drawn against `step`, `tokens` or `time`."""
    runs = [(run.name, run.metrics) for run in shown if run.metrics is not None]
    names = drawn(metrics for _, metrics in runs)
    best = [BEST_OF] if any(best_of(metrics) for _, metrics in runs) else []
    made = (panel(name, runs, against) for name in [*names[:1], *best, *names[1:]])
    return [each for each in made if each is not None]


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
    losses, validation = (_values(shown, field) for field in ("loss", "validation_loss"))
    return [
        {
            "name": saved.name,
            "step": f"{saved.step:,}",
            "tokens": count(saved.tokens),
            "loss": _number(losses.get(saved.step), ".4f") or "–",
            "validation": _number(validation.get(saved.step), ".4f") or "–",
        }
        for saved in reversed(shown.run.checkpoints())
    ]


def recipe_difference(first: Shown, second: Shown) -> str:
    """What the second run's recipe changes in the first one's; empty if nothing."""
    before, after = (shown.run.recipe().splitlines() for shown in (first, second))
    return "\n".join(difflib.unified_diff(before, after, first.name, second.name, n=1, lineterm=""))


def _values(shown: Shown, field: str) -> dict[float, float]:
    """Step → value."""
    if shown.metrics is None or field not in shown.metrics.columns:
        return {}
    return dict(zip(*shown.metrics.points(field), strict=True))


def _number(value: float | None, form: str) -> str | None:
    return None if value is None or value != value else format(value, form)
