"""What a run is and what it has read: any step's rows, document by document, from its data and its recorded order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camelid.data.manifest import NAME as MANIFEST
from camelid.data.manifest import read_manifest
from camelid.errors import CamelidError, MissingError, OptionError, VerifyError
from camelid.pedigree import describe_file, read_pedigree
from camelid.recipe import read_recipe
from camelid.run_layout import CHECKPOINT, RECIPE
from camelid.train.options import RunOptions
from camelid.train.report.metrics import read_metrics
from camelid.train.runs import Run, state
from camelid.train.stages import load_stage


@dataclass(frozen=True)
class StepDocuments:
    """The rows of one step.

    Attributes:
        step: its number, from 1.
        trained: whether the run has done it; else it is what it will read.
        context: tokens of a row.
        rows: (number of the row, its documents in order); a document has source, epoch, shard, document, id, url,
            licence, start, stop and text.
    """

    step: int
    trained: bool
    context: int
    rows: Sequence[tuple[int, list[dict[str, Any]]]]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        rows = [{"row": number, "documents": documents} for number, documents in self.rows]
        return {"step": self.step, "trained": self.trained, "context": self.context, "rows": rows}


def documents_of(run: Run, step: int, row: int | None = None) -> StepDocuments:
    """The documents that a step of a run reads, all rows or one of them (from 0).

    Raises:
        MissingError: the run has no recipe or no data.
        OptionError: there is no such step or row.
        VerifyError: the data is not what the run was trained on.
    """
    batches, options = open_batches(run)
    metrics = read_metrics(run.folder)
    steps = metrics.steps or options.steps
    if not 1 <= step <= steps:
        raise OptionError(f"--step: {run.name} has steps 1 to {steps:,}, not {step}")
    rows = list(enumerate(batches.rows_of(step - 1)))  # the first step takes what the order has at 0
    if row is not None and not 0 <= row < len(rows):
        raise OptionError(f"--row: a step of {run.name} has rows 0 to {len(rows) - 1:,}, not {row}")
    done = metrics.last("step") or 0
    return StepDocuments(step, step <= done, options.context, rows if row is None else [rows[row]])


def open_batches(run: Run) -> tuple[Any, RunOptions]:
    """What a run is trained on, as its folder says: `Batches`, or rows of conversations.

    Raises:
        MissingError: it has no recipe or no data.
        OptionError: its steps read what was written while it learned.
        VerifyError: a checkpoint was made from other data or in another order.
    """
    path = run.folder.parent / RECIPE
    if not path.is_file():
        raise MissingError(f"{path}: not there; it says how the run is trained, and comes with its first step")
    recipe = read_recipe(path)
    stage = load_stage(run.folder.name)
    options = recipe.stage_table(run.folder.name, stage.Options)
    batches = stage.reading(run.data, options, recipe.seed)
    if batches is None:
        raise OptionError(f"--step: {run.name} learns from what it wrote itself; no step's number tells what that was")
    for checkpoint in run.checkpoints()[-1:]:
        record = json.loads((checkpoint.path / CHECKPOINT).read_text(encoding="utf-8"))
        same = record.get("data", batches.fingerprint()) == batches.fingerprint()
        if not same and not _names(checkpoint.path, run.data / MANIFEST):
            raise VerifyError(f"{run.data}: not what {checkpoint.path} was trained on; put that data back")
    return batches, options


def _names(checkpoint: Path, manifest: Path) -> bool:
    """Whether a checkpoint was made from this very manifest; a stage's fingerprint may be of more than its data."""
    with suppress(CamelidError):
        stage = load_stage(checkpoint.parent.name)
        return stage.reads_more and describe_file(manifest) in read_pedigree(checkpoint)["inputs"]
    return False


def overview(run: Run) -> dict[str, Any]:
    """How a run stands, what it keeps and what it reads, as plain values for JSON."""
    metrics = read_metrics(run.folder)
    names = ("step", "tokens", "loss", "validation_loss", "tokens_per_second", "mfu", "memory_bytes", "seconds_left")
    about: dict[str, Any] = {"run": run.name, "folder": str(run.folder), "state": state(metrics)}
    about["steps"] = metrics.steps
    about |= {name: metrics.last(name) for name in names}
    about |= {name: metrics.about(name) for name in ("unigram_entropy", "parameters", "device", "ranks", "answers")}
    about["checkpoints"] = [
        {"name": checkpoint.name, "step": checkpoint.step, "tokens": checkpoint.tokens}
        for checkpoint in run.checkpoints()
    ]
    about["sources"] = []
    try:
        for source in read_manifest(run.data).sources:
            row = {"name": source.name, "kind": source.kind, "licence": source.licence, "weight": source.weight}
            about["sources"].append({**row, "documents": source.documents, "tokens": source.tokens})
    except CamelidError as error:
        about["data_error"] = str(error)
    return about
