"""Which few votes decide places, whose votes are suspicious, and the board without them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camelid.arena.fraud.options import FraudOptions
from camelid.cli.console import print_json, saying
from camelid.cli.flags import takes
from camelid.cli.options import Json
from camelid.console import Terminal
from camelid.streams import literal

if TYPE_CHECKING:
    from camelid.arena.fraud.influence import Flip
    from camelid.arena.fraud.search import Found
    from camelid.arena.ratings.board import Board

MOST_SHOWN = 20  # suspects, for people


@takes("options", FraudOptions)
def run(
    logs: Annotated[list[Path], typer.Argument(metavar="LOG…", help="Files of votes, in any form that is known.")],
    *,
    places: Annotated[int, typer.Option(min=1, help="Places for which the votes that decide them are sought.")] = 5,
    json: Json = False,
    options: FraudOptions,
) -> None:
    """Nothing is removed: voters are named with reasons, and the board without their votes is shown beside that of all.
    The chance that anybody honest is named, whose taste is near the others', is at most --alarm, over all voters."""
    from camelid.arena.fraud.influence import first_place, neighbours
    from camelid.arena.fraud.search import find_fraud
    from camelid.arena.logs import read_battles
    from camelid.arena.ratings import rate

    with saying("reading"):
        battles = read_battles(logs)
    with saying("searching"):
        first, flips = first_place(battles), neighbours(battles, places)
        found = find_fraud(battles, options)
    boards = rate(battles), rate(battles.take(~found.suspicious))
    if json:
        decide = [_flip(each) for each in flips if each is not None]
        print_json(
            {"first_place": None if first is None else _flip(first), "places": decide, **found.as_json()}
            | {"board": boards[0].as_json(), "board_without": boards[1].as_json()}
        )
        return
    console = Terminal()
    for sentence in _sentences(first, flips, found, len(battles)):
        console.print(sentence, soft_wrap=True)
    console.print()
    console.print(_table(*boards))


def _flip(flip: Flip) -> dict[str, Any]:
    return {
        "upper": flip.upper,
        "lower": flip.lower,
        "votes": flip.votes.tolist(),
        "points_before": flip.before,
        "points_after": flip.after,
    }


def _sentences(first: Flip | None, flips: list[Flip | None], found: Found, n_votes: int) -> list[str]:
    """What was found, in rich's markup."""
    said = []
    if first is not None:
        said.append(
            f"Without {len(first.votes)} of {n_votes:,} votes, {literal(first.lower)} "
            f"stands first instead of {literal(first.upper)}."
        )
    else:
        said.append("No half of the votes decides the first place.")
    for each in flips:
        if each is not None:
            points, votes = f"{each.before:.1f} points above", f"{len(each.votes)} vote{'s' * (len(each.votes) > 1)}"
            said.append(f"  {literal(each.upper)}, {points} {literal(each.lower)}: {votes}")
    said.append(
        f"{len(found.suspects)} of {found.voters} voters are suspicious, {int(found.suspicious.sum())} votes in all; "
        f"that any honest one is named has a chance of at most {found.alarm:.0%}."
    )
    said += [f"  {literal(each.voter)}: {literal('; '.join(each.reasons))}" for each in found.suspects[:MOST_SHOWN]]
    if len(found.suspects) > MOST_SHOWN:
        said.append(f"  … and {len(found.suspects) - MOST_SHOWN} more; --json has all")
    said += [f"  {literal(each)}" for each in found.together]
    return said


def _table(with_all: Board, without: Board) -> Any:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("Rank", "Model", "Rating", "Without", "Rating", "Interval", "Votes"):
        table.add_column(title, justify="left" if title == "Model" else "right")
    others = {row.name: row for row in without.rows}
    for row in with_all.rows:
        other = others.get(row.name)
        cells = ["", "", "", "0"]
        if other is not None:
            bounds = f"{other.lower:.1f} to {other.upper:.1f}"
            cells = [str(other.rank), f"{other.rating:.1f}", bounds, f"{other.votes:,}"]
        table.add_row(str(row.rank), literal(row.name), f"{row.rating:.1f}", *cells)
    return table
