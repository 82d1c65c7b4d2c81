"""Draw a log's board: intervals, wins of each pair, battle counts, average win rate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camelid.arena.ratings.options import RateOptions
from camelid.cli.console import print_json, saying
from camelid.cli.options import Json
from camelid.cli.verbs.arena.rate import rated
from camelid.streams import write


def run(
    logs: Annotated[list[Path], typer.Argument(metavar="LOG…", help="Files of votes, in any form that is known.")],
    *,
    out: Annotated[Path, typer.Option(help="A folder for the pictures.")],
    kind: Annotated[str, typer.Option(help="Of picture: png, svg or pdf.")] = "png",
    models: Annotated[int, typer.Option(help="The best so many.")] = 25,
    method: Annotated[str, typer.Option(help="How they are rated, as in camelid arena rate.")] = "bt",
    json: Json = False,
) -> None:
    """Pictures are called intervals, wins, counts and win-rate. Wins are shares among battles that were no tie: a
    pair's two shares sum to 1. Needs matplotlib, the extra `plots`."""
    from camelid.arena.plots import plot_battles

    battles, board = rated(logs, RateOptions(method=method))
    with saying("drawing"):
        paths = plot_battles(battles, board, out, kind, models)
    if json:
        print_json({"out": [str(path) for path in paths], "n_votes": board.n_votes, "models": len(board.rows)})
        return
    write("".join(f"{path}\n" for path in paths))
