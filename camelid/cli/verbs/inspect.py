"""Show what a training run has read: the very documents of any step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from camelid.cli.console import print_json
from camelid.cli.options import Json
from camelid.console import Terminal
from camelid.errors import OptionError
from camelid.streams import literal
from camelid.train.report.inspect import StepDocuments, documents_of, overview
from camelid.train.report.units import count, duration, memory
from camelid.train.runs import open_run


def run(
    run: Annotated[Path, typer.Argument(help="Folder of a run, as runs/tiny.")],
    *,
    step: Annotated[int | None, typer.Option(help="Number of a step, from 1: print its documents.")] = None,
    row: Annotated[int | None, typer.Option(help="Only this row of the step, from 0.")] = None,
    json: Json = False,
) -> None:
    """Without --step, how the run stands. Any step can be shown: the order of training follows from the seed alone."""
    if row is not None and step is None:
        raise OptionError("--row: belongs to a step; add --step N")
    opened = open_run(run)
    if step is None:
        about = overview(opened)
        print_json(about) if json else _show(about)
        return
    documents = documents_of(opened, step, row)
    if json:
        print_json({"run": opened.name, **documents.as_json()})
    else:
        _print(documents)


def _print(step: StepDocuments) -> None:
    console = Terminal(soft_wrap=True)
    when = "read" if step.trained else "will be read"
    console.print(f"[bold]step {step.step:,}[/]  [dim]{when}; rows of {step.context:,} tokens[/]")
    for number, documents in step.rows:
        n_tokens = sum(document["stop"] - document["start"] for document in documents)
        console.print(f"\n[bold cyan]row {number}[/]  [dim]{len(documents)} documents, {n_tokens:,} tokens[/]")
        for document in documents:
            tokens = f"tokens {document['start']:,} to {document['stop']:,}"
            place = f"{document['shard']}, document {document['document']}, {tokens}"
            origin = (document.get("answer"), document["id"], document.get("url"), document.get("licence"))
            words = [document["source"], *origin, place]
            console.print(f"[bold]▸[/] [dim]{literal('  '.join(filter(None, words)))}[/]")
            console.print(literal(document["text"]))


def _show(about: dict[str, Any]) -> None:
    entropy, steps = about["unigram_entropy"], about["steps"]
    beside = f"  [dim]unigram entropy {entropy:.3f}[/]" if entropy is not None else ""
    rows = {
        "run": f"[bold]{literal(about['run'])}[/], {about['state']}",
        "folder": literal(about["folder"]),
        "parameters": _words(about["parameters"], "{:,}"),
        "steps": f"{about['step'] or 0:,.0f}" + (f" of {steps:,}" if steps else ""),
        "tokens": count(about["tokens"] or 0),
        "loss": _words(about["loss"], "{:.4f}") + beside,
        "validation": _words(about["validation_loss"], "{:.4f}"),
        "speed": _words(about["tokens_per_second"], "{:,.0f} tokens/s") + _words(about["mfu"], ", MFU {:.0%}", ""),
        "memory": memory(about["memory_bytes"] or 0) or "–",
    }
    if about["state"] == "training" and about["seconds_left"] is not None:
        rows["time left"] = duration(about["seconds_left"])
    if about.get("answers"):
        rows["answers"] = _counts(about["answers"])
    rows["checkpoints"] = ", ".join(literal(checkpoint["name"]) for checkpoint in about["checkpoints"]) or "none"
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in rows.items():
        table.add_row(f"[dim]{name}[/]", value)
    for source in about["sources"]:
        licence = f", {source['licence']}" if source["licence"] else ""
        tokens = f"{count(source['tokens'])} tokens"
        words = f"{source['name']}: {source['documents']:,} documents, {tokens}, weight {source['weight']:g}"
        table.add_row("[dim]source[/]", literal(words + licence))
    if "data_error" in about:
        table.add_row("[dim]data[/]", literal(about["data_error"]))
    Terminal().print(table)


def _counts(answers: Mapping[str, Any]) -> str:
    """What is to be known of the answers that a stage wrote and then learned."""
    numbers = {name.replace("_", " "): value for name, value in answers.items() if isinstance(value, int | float)}
    return ", ".join(
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value:.4g}" for name, value in numbers.items()
    )


def _words(value: float | None, form: str, none: str = "–") -> str:
    return none if value is None else form.format(value)
