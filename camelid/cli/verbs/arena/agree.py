"""How far judges and people agree, or people among themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from camelid.cli.console import print_json
from camelid.cli.options import Json
from camelid.console import Terminal

if TYPE_CHECKING:
    from camelid.arena.judging.agreement import Estimate


def run(
    log: Annotated[Path, typer.Argument(help="Votes, as of people.")],
    other: Annotated[Path | None, typer.Argument(help="Votes of others, as of a judge; none: LOG's own.")] = None,
    *,
    by: Annotated[
        Literal["question", "battle"], typer.Option(help="Votes meet by question and models, or by the battle's id.")
    ] = "question",
    resamples: Annotated[int, typer.Option(min=2, help="Of the bootstrap.")] = 1000,
    json: Json = False,
) -> None:
    """As MT-bench's paper counts it: the chance that two votes are equal, with ties (S1) and without (S2); besides
    Cohen's kappa and Krippendorff's alpha, all with 95 % intervals."""
    from camelid.arena.judging.agreement import agreement, blind_votes

    first = blind_votes(log)
    second = None if other is None else blind_votes(other)
    found = [agreement(first, second, ties, by, resamples) for ties in (True, False)]
    if json:
        print_json({"agreement": [each.as_json() for each in found]})
        return
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("Setup", "Units", "Pairs of votes", "Per vote", "Per pair", "Kappa", "Alpha"):
        table.add_column(title, justify="right")
    for each in found:
        figures = [_said(value) for value in (each.per_vote, each.per_pair, each.kappa, each.alpha)]
        table.add_row(each.setup, f"{each.units:,}", f"{each.pairs:,}", *figures)
    Terminal().print(table)


def _said(value: Estimate) -> str:
    return f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"
