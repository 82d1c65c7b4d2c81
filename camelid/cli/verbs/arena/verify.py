"""Make a published board again from its log, and say whether it is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camelid.cli.console import print_json
from camelid.cli.options import Json
from camelid.errors import FormatError
from camelid.streams import write


def run(
    folder: Annotated[Path, typer.Argument(help="What camelid arena export --to made.")],
    *,
    json: Json = False,
) -> None:
    """Every line of the log is checked against its hash, and the board against what the votes give: to six digits
    behind the point, which is all that is published. Status 2 where anything differs; the first vote that was changed
    is named."""
    from camelid.arena.publish import verify

    found = verify(folder)
    if json:
        print_json({"equal": not found.faults, "n_votes": found.n_votes, "faults": list(found.faults)})
    if found.faults:
        more = f" (and {len(found.faults) - 1} more)" if len(found.faults) > 1 else ""
        raise FormatError(f"{folder}: {found.faults[0]}{more}; ask who published it")
    if not json:
        write(f"{folder}: equal, {found.n_votes:,} votes\n")
