"""Show what a training run has read or written: the very documents, or answers, of any step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from camelid.cli.console import print_json
from camelid.cli.options import Json
from camelid.console import Terminal
from camelid.errors import OptionError
from camelid.streams import literal
from camelid.train.report.curves import own
from camelid.train.report.inspect import StepDocuments, documents_of, overview
from camelid.train.report.units import count, duration, memory
from camelid.train.report.written import answers_of, has_written
from camelid.train.runs import LifeStage, life, open_run


def run(
    run: Annotated[Path, typer.Argument(help="Folder of a run, as runs/tiny.")],
    *,
    stage: Annotated[str | None, typer.Option(help="Of a run with several: which one, as ppo.")] = None,
    step: Annotated[int | None, typer.Option(help="Number of a step, from 1: print what it learned from.")] = None,
    row: Annotated[int | None, typer.Option(help="Only this row of the step, from 0.")] = None,
    json: Json = False,
) -> None:
    """Without --step, how the run stands. Any step can be shown: the order of training follows from the seed alone."""
    if row is not None and step is None:
        raise OptionError("--row: belongs to a step; add --step N")
    stages = [] if stage is not None or step is not None else life(run)
    if len(stages) > 1:
        _tell_life(run, stages, json)
        return
    opened = open_run(run if stage is None else run / stage)
    if step is None:
        about = overview(opened)
        print_json(about) if json else _show(about)
    elif has_written(opened):
        first, answers = answers_of(opened, step)
        if row is not None and not 0 <= row < len(answers):
            raise OptionError(f"--row: step {step} has answers 0 to {len(answers) - 1:,}, not {row}")
        chosen = [(at, answer) for at, answer in enumerate(answers) if row in (None, at)]
        written = {"run": opened.name, "step": step, "written_before": first}
        print_json({**written, "answers": [answer for _, answer in chosen]}) if json else _print_answers(first, chosen)
    else:
        documents = documents_of(opened, step, row)
        print_json({"run": opened.name, **documents.as_json()}) if json else _print(documents)


def _tell_life(run: Path, stages: Sequence[LifeStage], json: bool) -> None:
    """The stages of a run in order, and how far each is."""
    rows: list[dict[str, Any]] = []
    for stage in stages:
        metrics = stage.metrics
        found: dict[str, Any] = {"stage": stage.name, "state": stage.standing}
        if metrics is not None:
            names = ["loss", "validation_loss", *own(metrics.columns)]
            last = {name: metrics.last(name) for name in names}
            known = {name: value for name, value in last.items() if value is not None}
            found |= {"step": int(metrics.last("step") or 0), "steps": metrics.steps, "metrics": known}
        rows.append(found)
    if json:
        print_json({"run": run.resolve().name, "stages": rows})
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for number, row in enumerate(rows, 1):
        steps = f"{row['step']:,} of {row['steps']:,}" if row.get("steps") else ""
        numbers = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in row.get("metrics", {}).items())
        table.add_row(f"[dim]{number}[/]", f"[bold]{literal(row['stage'])}[/]", row["state"], steps, literal(numbers))
    Terminal().print(table)


def _print_answers(first: int, answers: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
    """Answers that a model wrote, each with its prompt and what was measured of it."""
    console = Terminal(soft_wrap=True)
    console.print(f"[dim]written before step {first:,}[/]")
    for number, answer in answers:
        numbers = {name: value for name, value in answer.items() if isinstance(value, int | float)}
        told = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in numbers.items() if name != "step")
        console.print(f"\n[bold cyan]answer {number}[/]  [dim]{literal(told)}[/]")
        for message in answer.get("messages", ()):
            console.print(f"[dim]{literal(str(message.get('role', '')))}[/] {literal(str(message.get('content', '')))}")
        console.print(f"[bold]▸[/] {literal(str(answer.get('answer', '')))}")


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
            origin = (document["id"], document.get("url"), document.get("licence"))
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
