"""Train a model from a recipe, or go on with it."""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camelid.cli.console import print_json
from camelid.cli.options import Json
from camelid.console import Terminal
from camelid.errors import MissingError, OptionError
from camelid.run_layout import RUNS
from camelid.streams import literal

if TYPE_CHECKING:
    from camelid.recipe import Recipe
    from camelid.train.events import Started
    from camelid.train.options import RunOptions
    from camelid.train.report.display import Display
    from camelid.train.run_stage import RunStage

SHOWN = ("step", "tokens", "loss", "grad_norm", "lr", "tokens_per_second", "mfu", "memory_bytes", "validation_loss")


def run(
    recipe: Annotated[str, typer.Argument(help="A .toml file, or the name of a recipe that comes with camelid.")],
    *,
    set: Annotated[list[str] | None, typer.Option(help="TABLE.KEY=VALUE; changes what the recipe says.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of runs; this one is OUT/NAME.")] = Path(RUNS),
    stop_after: Annotated[int | None, typer.Option(min=1, help="Save and end after so many steps.")] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start at step 0; checkpoints that are there are put aside.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take on GPUs; start nothing.")] = False,
    gpu: Annotated[str | None, typer.Option(help="With --dry-run: one kind of GPU, as `A100 80GB`.")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="With --dry-run: how many of them.")] = None,
    mfu: Annotated[float | None, typer.Option(help="With --dry-run: share of their peak that is reached.")] = None,
    json: Json = False,
) -> None:
    """The same command goes on after a kill or a pause, from the newest checkpoint.

    Data that is missing is prepared first. Ctrl-C, SIGTERM, SIGHUP, SIGUSR1 and the end of a SLURM job lead to a save
    after the step; the status is 75 then. Start it by torchrun or srun for several processes.
    """
    from camelid.recipe import read_recipe

    read = read_recipe(recipe, set or ())
    if dry_run:
        from camelid.cli.plan import show_plan

        show_plan(read, gpu, gpus, mfu, json)
        return
    if gpu is not None or gpus is not None or mfu is not None:
        raise OptionError("--gpu, --gpus, --mfu: belong to --dry-run; what trains here is what is found here")
    _check_torch()
    from camelid.machine import sleep_while_waiting

    sleep_while_waiting()
    from camelid.train.cluster.preemption import STATUS, wait_for_stopper
    from camelid.train.parallel import Parallel
    from camelid.train.run_stage import RunStage
    from camelid.train.stages import load_stage

    wait_for_stopper()
    with Parallel(read.stage_table(read.stages[0], load_stage(read.stages[0]).Options).tensor_parallel) as parallel:
        parallel.from_first(lambda: _prepare(read, out / read.name, parallel.n_ranks))
        result = _train(RunStage(read, read.stages[0], out / read.name, parallel), stop_after, fresh)
        if parallel.is_main and json:
            print_json(result)
        elif parallel.is_main:
            _say(result)
    status = 0 if result.get("reason") is None else STATUS
    if parallel.n_ranks > 1:
        _leave(status)
    if status:
        raise typer.Exit(status)


def _leave(status: int) -> None:
    """End one of several processes without Python's own end: torch's caches keep groups of gloo, and so their threads,
    alive. One that lets go of its last work while Python ends is killed in C++ that allows no exception: SIGABRT."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _check_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise MissingError("training needs torch: pip install 'camelid[train]'")


def _prepare(recipe: Recipe, run: Path, n_ranks: int) -> None:
    """Make the data if it is not there, and see that it is the recipe's."""
    from camelid.cli.verbs.prepare import show_estimate, stage_bars
    from camelid.data.folder import DataFolder
    from camelid.data.prepare import already, prepare
    from camelid.machine import available_bytes, threads
    from camelid.run_layout import DATA

    if DataFolder(run / DATA).is_finished():
        for note in already(recipe, run / DATA, quick=True).notes:
            Terminal(stderr=True).print(f"[yellow]{literal(note)}[/]", soft_wrap=True)
    elif n_ranks > 1:
        raise MissingError(
            f"{run / DATA}: no data is there; make it first, with: camelid prepare {shlex.quote(str(recipe.path))}"
        )
    else:
        with stage_bars() as show:
            prepare(recipe, run / DATA, threads()[0], free=available_bytes(), planned=show_estimate, progress=show)


def _train(stage: RunStage, stop_after: int | None, fresh: bool) -> dict[str, Any]:
    """Train, showing it; returns what a person wants to know at the end."""
    from camelid.train.events import Saved, Started, Step
    from camelid.train.run import train
    from camelid.train.stages import load_stage

    parallel, title = stage.parallel, f"{stage.recipe.name}, {stage.name}"
    options: RunOptions = stage.options(load_stage(stage.name).Options)
    result: dict[str, Any] = {"folder": str(stage.folder), "step": 0, "steps": options.steps, "ended": "done"}
    with ExitStack() as stack:
        display: Display | None = None
        for event in train(stage, stop_after=stop_after, fresh=fresh):
            if isinstance(event, Started):
                if parallel.is_main:
                    display = stack.enter_context(_display(title, options, event))
                known = ("unigram_entropy", "parameters")
                result |= {"step": event.step} | {name: event.about[name] for name in known if name in event.about}
            elif isinstance(event, Step):
                if display is not None:
                    display.step(event)
                numbers = event.numbers()
                result |= {name: numbers[name] for name in SHOWN if name in numbers}
            elif isinstance(event, Saved):
                if display is not None:
                    display.saved(event.folder)
                result |= {"step": event.step, "checkpoint": event.folder}
            else:
                result |= {"step": event.step, "ended": "done" if event.done else "stop"}
                if not event.done:
                    result["reason"] = event.reason
    return result


def _display(title: str, options: RunOptions, started: Started) -> Display:
    from camelid.train.report.display import Display
    from camelid.train.report.units import count

    about = started.about
    where = about["device"] if about["ranks"] == 1 else f"{about['ranks']} × {about['device']}"
    threads = f", {about['threads']} threads" if about["device"] == "cpu" else ""
    model = f"{count(about['parameters'])} parameters in {options.precision} on {where}{threads}"
    tokens = options.steps * options.batch_tokens
    return Display(title, started.steps, tokens=tokens, about=model, unigram=about.get("unigram_entropy"))


def _say(result: dict[str, Any]) -> None:
    folder = literal(result["folder"])
    console = Terminal()
    if "loss" not in result:
        console.print(f"Nothing is left to do: {folder} has all {result['steps']:,} steps.", soft_wrap=True)
    elif result["ended"] == "done":
        console.print(f"Done: loss {result['loss']:.3f} after {result['step']:,} steps.", soft_wrap=True)
        quoted = literal(shlex.quote(result["folder"]))
        console.print(f'Try it: camelid generate {quoted} "Once upon a time"', soft_wrap=True)
    else:
        console.print(f"Stopped at step {result['step']:,} of {result['steps']:,}, saved.", soft_wrap=True)
        console.print("The same command goes on.")
