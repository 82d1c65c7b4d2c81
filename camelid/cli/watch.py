"""A run while it goes on: a line on a terminal, and now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from camelid.evals.loop import Progress
from camelid.evals.report import figure_text, time_text
from camelid.streams import printable

if TYPE_CHECKING:
    from rich.console import Console

_EVERY = 30.0  # seconds between two lines where there is no terminal


class Watch:
    """Called with the run's progress; draws one line that changes, or lines one after the other."""

    def __init__(self, task: str, model: str, console: Console) -> None:
        self._title, self._console = f"{task}  {model}", console
        self._live = sys.stderr is not None and sys.stderr.isatty()
        self._next = time.monotonic() + _EVERY

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def __call__(self, progress: Progress) -> None:
        line = f"{printable(self._title)}  {progress.done:,}/{progress.total:,}"
        if progress.seconds_left is not None:
            line += f"  {time_text(progress.seconds_left)} left"
        shown = [f"{name} {figure_text(figure)}" for name, figure in list(progress.figures.items())[:2]]
        line += "".join(f"  {each}" for each in shown)
        if self._live:
            width = self._console.width
            print(f"\r\x1b[K{line[: width - 1]}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVERY
            print(line, file=sys.stderr, flush=True)
