"""Votes of models whose strengths are known, and what intervals are worth."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camelid.cli.console import print_json, saying, stderr
from camelid.cli.options import Json
from camelid.cli.ratings import ratings_by_name
from camelid.console import Terminal
from camelid.errors import OptionError
from camelid.streams import literal, write

if TYPE_CHECKING:
    from camelid.arena.battles import Battles
    from camelid.arena.coverage import Covered

SPREAD = 300.0  # points between the best and the worst model where no strengths are given


def run(
    *,
    strength: Annotated[
        list[str] | None, typer.Option(metavar="NAME=RATING", help="A model's strength on Elo's scale; repeated.")
    ] = None,
    models: Annotated[int, typer.Option(help="So many, 300 points from first to last, if none is given.")] = 10,
    votes: Annotated[int, typer.Option(help="Of each board.")] = 2000,
    ties: Annotated[float, typer.Option(help="Chance of a tie between equals.")] = 0.2,
    outcome: Annotated[str, typer.Option(help="How ties come about: half-wins, davidson or rao-kupper.")] = "half-wins",
    voters: Annotated[int, typer.Option(help="So many people; 0: not said.")] = 0,
    active: Annotated[float, typer.Option(help="Share of pairs drawn where a vote tells most.")] = 0.0,
    boards: Annotated[int, typer.Option(help="Rate so many boards and count the intervals that hold the truth.")] = 100,
    method: Annotated[str, typer.Option(help="How they are rated: bt or bt-ties.")] = "bt",
    seed: Annotated[int, typer.Option(help="Of the first board.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write one board's votes here as JSON lines; rate none.")] = None,
    attack: Annotated[
        str | None, typer.Option(help="With --out: votes that lift a model: fresh, cloned or omnipresent.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="The model that --attack lifts; the last one if left out.")] = None,
    attack_share: Annotated[float, typer.Option(help="Votes of the attack, as a share of the honest ones.")] = 0.05,
    json: Json = False,
) -> None:
    """Without --out, says how many of the 95 % intervals held the truth, how wide they were, and how far ratings were
    off. The same command gives the same votes."""
    strengths = ratings_by_name("strength", strength) or _spread(models)
    how: dict[str, Any] = {"ties": ties, "outcome": outcome, "active": active, "seed": seed}
    if out is None:
        if attack is not None:
            raise OptionError("--attack: needs --out, a file for the votes", param="attack")
        _coverage(strengths, votes, boards, method, how, json)
        return
    from camelid.arena.simulate import simulate

    battles = simulate(strengths, votes, voters=voters, **how)
    if attack is not None:
        from camelid.arena.fraud.rigging import rig

        aim = target or min(strengths, key=lambda name: strengths[name])
        battles = rig(battles, aim, round(attack_share * votes), attack, seed=seed)
    _write(out, battles)
    if json:
        print_json({"path": str(out), "n_votes": len(battles), "strengths": strengths})
    else:
        stderr.print(f"{len(battles):,} votes written: ", end="")
        write(f"{out}\n")


def _spread(models: int) -> dict[str, float]:
    if models < 2:
        raise OptionError(f"--models: at least 2, got {models}", param="models")
    return {f"model {k + 1:0{len(str(models))}}": 1000 + SPREAD / 2 - SPREAD * k / (models - 1) for k in range(models)}


def _coverage(
    strengths: dict[str, float], votes: int, boards: int, method: str, how: dict[str, Any], json: bool
) -> None:
    from camelid.arena.coverage import coverage
    from camelid.arena.ratings import RateOptions

    with saying("rating"):
        found = coverage(strengths, votes, boards, RateOptions(method=method), **how)
    if not json:
        _show(found, votes)
        return
    rows = [
        {"name": name, "strength": true, "held": found.held[name], "half_width": found.half_width[name]}
        | {"error": found.error[name]}
        for name, true in found.strengths.items()
    ]
    print_json({"boards": boards, "votes": votes, "method": method, "held": found.share, "models": rows})


def _show(found: Covered, votes: int) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("Model", "Strength", "Held", "Interval", "Off by"):
        table.add_column(title, justify="left" if title == "Model" else "right")
    for name, true in found.strengths.items():
        cells = (f"{found.held[name]:.1%}", f"± {found.half_width[name]:.1f}", f"{found.error[name]:.1f}")
        table.add_row(literal(name), f"{true:.0f}", *cells)
    console = Terminal()
    console.print(table)
    console.print(f"\n{found.share:.1%} of the 95 % intervals of {found.boards} boards, {votes:,} votes each, held")


def _write(path: Path, battles: Battles) -> None:
    """As LMSYS publishes battles: one JSON object a line."""
    from camelid.arena.battles import WINNERS
    from camelid.files import whole_file, writing

    with writing(path), whole_file(path) as file:
        for k in range(len(battles)):
            row: dict[str, Any] = {
                "model_a": battles.models[battles.a[k]],
                "model_b": battles.models[battles.b[k]],
                "winner": WINNERS[battles.winner[k]],
                "tstamp": float(battles.time[k]),
            }
            if battles.voter[k] >= 0:
                row["judge"] = battles.voters[battles.voter[k]]
            file.write((jsonlib.dumps(row, ensure_ascii=False) + "\n").encode())
