"""Publish a board with its log, or make preferences for post-training of votes."""

from __future__ import annotations

import json as json_
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from camelid.arena.cleaning.rules import CleanOptions
from camelid.arena.ratings.options import RateOptions
from camelid.cli.console import print_json, saying
from camelid.cli.flags import takes
from camelid.cli.options import Json
from camelid.cli.ratings import ratings_by_name
from camelid.console import Terminal
from camelid.errors import OptionError
from camelid.streams import literal

if TYPE_CHECKING:
    from camelid.arena.cleaning.clean import Cleaned


@takes("options", RateOptions, without=("anchors", "covariates"))
def run(
    logs: Annotated[list[Path], typer.Argument(metavar="LOG…", help="Files of votes, in any form that is known.")],
    *,
    to: Annotated[Path | None, typer.Option(help="A new folder: votes.jsonl, board.json, run.json.")] = None,
    preferences: Annotated[
        Path | None, typer.Option(help="A new file of JSON lines: prompt, chosen, rejected.")
    ] = None,
    columns: Annotated[Path | None, typer.Option(help="A new .battles file, which is read at once.")] = None,
    texts: Annotated[bool, typer.Option("--texts", help="Publish what was said too.")] = False,
    licence: Annotated[str | None, typer.Option(help="Of the texts; goes into each preference.")] = None,
    rules: Annotated[str, typer.Option(help="Of cleaning: default or compat.")] = "default",
    anchor: Annotated[list[str] | None, typer.Option(metavar="NAME=RATING", help="As of rate; several.")] = None,
    json: Json = False,
    options: RateOptions,
) -> None:
    """Voters are published as numbers. `camelid arena verify` makes a published board again. Preferences are battles of
    one turn that were not ties; the others are counted."""
    from camelid.arena.cleaning.candidates import candidates
    from camelid.arena.cleaning.clean import clean
    from camelid.arena.logs import save_battles
    from camelid.arena.publish import publish

    places = [place for place in (to, preferences, columns) if place is not None]
    if not places:
        raise OptionError("export: say what: --to FOLDER, --preferences FILE or --columns FILE")
    if taken := next((place for place in places if place.exists()), None):
        raise OptionError(f"{taken}: is there already; choose another name")
    with saying("reading"):
        cleaned = clean(candidates(logs), CleanOptions(rules=rules))
    told: dict[str, object] = {"n_votes": len(cleaned.judged), "left_out": dict(cleaned.counts)}
    if columns is not None:
        save_battles(cleaned.battles, columns)
    if preferences is not None:
        told["preferences"] = _preferences(cleaned, preferences, logs, licence)
    if to is not None:
        chosen = options.with_(anchors=ratings_by_name("anchor", anchor))
        told["board"] = publish(cleaned, to, chosen, [path for path in logs if path.is_file()], texts).as_json()
    if json:
        print_json(told)
        return
    console = Terminal()
    for place in places:
        console.print(f"written: {literal(str(place))}")
    if preferences is not None:
        counted = told["preferences"]
        console.print(", ".join(f"{literal(name)} {count:,}" for name, count in counted.items()))  # type: ignore[attr-defined]


def _preferences(cleaned: Cleaned, path: Path, logs: list[Path], licence: str | None) -> dict[str, int]:
    """Write what became preferences, and count what did not by reason."""
    from camelid.arena.logs.write import preference_row
    from camelid.files import whole_file
    from camelid.pedigree import write_pedigree

    counts: Counter[str] = Counter()
    with whole_file(path) as file:
        for each in cleaned.judged:
            row = preference_row(each.candidate.vote, each.candidate.conversations) if each.rule is None else each.rule
            if isinstance(row, str):
                counts[f"left out: {row}"] += 1
            else:
                counts["preferences"] += 1
                row = row if licence is None else {**row, "licence": licence}
                file.write(json_.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
    if not counts["preferences"]:
        path.unlink()
        raise OptionError(f"preferences: no vote of this log can be one ({dict(counts)})")
    write_pedigree(
        path, "arena export", [log for log in logs if log.is_file()], {"preferences": True, "licence": licence}, counts
    )
    return dict(counts)
