"""The folders that training leaves: which runs there are, how far they came, which checkpoints they keep.

Reads only; no torch.
"""

from __future__ import annotations

import json
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from camelid.errors import CamelidError, MissingError, OptionError
from camelid.parsing import parse_toml
from camelid.run_layout import CHECKPOINT, DATA, METRICS, RECIPE, checkpoint_step, complete_checkpoints
from camelid.train.report.metrics import Metrics

_SILENT_SECONDS = 60.0
_STAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

State = Literal["training", "done", "stopped"]
Standing = Literal["waiting", "preparing", "training", "done", "stopped"]
"""Of a stage in a life: before it trains, nothing is there of it yet, or what it learns from is."""


@dataclass(frozen=True)
class Checkpoint:
    """A saved state of a run: a model folder."""

    path: Path
    step: int
    tokens: int

    @property
    def name(self) -> str:
        """Of the folder, as `step1000-tokens4M`."""
        return self.path.name


@dataclass(frozen=True)
class Run:
    """One stage of a run, as `runs/tiny/pretrain`.

    Attributes:
        folder: of the stage.
    """

    folder: Path

    @property
    def name(self) -> str:
        """Run and stage, as `tiny/pretrain`."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def data(self) -> Path:
        """The folder of the documents and tokens that it reads: its own, else the run's."""
        own = self.folder / DATA
        return own if own.is_dir() else self.folder.parent / DATA

    def recipe(self) -> str:
        """The recipe as it was resolved, in TOML; empty if there is none."""
        try:
            return (self.folder.parent / RECIPE).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return ""

    def checkpoints(self) -> list[Checkpoint]:
        """Complete checkpoints, the first one first; a damaged note of one is passed over."""
        checkpoints = []
        for path in complete_checkpoints(self.folder):
            try:
                record = json.loads((path / CHECKPOINT).read_text(encoding="utf-8"))
                step, tokens = int(record["step"]), int(record["tokens"])
                if 0 <= step < 2**53 and 0 <= tokens < 2**63:
                    checkpoints.append(Checkpoint(path, step, tokens))
            except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
                continue
        return sorted(checkpoints, key=lambda checkpoint: checkpoint.step)


def find_runs(folder: Path) -> list[Run]:
    """Every stage of every run in a folder such as `runs`, the one that last wrote first."""
    notes = [path for path in folder.glob(f"*/*/{METRICS}") if path.is_file()]
    return [Run(path.parent) for path in sorted(notes, key=_changed, reverse=True)]


@dataclass(frozen=True)
class LifeStage:
    """A stage in the life of a model.

    Attributes:
        run: of it; its folder need not be there.
        metrics: what is on record; None before its first session, or where that cannot be read.
        standing: how far it is.
        wrong: why nothing could be read; empty if nothing is wrong.
    """

    run: Run
    metrics: Metrics | None
    standing: Standing
    wrong: str = ""

    @property
    def name(self) -> str:
        """Of the stage, as ppo-2."""
        return self.run.folder.name


def stage_names(run: Path) -> list[str]:
    """The stages of a run in order: as its recipe says, and any other that has a record."""
    named: list[str] = []
    with suppress(OSError, ValueError, AttributeError):  # it has no recipe yet, or none that can be read
        said = parse_toml((run / RECIPE).read_text(encoding="utf-8")).get("stages", [])
        named = [name for name in said if isinstance(name, str) and _STAGE.fullmatch(name)]
    notes = sorted(run.glob(f"*/{METRICS}"), key=_changed)
    return list(dict.fromkeys([*named, *(note.parent.name for note in notes)]))


def life(run: Path) -> list[LifeStage]:
    """The stages of a run in order, each with what is on record of it."""
    stages = []
    for name in stage_names(run):
        one = Run(run / name)
        if not (one.folder / METRICS).is_file():
            stages.append(LifeStage(one, None, "preparing" if one.folder.is_dir() else "waiting"))
            continue
        try:
            metrics = Metrics(one.folder).read()
            stages.append(LifeStage(one, metrics, state(metrics)))
        except (CamelidError, OSError) as error:
            stages.append(LifeStage(one, None, "stopped", str(error)))
    return stages


def open_run(path: Path | str) -> Run:
    """The run that a path means: a run's folder with one stage, a stage's, or a checkpoint's.

    Raises:
        MissingError: there is no run.
        OptionError: the run has several stages.
    """
    path = Path(path)
    for folder in (path, path.absolute().parent):
        if (folder / METRICS).is_file() and (folder == path or checkpoint_step(path.name) is not None):
            return Run(folder.resolve())
    stages = sorted(note.parent for note in path.glob(f"*/{METRICS}"))
    if len(stages) > 1:
        raise OptionError(f"{path}: has several stages; say which: {', '.join(map(str, stages))}")
    if not stages:
        raise MissingError(f"{path}: no run; give a folder that `camelid train` has made, as runs/tiny")
    return Run(stages[0].resolve())


def state(metrics: Metrics, now: float | None = None) -> State:
    """Whether a run is done, still writes, or has been left: a minute, or five of its steps, without a word."""
    steps = metrics.columns["step"]
    if len(steps) and metrics.steps is not None and steps[-1] >= metrics.steps:
        return "done"
    if metrics.events and metrics.events[-1]["event"] == "stop":
        return "stopped"
    seconds = metrics.columns["seconds"][-1] if len(steps) and "seconds" in metrics.columns else 0
    silent = (time.time() if now is None else now) - _changed(metrics.path)
    return "training" if silent < max(_SILENT_SECONDS, 5 * seconds) else "stopped"


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
