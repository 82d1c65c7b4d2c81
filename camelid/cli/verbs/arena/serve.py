"""Serve an arena: battles between models without names, votes, and a leaderboard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from camelid.cli.console import saying, stderr
from camelid.cli.flags import takes
from camelid.serve.options import ServeOptions
from camelid.streams import literal

if TYPE_CHECKING:
    from camelid.arena.config import ArenaConfig
    from camelid.serve.models import Models

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", help="The arena's models and rules, as TOML; the default model at two temperatures if not given."
    ),
]


@takes("options", ServeOptions, without=("api_keys", "cors_origins", "allowed_hosts"))
def run(
    *,
    config: ConfigFile = None,
    api_key: Annotated[
        list[str] | None, typer.Option(help="A key that everybody must bring; several may be given.")
    ] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="A name that a proxy calls the server by; several too, or *.")
    ] = None,
    options: ServeOptions,
) -> None:
    """Models are camelid's own or any servers that speak OpenAI's API. Ctrl-C lets running answers finish."""
    from camelid.arena.app import arena_app
    from camelid.arena.config import read_config
    from camelid.serve.server import listen, serve_app

    arena = read_config(config)
    options = with_database(options).with_(api_keys=tuple(api_key or ()), allowed_hosts=tuple(allowed_host or ()))
    listener, url = listen(options)  # before models are loaded: a port in use is told at once
    with listener:
        models = load_models(arena, options)
        app = arena_app(arena, models, options)
        serve_app(app, models, options, listener, lambda: _show(arena, url))


def with_database(options: ServeOptions) -> ServeOptions:
    """With a file of the arena's own, where no database is named."""
    from camelid.hub.store import home

    if options.database is None and options.data is None:
        return options.with_(data=home() / "arena.db")
    return options


def load_models(arena: ArenaConfig, options: ServeOptions) -> Models:
    """Those of camelid's engine."""
    from camelid.chat.load import load
    from camelid.serve.models import Models
    from camelid.serve.worker import Worker

    workers = []
    for model in arena.models:
        if model.is_endpoint:
            model.key()  # a key that is missing is told before anything is loaded
            continue
        with saying(f"loading {model.source}"):
            llama = load(model.source, backend=model.backend, options=arena.engine, chat_format=model.chat_format)
        workers.append(Worker(model.name, llama, options.max_waiting))
    return Models(workers) if workers else Models.none()


def _show(arena: ArenaConfig, url: str) -> None:
    lines = [f"\n[bold]{url}[/]  [dim]{literal(arena.name)}: battles, votes, leaderboard[/]"]
    for model in arena.models:
        where = literal(model.url) if model.is_endpoint else "here"
        lines.append(f"  [bold cyan]{literal(model.name)}[/]  {where}, weight {model.weight:g}")
    lines.append("  [dim]Ctrl-C ends it; running answers finish first.[/]\n")
    stderr.print("\n".join(lines), soft_wrap=True)
