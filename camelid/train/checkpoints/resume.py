"""Whether a recipe may go on from a checkpoint: what it says now must be what has been trained so far. No torch here.

May change, because no step that lies behind would have been another: how often is saved, shown and validated, how
work is cut among devices, and the learning rate's future. A step more or less under `wsd` moves no rate of its stable
part; under `cosine` it moves every rate, so there it is refused. What a stage adds to these options must stay.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from camelid.errors import OptionError
from camelid.model.config import ModelConfig
from camelid.train.options import OptimOptions, RunOptions
from camelid.train.schedule import learning_rate

SCHEDULE = ("preset", "steps", "lr", "schedule", "min_lr_ratio", "warmup_steps", "decay_share")
MAY_CHANGE = {"micro_rows", *(RunOptions.model_fields.keys() - OptimOptions.model_fields.keys())}
_LOOKS = 1000  # at most so many rates of the past are compared


def check_same(
    checkpoint: Path,
    record: Mapping[str, Any],
    stage: str,
    options: RunOptions,
    config: ModelConfig,
    data: str,
    seed: int,
    start: str | None = None,
) -> None:
    """Refuse to go on with something else than what made a checkpoint.

    Args:
        checkpoint: for the message.
        record: its checkpoint.json.
        stage: its name, for the message too.
        options, config, data (fingerprint of the batches), seed, start (of the model it begins from): of now.

    Raises:
        OptionError: names every option that differs, with both values.
    """
    then, now = record["options"], options.model_dump(mode="json")
    fixed = [name for name in now if name not in (*SCHEDULE, *MAY_CHANGE)]
    changed = [_words(f"{stage}.{name}", then.get(name), now[name]) for name in fixed if then.get(name) != now[name]]
    if record["seed"] != seed:
        changed.append(_words("seed", record["seed"], seed))
    shape = as_json(config)
    before = {field.name: field.default for field in dataclasses.fields(config)} | record[
        "model"
    ]  # older ones say less
    changed += [_words(f"model.{name}", before[name], shape[name]) for name in shape if before[name] != shape[name]]
    changed += _rates(then, stage, options, record["step"])
    if record.get("start") != start:
        changed.append("the model that it began from is not the one it would begin from now")
    if not changed and record["data"] != data:
        changed.append("the prepared data is not the same")
    if changed:
        raise OptionError(
            f"{checkpoint}: cannot go on, because {'; '.join(changed)}; put it back, give the recipe another name, "
            "or start at step 0 with --fresh"
        )


def as_json(config: ModelConfig) -> dict[str, Any]:
    """A model's shape in JSON's values."""
    return dict(json.loads(json.dumps(dataclasses.asdict(config))))


def _rates(then: Mapping[str, Any], stage: str, options: RunOptions, step: int) -> list[str]:
    """What of the schedule differs, if a rate that was used would be another now."""
    now = options.model_dump(mode="json")
    names = [name for name in SCHEDULE if name in then and then[name] != now[name]]
    if not names:
        return []
    past = type(options)(**{**now, **{name: then[name] for name in SCHEDULE if name in then}})
    steps = range(1, step + 1, max(1, step // _LOOKS))
    if all(learning_rate(past, number) == learning_rate(options, number) for number in (*steps, step)):
        return []
    words = [_words(f"{stage}.{name}", then[name], now[name]) for name in names]
    return [", ".join(words) + ", which changes learning rates that were used already"]


def _words(name: str, then: Any, now: Any) -> str:
    return f"{name} was {then}, is {now}"
