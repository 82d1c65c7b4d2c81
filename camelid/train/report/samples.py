"""samples.jsonl: answers of the weights as they were after some steps, to the same prompts each time.

A line has `step`, `prompt`, `answer`, `finished` (the model ended it; else it was cut) and `tokens`. After a resume
the file goes on; steps that were trained again are written again, and the last line counts. No torch here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from camelid.run_layout import SAMPLES

_MOST = 4_000_000  # bytes of a file's end that are read: pages ask every two seconds


@dataclass(frozen=True)
class Sample:
    """An answer.

    Attributes:
        step: the last one in the weights.
        finished: the model ended it; else it was cut.
    """

    step: int
    prompt: str
    text: str
    finished: bool


def read_samples(folder: Path) -> list[Sample]:
    """All samples of a stage in order of steps; what cannot be read is left out."""
    try:
        with (folder / SAMPLES).open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _MOST))
            lines = file.read().splitlines()
    except OSError:
        return []
    found: dict[tuple[int, str], Sample] = {}
    for line in lines:
        try:
            row = json.loads(line)
            step, prompt, text = row["step"], row["prompt"], row["answer"]
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        if isinstance(step, int) and isinstance(prompt, str) and isinstance(text, str):
            found[step, prompt] = Sample(step, prompt, text, bool(row.get("finished")))
    return sorted(found.values(), key=lambda sample: sample.step)
