"""Train a model from a recipe, or go on with it."""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from collections.abc import Sequence
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
    from camelid.train.events import Started
    from camelid.train.options import RunOptions
    from camelid.train.report.display import Display
    from camelid.train.run_stage import RunStage, Show

SHOWN = ("step", "tokens", "loss", "grad_norm", "lr", "tokens_per_second", "mfu", "memory_bytes", "validation_loss")


def run(
    recipe: Annotated[str, typer.Argument(help="A .toml file, or the name of a recipe that comes with camelid.")],
    *,
    set: Annotated[list[str] | None, typer.Option(help="TABLE.KEY=VALUE; changes what the recipe says.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of runs; this one is OUT/NAME.")] = Path(RUNS),
    stage: Annotated[str | None, typer.Option(help="This stage of the recipe alone; all of them if left out.")] = None,
    stop_after: Annotated[
        int | None, typer.Option(min=1, help="Save and end after so many steps, of all stages together.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start at step 0 of the first stage; checkpoints are put aside in each.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take on GPUs; start nothing.")] = False,
    gpu: Annotated[str | None, typer.Option(help="With --dry-run: one kind of GPU, as `A100 80GB`.")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="With --dry-run: how many of them.")] = None,
    mfu: Annotated[float | None, typer.Option(help="With --dry-run: share of their peak that is reached.")] = None,
    json: Json = False,
) -> None:
    """All stages of a recipe in order. The same command goes on after a kill or a pause, from the newest checkpoint;
    stages that are finished are passed over.

    Data that is missing is prepared first. Ctrl-C, SIGTERM, SIGHUP, SIGUSR1 and the end of a SLURM job lead to a save
    after the step; the status is 75 then. Start it by torchrun or srun for several processes.
    """
    from camelid.recipe import read_recipe

    read = read_recipe(recipe, set or ())
    if dry_run:
        from camelid.cli.plan import show_plan

        show_plan(read, read.chosen(stage), gpu, gpus, mfu, json)
        return
    if gpu is not None or gpus is not None or mfu is not None:
        raise OptionError("--gpu, --gpus, --mfu: belong to --dry-run; what trains here is what is found here")
    _check_torch()
    from camelid.machine import sleep_while_waiting

    sleep_while_waiting()
    from camelid.cli.rewards import code_rewards
    from camelid.train.cluster.preemption import STATUS, wait_for_stopper
    from camelid.train.life import chosen_stages
    from camelid.train.parallel import Parallel
    from camelid.train.run_stage import RunStage
    from camelid.train.stages import load_stage

    names = chosen_stages(read, stage)
    wait_for_stopper()
    with Parallel(read.stage_table(names[0], load_stage(names[0]).Options).tensor_parallel) as parallel:
        stages = [RunStage(read, name, out / read.name, parallel, code_rewards(), _show()) for name in names]
        results = _train(stages, stop_after, fresh)
        result = results[-1]
        if parallel.is_main and json:
            print_json(result if len(names) == 1 else {**result, "stages": results})
        elif parallel.is_main:
            _say(result, len(names) > 1)
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


def _show() -> Show:
    from camelid.cli.verbs.prepare import show_estimate, stage_bars
    from camelid.train.run_stage import Show

    def note(line: str) -> None:
        Terminal(stderr=True).print(f"[yellow]{literal(line)}[/]", soft_wrap=True)

    return Show(stage_bars, show_estimate, note)


def _train(stages: Sequence[RunStage], stop_after: int | None, fresh: bool) -> list[dict[str, Any]]:
    """Train, showing it; returns what a person wants to know at the end, of each stage."""
    from camelid.train.events import Saved, Skipped, Started, Step
    from camelid.train.life import live

    results: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        display: Display | None = None
        for stage, event in live(stages, stop_after=stop_after, fresh=fresh):
            if stage.name not in results:
                results[stage.name] = {"stage": stage.name, "folder": str(stage.folder), "step": 0, "ended": "done"}
            result = results[stage.name]
            if isinstance(event, Started):
                if stage.parallel.is_main:
                    stack.close()  # the display of the stage before
                    display = stack.enter_context(_display(stage, event))
                known = ("unigram_entropy", "parameters")
                result |= {"step": event.step, "steps": event.steps}
                result |= {name: event.about[name] for name in known if name in event.about}
            elif isinstance(event, Step):
                if display is not None:
                    display.step(event)
                numbers = event.numbers()
                result |= {name: numbers[name] for name in (*SHOWN, *event.metrics) if name in numbers}
            elif isinstance(event, Saved):
                if display is not None:
                    display.saved(event.folder)
                result |= {"step": event.step, "checkpoint": event.folder}
            elif isinstance(event, Skipped):
                result |= {"step": event.step, "steps": event.step}
                if stage.parallel.is_main and stage is not stages[-1]:
                    Terminal(stderr=True).print(f"{literal(stage.name)}: all {event.step:,} steps are there")
            else:
                result |= {"step": event.step, "ended": "done" if event.done else "stop"}
                if not event.done:
                    result["reason"] = event.reason
    return list(results.values())


def _display(stage: RunStage, started: Started) -> Display:
    from camelid.train.report.display import Display
    from camelid.train.report.units import count
    from camelid.train.stages import load_stage

    options: RunOptions = stage.options(load_stage(stage.name).Options)
    about = started.about
    where = about["device"] if about["ranks"] == 1 else f"{about['ranks']} × {about['device']}"
    threads = f", {about['threads']} threads" if about["device"] == "cpu" else ""
    model = f"{count(about['parameters'])} parameters in {options.precision} on {where}{threads}"
    title, tokens = f"{stage.recipe.name}, {stage.name}", started.steps * options.batch_tokens
    return Display(title, started.steps, tokens=tokens, about=model, unigram=about.get("unigram_entropy"))


def _say(result: dict[str, Any], several: bool) -> None:
    folder, where = literal(result["folder"]), f" of {literal(result['stage'])}" if several else ""
    console = Terminal()
    if "loss" not in result:
        console.print(f"Nothing is left to do: {folder} has all {result['steps']:,} steps.", soft_wrap=True)
    elif result["ended"] == "done":
        console.print(f"Done: loss {result['loss']:.3f} after {result['step']:,} steps{where}.", soft_wrap=True)
        quoted = literal(shlex.quote(result["folder"]))
        kind = result["stage"].partition("-")[0]
        if kind == "pretrain":
            console.print(f'Try it: camelid generate {quoted} "Once upon a time"', soft_wrap=True)
        elif kind == "reward":
            console.print(f"Try it: camelid reward {quoted} --prompt QUESTION --answer ANSWER", soft_wrap=True)
        else:
            console.print(f"Try it: camelid chat {quoted}", soft_wrap=True)
    else:
        console.print(f"Stopped at step {result['step']:,} of {result['steps']:,}{where}, saved.", soft_wrap=True)
        console.print("The same command goes on.")
