"""Serve the leaderboard of a published log: plots, votes and texts to look at, nothing to vote on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from camelid.cli.console import saying, stderr
from camelid.cli.flags import takes
from camelid.serve.options import ServeOptions
from camelid.streams import literal

if TYPE_CHECKING:
    from camelid.arena.board.source import LogSource


@takes("options", ServeOptions, without=("api_keys", "cors_origins", "allowed_hosts", "data", "database"))
def run(
    logs: Annotated[list[Path], typer.Argument(metavar="LOG...", help="Votes, in any form that is known.")],
    *,
    config: Annotated[Path | None, typer.Option(help="An arena.toml: what is known of the models.")] = None,
    snapshots: Annotated[Path | None, typer.Option(help="Folder in which the board of each day is kept.")] = None,
    options: ServeOptions,
) -> None:
    """Ratings, filters and plots are those of a live arena's leaderboard. Ctrl-C ends it."""
    from camelid.arena.board.alone import board_app
    from camelid.arena.board.routes import board_routers
    from camelid.evals.browsing import ResultStore
    from camelid.serve.pages.benchmarks.routes import benchmarks_router
    from camelid.serve.server import Server, listen

    listener, url = listen(options)
    with listener:
        with saying(f"reading {', '.join(map(str, logs))}"):
            source = log_source(logs, config)
        results = ResultStore(options.results or Path("results"))
        routers = board_routers(source, results=results, snapshots=snapshots)
        app = board_app([*routers, benchmarks_router(results)], options)
        show = f"\n[bold]{url}/leaderboard[/]  [dim]{len(source.battles):,} votes of {literal(source.name)}[/]\n"
        Server(app, options, lambda: stderr.print(show, soft_wrap=True)).run(sockets=[listener])


def log_source(logs: list[Path], config: Path | None) -> LogSource:
    """Votes, texts and facts of files."""
    from camelid.arena.app import facts_of
    from camelid.arena.board.source import Facts, LogSource, Text
    from camelid.arena.config import read_config
    from camelid.arena.logs import read_battles, read_texts

    facts: list[Facts] = facts_of(read_config(config)) if config is not None else []

    def texts() -> Iterator[Text]:
        for each in read_texts(logs):
            sides = [
                [(str(said["role"]), str(said["content"])) for said in side]
                for side in (each.conversation_a, each.conversation_b)
            ]
            yield Text(each.id, each.model_a, each.model_b, *sides)

    return LogSource(read_battles(logs), texts, facts, ", ".join(path.name for path in logs))
