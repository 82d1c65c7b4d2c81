"""All stages of a recipe, one after another: each begins from the newest checkpoint of one before it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from camelid.errors import CamelidError, OptionError
from camelid.pedigree import read_pedigree
from camelid.recipe import TABLES, Recipe, stage_kind
from camelid.run_layout import newest_checkpoint
from camelid.train.checkpoints import store
from camelid.train.checkpoints.resume import MAY_CHANGE
from camelid.train.checkpoints.start import start_fingerprint
from camelid.train.events import Event, Skipped, Step, Stopped
from camelid.train.run import train
from camelid.train.run_stage import RunStage
from camelid.train.stages import load_stage


def chosen_stages(recipe: Recipe, name: str | None) -> tuple[str, ...]:
    """The stages that a command goes through: all of the recipe's, or the one named.

    Raises:
        OptionError: the recipe has no such stage, or ranks are shared out in another way in one of them.
    """
    names = recipe.chosen(name)
    shared = {each: recipe.stage_table(each, load_stage(each).Options).tensor_parallel for each in names}
    if len(set(shared.values())) > 1:
        said = ", ".join(f"{each} {ranks}" for each, ranks in shared.items())
        raise OptionError(f"tensor_parallel: must be the same in all stages of one command ({said}); or give --stage")
    return names


def live(
    stages: Sequence[RunStage], *, stop_after: int | None = None, fresh: bool = False
) -> Iterator[tuple[RunStage, Event | Skipped]]:
    """Train stage after stage; what is finished is passed over, and the first that is not goes on where it stopped.

    Every rank calls this. Whether the last stage is finished, its own files say, read whole.

    Args:
        stages: in order, all with the same ranks.
        stop_after: steps of all of them together after which this session saves and ends.
        fresh: put the checkpoints of all of them aside, and begin at step 0 of the first.

    Returns:
        each event of `train` with its stage; of a stage that was finished before, a `Skipped` alone.

    Raises:
        CamelidError: as `train`.
    """
    if fresh:
        stages[0].parallel.from_first(lambda: _put_aside(stages))
    left = stop_after
    for stage in stages:
        done = None if stage is stages[-1] else stage.parallel.from_first(partial(finished_step, stage))
        if done is not None:
            yield stage, Skipped(done)
            continue
        last: Event | None = None
        for event in train(stage, stop_after=left):
            if left is not None and isinstance(event, Step):
                left -= 1
            last = event
            yield stage, event
        if last is None:
            newest = newest_checkpoint(stage.folder)
            yield stage, Skipped(0 if newest is None else store.read_record(newest)["step"])
        if left == 0 or (isinstance(last, Stopped) and not last.done):
            return


def finished_step(stage: RunStage) -> int | None:
    """The last step of a stage whose newest checkpoint has all of them, if the recipe and the model that it began from
    are what they were; None where `train` must see to it. Cheap: no data and no weights are read."""
    try:
        newest = newest_checkpoint(stage.folder)
        if newest is None:
            return None
        record, made = store.read_record(newest), read_pedigree(newest)
        if record["step"] < record["options"]["steps"]:
            return None
        if _about(stage, made["options"]) != _about(stage, json.loads(json.dumps(stage.recipe.as_json()))):
            return None
        if "start" in record and record["start"] is not None:
            start = stage.start(_named(stage))
            if start is None or start_fingerprint(start) != record["start"]:
                return None
        return None if _asks_newer(stage, newest) else int(record["step"])
    except (CamelidError, OSError, KeyError, TypeError):
        return None


def _named(stage: RunStage) -> str | None:
    """What its table says that it begins from; None: what comes before it."""
    named = getattr(stage.options(load_stage(stage.name).Options), "start", None)
    return named if isinstance(named, str) else None


def _asks_newer(stage: RunStage, newest: Path) -> bool:
    """Whether another stage that its table names, as a reward model, was saved after it: `train` sees whether that is
    another model then."""
    options = stage.options(load_stage(stage.name).Options).model_dump(mode="json")
    others = [
        newest_checkpoint(stage.run / name)
        for name in options.values()
        if isinstance(name, str) and name in stage.recipe.stages
    ]
    saved = (newest / store.NAME).stat().st_mtime_ns
    return any(other is None or (other / store.NAME).stat().st_mtime_ns > saved for other in others)


def _about(stage: RunStage, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What of a recipe decides about a stage, apart from what may change while it pauses."""
    kept = {name: recipe.get(name) for name in ("seed", "base", *TABLES) if stage.kind == "pretrain" or name == "seed"}
    own = {**recipe.get(stage_kind(stage.name), {}), **recipe.get(stage.name, {})}
    return {**kept, "own": {name: value for name, value in own.items() if name not in MAY_CHANGE}}


def _put_aside(stages: Sequence[RunStage]) -> None:
    for stage in stages:
        with ExitStack() as stack:
            stack.enter_context(store.holding(stage.folder))
            store.begin_anew(stage.folder)
