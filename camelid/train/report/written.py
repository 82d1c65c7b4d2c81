"""What a model wrote itself and then learned from: answers of a step, as stages of reinforcement learning keep them.

    ppo/rollouts/step9.0.jsonl      of rank 0; written before step 9, and learned from until the next such file's step
    ppo/rollouts/step9.1.jsonl.gz   of rank 1; packed or not

A line is an answer: `messages`, `answer`, `reward`, and whatever else its stage has measured. No torch here.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from pathlib import Path
from typing import Any

from camelid.errors import FormatError, MissingError
from camelid.train.runs import Run

FOLDER = "rollouts"
_NAME = re.compile(r"step(\d+)\.(\d+)\.jsonl(\.gz)?")


def has_written(run: Run) -> bool:
    """Whether a stage keeps what it wrote."""
    return (run.folder / FOLDER).is_dir()


def answers_of(run: Run, step: int) -> tuple[int, list[dict[str, Any]]]:
    """The answers that a step learned from, and the step before which they were written.

    Raises:
        MissingError: none are kept. FormatError: a file of them is damaged.
    """
    files: dict[int, list[tuple[int, Path]]] = {}
    for path in (run.folder / FOLDER).glob("step*"):
        match = _NAME.fullmatch(path.name)
        if match is not None:
            files.setdefault(int(match[1]), []).append((int(match[2]), path))
    before = [first for first in files if first <= step]
    if not before:
        raise MissingError(f"--step: {run.folder / FOLDER} keeps no answers of step {step}")
    first = max(before)
    return first, [line for _, path in sorted(files[first]) for line in _lines(path)]


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            found = [json.loads(line) for line in file]
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise FormatError(f"{path}: cannot be read ({error}); it was cut by a kill or damaged") from None
    if not all(isinstance(line, dict) for line in found):
        raise FormatError(f"{path}: a line is no object; it was damaged")
    return found
