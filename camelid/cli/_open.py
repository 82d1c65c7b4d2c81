"""What verbs that use a model share: their flags for it, and opening it with a word about what happens."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from camelid.errors import OptionError
from camelid.streams import check_text, printable, read_stdin, stdin_is_terminal, write_json

if TYPE_CHECKING:
    from rich.console import Console

    from camelid.chat.llama import Llama
    from camelid.engine.engine import EngineOptions
    from camelid.engine.request import SamplingParams

Model = Annotated[str | None, typer.Argument(help="Folder, .gguf file or name; the small default model if left out.")]
Backend = Annotated[str, typer.Option(help="numpy, torch, cpu (C++), or auto: the best one here.")]
Draft = Annotated[
    str | None, typer.Option(help="A smaller model of the same family that guesses --draft-tokens ahead.")
]
ChatFormat = Annotated[str | None, typer.Option(help="Chat format, for models that bring no template of their own.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


def Words(what: str) -> Any:  # noqa: N802 - stands where typer's Argument does
    """The argument of verbs that take a text and perhaps a model before it."""
    said = "Text in quotes, one that begins with - behind --; a pipe if left out."
    return typer.Argument(metavar=f"[MODEL] {what}", help=said, show_default=False)


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


def open_llama(
    model: str | None,
    backend: str,
    options: EngineOptions,
    chat_format: str | None = None,
    draft: str | None = None,
) -> Llama:
    """Load a model; with none named, the default one, which is fetched once, saying so."""
    from camelid.chat.load import load

    if model is None:
        model = str(fetch_default())
    with saying(f"loading {model}"):
        return load(model, backend=backend, options=options, chat_format=chat_format, draft=draft)


def check_draft(draft: str | None, params: SamplingParams) -> None:
    """Refuse a draft model that would not be asked, before anything is loaded."""
    if draft is not None and not params.draft_tokens:
        raise OptionError("--draft: guesses nothing while --draft-tokens is 0; add, for example, --draft-tokens 4")


def fetch_default() -> Path:
    """Where the default model lies; fetched first if it is not there yet."""
    from camelid.errors import MissingError
    from camelid.hub.catalog import DEFAULT_MODEL
    from camelid.hub.store import resolve

    try:
        return resolve(DEFAULT_MODEL)
    except MissingError:
        stderr.print(f"No model was named: fetching the default, [bold]{DEFAULT_MODEL}[/], once.")
        return fetch(DEFAULT_MODEL)


def fetch(name: str, **choices: Any) -> Path:
    """Pull a model with a progress bar on standard error."""
    from camelid.hub.pull import pull

    with progress_bar() as show:
        return pull(name, progress=show, **choices)


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


def model_and_text(words: list[str] | None, what: str) -> tuple[str | None, str]:
    """`[MODEL] TEXT`: one word is the text, two are the model and the text; a lone pipe is the text."""
    words = list(words or [])
    check_text(words[-1:], what)
    if len(words) > 2:
        raise OptionError(f"{what}: put it in quotes; got {len(words)} words where [MODEL] {what.upper()} was wanted")
    if len(words) == 2:
        return words[0], read_stdin() if words[1] == "-" else words[1]
    if words and words[0] != "-":
        return None, words[0]
    if sys.stdin is None or stdin_is_terminal():
        raise OptionError(f"{what}: give it in quotes, or through a pipe")
    return None, read_stdin()


print_json = write_json
