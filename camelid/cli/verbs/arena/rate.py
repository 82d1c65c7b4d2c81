"""Rate the models of a log of votes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from camelid.arena.ratings.options import RateOptions
from camelid.cli.console import print_json, saying, stderr
from camelid.cli.flags import takes
from camelid.cli.options import Json
from camelid.cli.ratings import ratings_by_name
from camelid.console import Terminal
from camelid.streams import literal

if TYPE_CHECKING:
    from camelid.arena.battles import Battles
    from camelid.arena.ratings.board import Board

_DIGITS = {"win-rate": 3, "newman": 3}  # others are points


@takes("options", RateOptions, without=("anchors", "covariates"))
def run(
    logs: Annotated[list[Path], typer.Argument(metavar="LOG…", help="Files of votes, in any form that is known.")],
    *,
    anchor: Annotated[
        list[str] | None, typer.Option(metavar="NAME=RATING", help="A model's rating by definition; may be repeated.")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="A column of the log to take out of the ratings; may be repeated.")
    ] = None,
    json: Json = False,
    options: RateOptions,
) -> None:
    """Ratings are on Elo's scale (400 points: ten to one), 1000 on average where no anchor is given; newman gives
    strengths and win-rate shares. Ranks count the models whose interval lies above. What makes a board say less than it
    seems to is told."""
    anchors = ratings_by_name("anchor", anchor)
    options = options.with_(anchors=anchors, covariates=tuple(column or ()))
    _, board = rated(logs, options)
    if json:
        print_json(board.as_json())
    else:
        _show(board)


def rated(logs: list[Path], options: RateOptions) -> tuple[Battles, Board]:
    """The votes of logs, and their board."""
    from camelid.arena.ratings.rate import rate

    with saying("reading"):
        battles = _read(logs, options)
    return battles, rate(battles, options)


def _read(logs: list[Path], options: RateOptions) -> Battles:
    from camelid.arena.logs import read_battles, read_texts
    from camelid.arena.ratings.style import add_columns, lacking

    battles = read_battles(logs)
    return add_columns(battles, read_texts(logs)) if lacking(battles, options.style, options.category) else battles


def _show(board: Board) -> None:
    from rich.table import Table

    digits = _DIGITS.get(board.method, 1)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("Rank", "Model", "Rating", "Interval", "Votes"):
        table.add_column(title, justify="left" if title == "Model" else "right")
    both = board.rows[0].bootstrap is not None
    if both:
        table.add_column("Bootstrap", justify="right")
    for row in board.rows:
        bounds = [(row.lower, row.upper), *([row.bootstrap] if row.bootstrap else [])]
        sides = [f"+{upper - row.rating:.{digits}f} -{row.rating - lower:.{digits}f}" for lower, upper in bounds]
        cells = [str(row.rank), literal(row.name), f"{row.rating:.{digits}f}", sides[0], f"{row.votes:,}", *sides[1:]]
        table.add_row(*cells)
    console = Terminal()
    console.print(table)
    console.print(f"\n[dim]{board.n_votes:,} votes, {board.method}[/]")
    for each in board.coefficients:
        console.print(f"[dim]{literal(each.name)}: {each.value:+.3f} ({each.lower:+.3f} to {each.upper:+.3f})[/]")
    for sentence in board.warnings:
        stderr.print(f"[yellow]{literal(sentence)}[/]")
