"""Say which votes of a log count, and why the others do not."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated

import typer

from camelid.arena.cleaning.rules import CleanOptions
from camelid.cli.console import print_json, saying, stderr
from camelid.cli.flags import takes
from camelid.cli.options import Json
from camelid.console import Terminal
from camelid.errors import OptionError
from camelid.streams import literal


@takes("options", CleanOptions, without=("exclude", "ban"))
def run(
    logs: Annotated[list[Path], typer.Argument(metavar="LOG…", help="Files of votes, or folders of FastChat's logs.")],
    *,
    out: Annotated[
        Path | None, typer.Option(help="Write all votes, with state and reason, in LMSYS's form as JSON lines.")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="A model whose votes are left out; several.")] = None,
    ban: Annotated[list[str] | None, typer.Option(help="A voter whose votes are left out; several.")] = None,
    json: Json = False,
    options: CleanOptions,
) -> None:
    """Nothing is deleted: each vote has a state and a reason. The first rule that speaks decides. Identities are looked
    for as whole words in answers; `--rules compat` looks as FastChat does, inside of words and in questions too."""
    from camelid.arena.cleaning.candidates import candidates
    from camelid.arena.cleaning.clean import clean
    from camelid.arena.logs.write import battle_row
    from camelid.files import whole_file

    if out is not None and out.exists():
        raise OptionError(f"{out}: is there already; choose another name", param="out")
    with saying("reading"):
        cleaned = clean(candidates(logs), options.with_(exclude=tuple(exclude or ()), ban=tuple(ban or ())))
    if out is not None:
        with whole_file(out) as file:
            for each in cleaned.judged:
                row = battle_row(each.candidate.vote, each.candidate.conversations, each.reason)
                file.write(json_.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
    kept = len(cleaned.judged) - sum(cleaned.counts.values())
    if json:
        told = {"n_votes": len(cleaned.judged), "counts": kept, "left_out": dict(cleaned.counts)}
        print_json({**told, "identity_words": dict(cleaned.words), "identity_by_rules": dict(cleaned.others)})
        return
    console = Terminal()
    console.print(f"{len(cleaned.judged):,} votes, {kept:,} count")
    for name, count in cleaned.counts.items():
        if count:
            console.print(f"  {count:>9,}  {literal(name)}")
    if cleaned.words:
        console.print("words: " + ", ".join(f"{literal(word)} {count:,}" for word, count in cleaned.words.items()))
    others = cleaned.others
    if len(set(others.values())) > 1:
        both = ", ".join(f"{name} {count:,}" for name, count in others.items())
        stderr.print(f"identities by the rules of each kind: {both}", soft_wrap=True)
