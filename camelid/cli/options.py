"""Flags that several verbs have, and the models that these name, opened with a word about what happens."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camelid.cli.console import progress_bar, saying, stderr
from camelid.errors import OptionError
from camelid.streams import check_text, read_stdin, stdin_is_terminal

if TYPE_CHECKING:
    from camelid.chat.llama import Llama
    from camelid.engine.engine import EngineOptions
    from camelid.engine.request import SamplingParams

ModelName = Annotated[
    str | None, typer.Argument(help="Folder, .gguf file or name; the small default model if left out.")
]
BackendName = Annotated[str, typer.Option(help="numpy, torch, cpu (C++), or auto: the best one here.")]
DraftName = Annotated[
    str | None, typer.Option(help="A smaller model of the same family that guesses the --draft-tokens.")
]
AdapterName = Annotated[
    str | None, typer.Option(help="A LoRA adapter's folder; the model is its base, found by itself if left out.")
]
ChatFormatName = Annotated[
    str | None, typer.Option(help="Chat format, for models that bring no template of their own.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


def TextArgument(what: str) -> Any:  # noqa: N802 - stands where typer's Argument does
    """The argument of verbs that take a text and perhaps a model before it."""
    help_text = "Text in quotes, after -- if it begins with -; read from a pipe if left out."
    return typer.Argument(metavar=f"[MODEL] {what}", help=help_text, show_default=False)


def open_llama(
    model: str | None,
    backend: str,
    options: EngineOptions,
    chat_format: str | None = None,
    draft: str | None = None,
    adapter: str | None = None,
) -> Llama:
    """Load a model; with none named, the adapter's base, or the default one, which is fetched once, saying so."""
    from camelid.chat.load import load

    if model is None and adapter is None:
        model = str(fetch_default())
    with saying(f"loading {' with '.join(name for name in (model, adapter) if name is not None)}"):
        return load(model, adapter=adapter, backend=backend, options=options, chat_format=chat_format, draft=draft)


def check_draft(draft: str | None, params: SamplingParams) -> None:
    """Refuse a draft model that would not be asked, before anything is loaded."""
    if draft is not None and not params.draft_tokens:
        raise OptionError("--draft: not used while --draft-tokens is 0; leave one of them out")


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


def model_and_text(words: list[str] | None, what: str) -> tuple[str | None, str]:
    """`[MODEL] TEXT`: one word is the text, two are the model and the text; a lone pipe is the text."""
    words = list(words or [])
    check_text(words[-1:], what)
    if len(words) > 2:
        raise OptionError(f"{what}: put it in quotes; got {len(words)} words where [MODEL] {what.upper()} was expected")
    if len(words) == 2:
        return words[0], read_stdin() if words[1] == "-" else words[1]
    if words and words[0] != "-":
        return None, words[0]
    if sys.stdin is None or stdin_is_terminal():
        raise OptionError(f"{what}: give it in quotes, or through a pipe")
    return None, read_stdin()
