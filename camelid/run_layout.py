"""The folder of a run: what lies where in it. Each name stands here once.

    runs/tiny/                           the run
    ├── recipe.toml                      as it was resolved
    ├── data/                            made by `camelid prepare`
    │   ├── documents/                   those that stayed
    │   ├── tokenizer/
    │   └── tokens/                      shards
    └── pretrain/                        a stage of training
        ├── metrics.jsonl                its curves and events
        ├── samples.jsonl                answers to the same prompts, over time
        ├── latest -> step2000-tokens8M  the newest checkpoint
        ├── step1000-tokens4M/           a checkpoint: a model folder, and
        │   ├── checkpoint.json          SHA-256 of every other file; written last
        │   └── state/                   what training goes on from
        ├── damaged-step3000-tokens12M/  was not what its checkpoint.json says; kept for its owner, counts for nothing
        └── before/                      checkpoints from before a start with --fresh

How a thing was made lies beside it in run.json (`pedigree.py`); how a folder of data and a folder of checkpoints come
to be, and what is hidden in them meanwhile, is told in `data/folder.py` and in the store of checkpoints in `train/`.
"""

from __future__ import annotations

import re
from pathlib import Path

from camelid.errors import OptionError

RUNS = "runs"
RECIPE = "recipe.toml"
DATA, DOCUMENTS, TOKENIZER, TOKENS = "data", "documents", "tokenizer", "tokens"
METRICS = "metrics.jsonl"
SAMPLES = "samples.jsonl"
LATEST = "latest"
CHECKPOINT = "checkpoint.json"
STATE = "state"
DAMAGED, BEFORE = "damaged-", "before"

_NAME = re.compile(r"step(\d+)(-.*)?")


def checkpoint_name(step: int, tokens: int) -> str:
    """`step1000-tokens4M`; tokens in whole thousands, millions, billions or trillions, rounded down."""
    for power, letter in ((12, "T"), (9, "B"), (6, "M"), (3, "K")):
        if tokens >= 10**power:
            return f"step{step}-tokens{tokens // 10**power}{letter}"
    return f"step{step}-tokens{tokens}"


def checkpoint_step(name: str) -> int | None:
    """The step in a checkpoint's name; None if it is no such name."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def step_folders(stage: Path) -> list[Path]:
    """Folders of a stage that have a checkpoint's name, by step, complete or not; `latest` is none of them."""
    folders = [path for path in stage.glob("step*") if checkpoint_step(path.name) is not None]
    folders = [path for path in folders if path.is_dir() and not path.is_symlink()]
    return sorted(folders, key=lambda path: (checkpoint_step(path.name) or 0, path.name))


def complete_checkpoints(stage: Path) -> list[Path]:
    """Those with their checkpoint.json, by step."""
    return [path for path in step_folders(stage) if (path / CHECKPOINT).is_file()]


def all_checkpoints(path: Path) -> list[Path]:
    """Complete checkpoints of a stage, or of all stages of a run, each stage's by step."""
    own = complete_checkpoints(path)
    return own or [each for stage in sorted(path.glob("*/")) for each in complete_checkpoints(stage)]


def newest_checkpoint(path: Path) -> Path | None:
    """What `latest` means in a stage, or in a run's stage; of several stages, in the one that saved last.

    None if the folder is neither.
    """
    records = [path / LATEST / CHECKPOINT]
    if not records[0].is_file():
        records = [record for record in path.glob(f"*/{LATEST}/{CHECKPOINT}") if record.is_file()]
    newest = max(records, key=lambda record: record.stat().st_mtime_ns, default=None)
    return newest.parent.resolve() if newest is not None and newest.is_file() else None


def named_checkpoint(path: Path) -> Path | None:
    """The checkpoint that the beginning of a name means: `step1000` is `step1000-tokens4M`; None if nothing is like it.

    Raises:
        OptionError: several begin so, or a folder of checkpoints has none that does.
    """
    try:
        checkpoints = complete_checkpoints(path.parent)
    except OSError:  # a name too long for a path is no path
        return None
    same = [folder for folder in checkpoints if folder.name.startswith(f"{path.name}-")]
    if len(same) == 1:
        return same[0]
    if not checkpoints or not path.name.startswith("step"):
        return None
    choices = ", ".join(folder.name for folder in same or checkpoints)
    raise OptionError(
        f"{path}: {'several checkpoints begin so' if same else 'no such checkpoint'}; choose one of {choices}"
    )
