"""Merge a LoRA adapter into its base model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from camelid.cli.console import print_json, progress_bar, stderr
from camelid.cli.options import Json
from camelid.streams import check_text, write


def run(
    adapter: Annotated[str, typer.Argument(help="Folder of the adapter, or a stage of a run that trained one.")],
    *,
    out: Annotated[Path, typer.Option(help="The new folder, or the new .gguf file.")],
    base: Annotated[
        str | None, typer.Option(help="Folder, .gguf file or name of the base; else what the adapter names.")
    ] = None,
    to: Annotated[str, typer.Option(help="hf, gguf or meta.")] = "hf",
    quant: Annotated[
        str | None,
        typer.Option(help="Store matrices as BF16, F16, F32; in a GGUF also Q8_0 …; else nothing is rounded."),
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="A text whose logits are compared; may be given several times.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    json: Json = False,
) -> None:
    """In float32, one matrix at a time; base with adapter and the merged model are compared before it is done."""
    from camelid.chat.adapters.merge import merge

    check_text(prompt or [], "--prompt")
    with progress_bar() as show:
        merged = merge(
            adapter,
            out,
            base=base,
            format=to,
            quant=quant,
            prompts=prompt or (),
            overwrite=overwrite,
            progress=lambda done, total, name: show(out.name, done, total),
        )
    if json:
        print_json({**asdict(merged), "path": str(merged.path)})
        return
    what = "rewards" if merged.rates else "logits"
    said = (
        f"{what} of base with adapter (float32) and of the merged model: largest difference "
        f"{merged.largest_difference:.3g}, where the largest is {merged.largest_logit:.3g}"
    )
    if not merged.rates:
        said += f"; the likeliest next token is the same at {merged.same_next} of {merged.places} places"
    stderr.print(said, soft_wrap=True)
    stderr.print("written: ", end="")
    write(f"{merged.path}\n")
