"""Write a model in another format, or with other numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from camelid.cli.console import print_json, progress_bar, stderr
from camelid.cli.options import AdapterName, ChatFormatName, Json
from camelid.errors import OptionError, one_of
from camelid.streams import write


def run(
    model: Annotated[str, typer.Argument(help="Folder, .gguf file or name.")],
    target: Annotated[Path, typer.Argument(help="The new .gguf file, or the new folder.")],
    *,
    to: Annotated[str, typer.Option(help="gguf, hf or meta.")] = "gguf",
    quant: Annotated[
        str | None, typer.Option(help="Store matrices as F32, F16, BF16; in a GGUF also Q8_0, Q4_0, Q4_1, Q4_K, Q6_K …")
    ] = None,
    shards: Annotated[int, typer.Option(min=1, help="Parts of a Meta folder; about how many files of hf.")] = 1,
    chat_format: ChatFormatName = None,
    adapter: AdapterName = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    json: Json = False,
) -> None:
    """One tensor at a time, complete or not at all; run.json beside it says what it was made from."""
    from camelid.chat.adapters.base import open_with_base
    from camelid.hub.store import resolve
    from camelid.pedigree import write_pedigree
    from camelid.tokens.templates.chat_format import FORMATS
    from camelid.weights.adapted import adapted
    from camelid.weights.convert import save_weights
    from camelid.weights.open import open_weights

    if adapter is None:
        weights = open_weights(resolve(model))
    else:
        found, base = open_with_base(adapter, model)
        weights = adapted(base, found)
    if chat_format is not None:
        row = FORMATS.get(chat_format)
        if row is None or row.jinja is None:
            written = [name for name, row in FORMATS.items() if row.jinja]
            raise OptionError(f"--chat-format: {chat_format!r} cannot be written; {one_of(chat_format, written)}")
        weights = replace(weights, chat_template=row.jinja, named_templates={})
    with progress_bar() as show:
        made = save_weights(
            weights,
            target,
            format=to,
            quant=quant,
            shards=shards,
            overwrite=overwrite,
            progress=lambda done, total, name: show(target.name, done, total),
        )
    options = {"to": to, "quant": quant, "shards": shards, "chat_format": chat_format}
    options |= {} if adapter is None else {"adapter": adapter}
    counts = {"tensors": len(weights.tensors), "parameters": weights.config.n_parameters}
    write_pedigree(made, "convert", weights.files, options, counts)
    if json:
        print_json({"path": str(made), "format": to})
    else:
        stderr.print("written: ", end="")
        write(f"{made}\n")
