"""How good is it: benchmarks that anyone can repeat, item by item."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from camelid.cli.console import print_json, stderr
from camelid.cli.flags import takes
from camelid.cli.options import AdapterName, BackendName, ChatFormatName, Json, open_llama
from camelid.engine.engine import EngineOptions
from camelid.errors import MissingError, OptionError
from camelid.run_layout import all_checkpoints

if TYPE_CHECKING:
    from camelid.chat.llama import Llama
    from camelid.evals.ask import Asker
    from camelid.evals.result import Result

LM_EVAL = "lm-eval:"  # begins the names of lm-eval's own tasks
_SHOWN = 20  # items that are shown if nothing else is asked for


Training = Annotated[
    Path | None, typer.Option(metavar="RUN", help="Look for the items in this training data; a checkpoint's own.")
]
Accept = Annotated[bool, typer.Option("--i-accept-running-generated-code", help="Needed for --sandbox basic.")]


@takes("engine", EngineOptions)
def run(
    tasks: Annotated[
        list[str] | None, typer.Argument(metavar="TASK…", help="Tasks; with none, all are listed.")
    ] = None,
    *,
    model: Annotated[list[str] | None, typer.Option(help="What to measure; may be given several times.")] = None,
    every_checkpoint: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Each checkpoint of a run, or of one of its stages.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="A server with OpenAI's API instead, as http://HOST/v1.")] = None,
    data: Annotated[str | None, typer.Option(help="File, folder or archive of items, or hf:owner/name.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many items.")] = None,
    shots: Annotated[int | None, typer.Option(min=0, help="So many shots instead of the task's own number.")] = None,
    truncate: Annotated[
        Literal["left"] | None, typer.Option(help="Drop the first shots of a prompt that is too long.")
    ] = None,
    judge: Annotated[str | None, typer.Option(help="The model that judges, for tasks that need one.")] = None,
    training: Training = None,
    out: Annotated[Path, typer.Option(help="Folder for results; each gets a folder in it.")] = Path("results"),
    again: Annotated[bool, typer.Option(help="Forget what an earlier run left.")] = False,
    wrong: Annotated[bool, typer.Option(help="With show: the items that were not right.")] = False,
    diff: Annotated[Path | None, typer.Option(help="With show: another result, compared item by item.")] = None,
    sandbox: Annotated[
        Literal["strict", "basic"], typer.Option(help="For tasks that run programs: see camelid sandbox.")
    ] = "strict",
    accept: Accept = False,
    backend: BackendName = "auto",
    chat_format: ChatFormatName = None,
    adapter: AdapterName = None,
    json: Json = False,
    engine: EngineOptions,
) -> None:
    """The same command goes on after a kill, and computes nothing twice.

    `camelid eval show RESULT` prints a result again; with --wrong or --diff OTHER its items.
    """
    if tasks and tasks[0] == "show":
        show(tasks[1:], wrong, diff, limit, json)
        return
    if wrong or diff is not None:
        raise OptionError("--wrong and --diff: are for results; write camelid eval show RESULT --wrong")
    if not tasks:
        list_tasks(json)
        return
    names = models_of(model, every_checkpoint, adapter, url)
    if any(name.startswith(LM_EVAL) for name in tasks):
        measure_with_lm_eval(
            tasks, (open_named(name, backend, engine, chat_format, adapter) for name in names), limit, shots, json
        )
        return
    scorer = {"sandbox": sandbox, "accept_generated_code": accept}
    choices = {"data": data, "limit": limit, "shots": shots, "out": out, "again": again, "scorer": scorer}
    choices["truncate"] = truncate is not None
    judging = None if judge is None else open_llama(judge, backend, engine)
    askers = (_asker(name, url, backend, engine, chat_format, adapter) for name in names)
    tell(measure(askers, tasks, {**choices, "judge": judging, "training": training}), json)


def models_of(
    names: list[str] | None, run: Path | None, adapter: str | None = None, url: str | None = None
) -> Sequence[str | None]:
    """What is measured: the models that were named, or the checkpoints of a run; None stands for the default model."""
    if adapter is not None and (url is not None or run is not None or len(names or ()) > 1):
        raise OptionError("--adapter: goes with one --model, or with none; leave the others out")
    if run is None:
        return names or (None,)
    if names:
        raise OptionError("--every-checkpoint: takes the place of --model; leave one of them out")
    checkpoints = all_checkpoints(run)
    if not checkpoints:
        raise OptionError(f"--every-checkpoint: {run} has no complete checkpoint; name a run or one of its stages")
    return [str(path) for path in checkpoints]


def tell(results: list[Result], json: bool) -> None:
    """Print results, and the differences of models on the same items."""
    if json:
        print_json({"results": [result.as_json() for result in results]})
        return
    from camelid.evals.comparing import pairs_among
    from camelid.evals.report import show_pairs, show_results

    show_results(results)
    if pairs := pairs_among(results):
        show_pairs(pairs)


def measure(askers: Iterable[Asker], tasks: Iterable[str], choices: Mapping[str, Any]) -> list[Result]:
    """Ask each model each task, one model in memory at a time."""
    from camelid.cli.watch import Watch
    from camelid.evals.run import evaluate
    from camelid.evals.sources import core_source
    from camelid.evals.tasks import find_task

    found = [find_task(name) for name in tasks]  # before a model is loaded
    if choices["data"] is None:
        for task in found:
            core_source(task)
    results = []
    for asker in askers:
        for task in found:
            with Watch(task.name, asker.name, stderr) as watch:
                own = {**choices, "training": choices["training"] or _training(asker)}
                results.append(evaluate(asker, task, progress=watch, **own))
    return results


def _training(asker: Asker) -> Path | None:
    """The data that a model of a run was trained on, if it is here."""
    from camelid.evals.ask import LlamaAsker
    from camelid.evals.contamination import training_of

    return training_of(asker.llama.weights.path) if isinstance(asker, LlamaAsker) else None


def _asker(
    name: str | None, url: str | None, backend: str, engine: EngineOptions, chat_format: str | None, adapter: str | None
) -> Asker:
    if url is not None:
        from camelid.evals.endpoint import EndpointAsker

        return EndpointAsker(url, name)
    from camelid.evals.ask import LlamaAsker

    return LlamaAsker(*open_named(name, backend, engine, chat_format, adapter))


def open_named(
    name: str | None, backend: str, engine: EngineOptions, chat_format: str | None, adapter: str | None = None
) -> tuple[Llama, str]:
    """A model and what it is called in results."""
    from camelid.hub.catalog import DEFAULT_MODEL
    from camelid.hub.store import resolve

    llama = open_llama(name, backend, engine, chat_format, adapter=adapter)
    if adapter is not None:
        names = [given for given in (name, adapter) if given is not None]
        return llama, "+".join(model_title(given, resolve(given)) for given in names)
    return llama, DEFAULT_MODEL if name is None else model_title(name, llama.weights.path)


def measure_with_lm_eval(
    tasks: list[str], models: Iterable[tuple[Llama, str]], limit: int | None, shots: int | None, json: bool
) -> None:
    """Have lm-eval run tasks of its own, and print their figures."""
    if not all(name.startswith(LM_EVAL) for name in tasks):
        raise OptionError(f"tasks: those of {LM_EVAL}… run in a command of their own; leave the others out")
    try:
        from camelid.evals.lm_eval_model import run_tasks
    except ImportError:
        raise MissingError("lm-eval is not installed: pip install 'camelid[lm-eval]'") from None
    names = [name.removeprefix(LM_EVAL) for name in tasks]
    rows = [row for llama, title in models for row in run_tasks(llama, title, names, limit, shots)]
    if json:
        print_json({"results": rows})
        return
    from camelid.evals.report import show_rows

    show_rows(rows)


def model_title(name: str, path: Path) -> str:
    """What a model is called in results: its name; of a path the last part, of a checkpoint its run and stage too."""
    if not Path(name).expanduser().exists() and not path.name.startswith("step"):
        return name
    parts = path.resolve().parts
    return "/".join(parts[-3:] if path.name.startswith("step") else parts[-1:]).removesuffix(".gguf")


def show(folders: list[str], wrong: bool, diff: Path | None, limit: int | None, json: bool) -> None:
    """Print finished results, or the items of one."""
    from camelid.evals import report
    from camelid.evals.comparing import open_result, pair_of

    if not folders or ((wrong or diff is not None) and len(folders) > 1):
        raise OptionError("show: name the folder of a result, as in: camelid eval show results/mmlu--NAME --wrong")
    results = [open_result(Path(folder)) for folder in folders]
    result = results[0]
    score = next((each["score"] for each in result.shown.values() if "score" in each), None)
    if diff is not None:
        pair = pair_of(result, open_result(diff))
        items = [] if score is None else list(pair.items(score))
        if json:
            compared = {name: asdict(each) for name, each in pair.comparisons.items()}
            print_json({"comparisons": compared, "differing": pair.differing, "items": items[:limit]})
            return
        report.show_pairs([pair])
        report.show_differences(items, limit or _SHOWN)
    elif wrong:
        found = [item for item in result.items if score is not None and not item["scores"].get(score, True)]
        if json:
            print_json({"items": found[:limit]})
            return
        report.show_items(found, limit or _SHOWN)
    elif json:
        print_json({"results": [each.as_json() for each in results]})
    else:
        report.show_results(results)
        report.show_groups(results)


def list_tasks(json: bool) -> None:
    """Print all tasks."""
    from camelid.evals.report import show_tasks
    from camelid.evals.tasks import TASKS

    if json:
        print_json(
            {"tasks": [{"name": task.name, "title": task.title, "shots": task.n_shots} for task in TASKS.values()]}
        )
        return
    show_tasks(list(TASKS.values()))
