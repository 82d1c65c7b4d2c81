"""A score card: our figures beside published ones, and what differs."""

from __future__ import annotations

from collections.abc import Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from camelid.cli.console import print_json
from camelid.cli.options import Json
from camelid.errors import NotFoundError, OptionError, one_of
from camelid.streams import write

if TYPE_CHECKING:
    from camelid.evals.cards.card import Card

_RESULTS = Path("results")
_KINDS = (".md", ".html", ".json")


def run(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL…", help="Names or files; with none, all that have results."),
    ] = None,
    *,
    results: Annotated[Path, typer.Option(help="Folder of results, as camelid eval writes it.")] = _RESULTS,
    out: Annotated[Path | None, typer.Option(help="Write it to a file instead: .md, .html or .json.")] = None,
    json: Json = False,
) -> None:
    """Several models stand side by side, and are compared with the first where they have the same items.

    So the files of one model, as Q8_0 and Q4_0, show what quantisation costs.
    """
    if out is not None and out.suffix not in _KINDS:
        raise OptionError(f"--out: {out}: no kind of card {out.suffix!r}; {one_of(out.suffix, _KINDS)}", param="out")
    if results != _RESULTS and not results.is_dir():
        raise NotFoundError(f"--results: {results}: no such folder; camelid eval writes it", param="results")
    from camelid.evals.cards.card import make_cards
    from camelid.evals.cards.sheet import cards_as_json, lay_out

    cards = make_cards(models or [], results)
    if out is not None:
        _save(cards, out)
    if json:
        print_json(cards_as_json(cards))
    elif out is not None:
        write(f"{out}\n")
    else:
        from camelid.evals.cards.show import show_sheet

        show_sheet(lay_out(cards))


def _save(cards: Sequence[Card], out: Path) -> None:
    from camelid.evals.cards.html import as_html
    from camelid.evals.cards.sheet import cards_as_json, lay_out
    from camelid.evals.cards.show import as_markdown
    from camelid.files import whole_file, writing

    if out.suffix == ".json":
        text = dumps(cards_as_json(cards), indent=2, ensure_ascii=False) + "\n"
    else:
        text = (as_html if out.suffix == ".html" else as_markdown)(lay_out(cards))
    with writing(out), whole_file(out) as file:
        file.write(text.encode(errors="surrogatepass"))
