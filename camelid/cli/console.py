"""What verbs say on standard error: lines, a word while something is loaded, bars; and results as JSON."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from camelid.streams import printable, write_json

if TYPE_CHECKING:
    from rich.console import Console

print_json = write_json


class _Console:
    """rich's console on standard error, loaded when something is said: the first text must not wait for it."""

    @cached_property
    def _console(self) -> Console:
        from camelid.console import Terminal

        return Terminal(stderr=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._console, name)

    def __enter__(self) -> Console:
        return self._console.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._console.__exit__(*error)


stderr = cast("Console", _Console())


@contextmanager
def saying(text: str) -> Iterator[None]:
    """A word on a terminal while something is loaded, gone when that is done."""
    shown = sys.stderr.isatty()
    if shown:
        print(f"{printable(text)} …", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


class progress_bar:  # noqa: N801 - used as a function
    """A context that gives a callback (name, done, total) drawn as bars on standard error."""

    def __init__(self) -> None:
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self._progress = Progress(*columns, TimeRemainingColumn(), console=stderr, transient=False)
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Callable[[str, int, int | None], None]:
        return self._show

    def __exit__(self, *error: object) -> None:
        if self._tasks:
            self._progress.stop()

    def _show(self, name: str, done: int, total: int | None) -> None:
        self._progress.start()  # not before there is something to see
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(printable(name), total=total)
        self._progress.update(self._tasks[name], completed=done, total=total)
