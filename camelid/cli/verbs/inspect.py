"""Show what a training run has read: the very documents of any step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from camelid.cli.console import print_json
from camelid.cli.options import Json
from camelid.console import Terminal
from camelid.errors import OptionError
from camelid.streams import literal
from camelid.train.inspect import StepDocuments, documents_of, overview
from camelid.train.runs import open_run
from camelid.train.units import count, duration, memory


def run(
    run: Annotated[Path, typer.Argument(help="Folder of a run, as runs/tiny.")],
    *,
    step: Annotated[int | None, typer.Option(help="Number of a step, from 1: print its documents.")] = None,
    row: Annotated[int | None, typer.Option(help="Only this row of the step, from 0.")] = None,
    json: Json = False,
) -> None:
    """Without --step, how the run stands. Any step can be told: the order of training follows from the seed alone."""
    if row is not None and step is None:
        raise OptionError("--row: belongs to a step; add --step N")
    found = open_run(run)
    if step is None:
        told = overview(found)
        print_json(told) if json else _show(told)
        return
    documents = documents_of(found, step, row)
    if json:
        print_json({"run": found.name, **documents.as_json()})
    else:
        _print(documents)


def _print(found: StepDocuments) -> None:
    console = Terminal(soft_wrap=True)
    when = "read" if found.trained else "will be read"
    console.print(f"[bold]step {found.step:,}[/]  [dim]{when}; rows of {found.context:,} tokens[/]")
    for number, documents in found.rows:
        n_tokens = sum(one["stop"] - one["start"] for one in documents)
        console.print(f"\n[bold cyan]row {number}[/]  [dim]{len(documents)} documents, {n_tokens:,} tokens[/]")
        for one in documents:
            place = f"{one['shard']}, document {one['document']}, tokens {one['start']:,} to {one['stop']:,}"
            about = [one["source"], one["id"], one.get("url") or "", one.get("licence") or "", place]
            console.print(f"[bold]▸[/] [dim]{literal('  '.join(filter(None, about)))}[/]")
            console.print(literal(one["text"]))


def _show(told: dict[str, Any]) -> None:
    entropy, steps = told["unigram_entropy"], told["steps"]
    beside = f"  [dim]unigram entropy {entropy:.3f}[/]" if entropy is not None else ""
    rows = {
        "run": f"[bold]{literal(told['run'])}[/], {told['state']}",
        "folder": literal(told["folder"]),
        "parameters": _words(told["parameters"], "{:,}"),
        "steps": f"{told['step'] or 0:,.0f}" + (f" of {steps:,}" if steps else ""),
        "tokens": count(told["tokens"] or 0),
        "loss": _words(told["loss"], "{:.4f}") + beside,
        "validation": _words(told["validation_loss"], "{:.4f}"),
        "speed": _words(told["tokens_per_second"], "{:,.0f} tokens/s") + _words(told["mfu"], ", MFU {:.0%}", ""),
        "memory": memory(told["memory_bytes"] or 0) or "–",
    }
    if told["state"] == "training" and told["seconds_left"] is not None:
        rows["time left"] = duration(told["seconds_left"])
    rows["checkpoints"] = ", ".join(literal(one["name"]) for one in told["checkpoints"]) or "none"
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in rows.items():
        table.add_row(f"[dim]{name}[/]", value)
    for one in told["sources"]:
        licence = f", {one['licence']}" if one["licence"] else ""
        tokens = f"{count(one['tokens'])} tokens"
        words = f"{one['name']}: {one['documents']:,} documents, {tokens}, weight {one['weight']:g}"
        table.add_row("[dim]source[/]", literal(words + licence))
    if "data_error" in told:
        table.add_row("[dim]data[/]", literal(told["data_error"]))
    Terminal().print(table)


def _words(value: float | None, form: str, none: str = "–") -> str:
    return none if value is None else form.format(value)
