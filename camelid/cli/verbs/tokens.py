"""Show how a text is cut into tokens."""

from __future__ import annotations

from typing import Annotated

import typer

from camelid.cli.console import print_json
from camelid.cli.options import Json, TextArgument, fetch_default, model_and_text
from camelid.cli.verbs.next import visible
from camelid.console import Terminal
from camelid.streams import literal

COLOURS = ("black on cyan", "black on yellow", "black on green", "black on magenta")


def run(
    text: Annotated[list[str] | None, TextArgument("TEXT")] = None,
    *,
    special: Annotated[bool, typer.Option("--special", help="Read control tokens in the text as such.")] = False,
    bos: Annotated[bool, typer.Option("--bos", help="Put the start token first.")] = False,
    json: Json = False,
) -> None:
    """Control tokens written in the text stay text unless --special says otherwise."""
    from camelid.hub.store import resolve
    from camelid.weights.open import open_tokenizer

    model, words = model_and_text(text, "text")
    tokenizer = open_tokenizer(resolve(model) if model else fetch_default())
    ids = tokenizer.encode(words, bos=bos, special=special)
    pieces = [tokenizer.piece(id) for id in ids]
    if json:
        print_json({"ids": ids, "pieces": pieces})
        return
    console = Terminal()
    coloured = (f"[{COLOURS[i % len(COLOURS)]}]{literal(visible(piece))}[/]" for i, piece in enumerate(pieces))
    console.print("".join(coloured))
    console.print(" ".join(str(id) for id in ids))
    console.print(f"[dim]{len(ids)} tokens, {len(words)} characters, {len(words.encode())} bytes[/]")
