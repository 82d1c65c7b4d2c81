"""Conversations, pairs and prompts in a terminal, with what is learned in colour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from camelid.cli.console import print_json
from camelid.streams import literal

_COLOURS = {"chosen": "black on green", "rejected": "black on yellow"}


def show_chats(data: Path, row: int, context: int | None, seed: int | None, json: bool) -> None:
    """Print one row of a data folder of conversations, preferences or prompts."""
    from camelid.console import Terminal
    from camelid.data.chats.show import row_of
    from camelid.data.manifest import read_manifest

    shown = row_of(data, row, context, seed)
    if json:
        print_json(shown)
        return
    tokenizer, console = read_manifest(data).open_tokenizer(data), Terminal()
    for piece in shown["pieces"]:
        answer = f"[bold]{piece['answer']}[/] " if "answer" in piece else ""
        origin = literal("  ".join(filter(None, (piece["source"], piece["id"], piece["url"], piece["licence"]))))
        console.print(f"{answer}[dim]{origin}  {len(piece['ids']):,} tokens[/]", soft_wrap=True)
        console.print(_coloured(tokenizer, piece), soft_wrap=True)
        console.print()
    for name, value in shown.get("about", {}).items():
        if value is not None and name not in ("id", "source", "licence"):
            console.print(f"[bold]{literal(name)}[/] {literal(str(value))}", soft_wrap=True)
    share = shown["share"]
    if shown["form"] == "prompts":
        console.print("[dim]a prompt: nothing of it is learned[/]")
    else:
        of_all = f"{share['row']:.0%} of these tokens, {share['data']:.0%} of all the data"
        console.print(f"[dim]in colour: what is learned, {of_all}[/]")


def _coloured(tokenizer: Any, piece: dict[str, Any]) -> str:
    """Its tokens; a line ends where theirs do."""
    from camelid.cli.verbs.next import visible

    colour, parts = _COLOURS[piece.get("answer", "chosen")], []
    for id, learned in zip(piece["ids"], piece["learned"], strict=True):
        text = tokenizer.piece(id)
        style = colour if learned else "dim"
        parts.append(f"[{style}]{literal(visible(text) if learned else text)}[/]")
        if learned and "\n" in text:
            parts.append("\n")
    return "".join(parts)
