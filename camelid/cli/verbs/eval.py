"""How good is it: benchmarks that anyone can repeat, item by item."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from camelid.cli.console import print_json, stderr
from camelid.cli.flags import takes
from camelid.cli.options import BackendName, ChatFormatName, Json, open_llama
from camelid.engine.engine import EngineOptions

if TYPE_CHECKING:
    from camelid.evals.result import Result


@takes("engine", EngineOptions)
def run(
    tasks: Annotated[
        list[str] | None, typer.Argument(metavar="TASK…", help="Tasks; with none, all are listed.")
    ] = None,
    *,
    model: Annotated[list[str] | None, typer.Option(help="What to measure; may be given several times.")] = None,
    data: Annotated[str | None, typer.Option(help="File, folder or archive of items, or hf:owner/name.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many items.")] = None,
    shots: Annotated[int | None, typer.Option(min=0, help="So many shots instead of the task's own number.")] = None,
    truncate: Annotated[
        Literal["left"] | None, typer.Option(help="Drop the first shots of a prompt that is too long.")
    ] = None,
    judge: Annotated[str | None, typer.Option(help="The model that judges, for tasks that need one.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for results; each gets a folder in it.")] = Path("results"),
    again: Annotated[bool, typer.Option(help="Forget what an earlier run left.")] = False,
    backend: BackendName = "auto",
    chat_format: ChatFormatName = None,
    json: Json = False,
    engine: EngineOptions,
) -> None:
    """The same command goes on after a kill, and computes nothing twice."""
    if not tasks:
        list_tasks(json)
        return
    from camelid.cli.watch import Watch
    from camelid.evals.run import evaluate
    from camelid.evals.tasks import find_task

    found = [find_task(name) for name in tasks]
    names: list[str | None] = [*model] if model else [None]
    judging = None if judge is None else open_llama(judge, backend, engine)
    results: list[Result] = []
    for name in names:
        asker = _asker(name, backend, engine, chat_format)
        for task in found:
            with Watch(task.name, asker.name, stderr) as watch:
                results.append(
                    evaluate(
                        asker,
                        task,
                        data=data,
                        limit=limit,
                        shots=shots,
                        out=out,
                        truncate=truncate is not None,
                        judge=judging,
                        again=again,
                        progress=watch,
                    )
                )
    if json:
        print_json({"results": [result.as_json() for result in results]})
        return
    from camelid.evals.report import show_results

    show_results(results)


def _asker(name: str | None, backend: str, engine: EngineOptions, chat_format: str | None) -> Any:
    from camelid.evals.ask import LlamaAsker
    from camelid.hub.catalog import DEFAULT_MODEL

    llama = open_llama(name, backend, engine, chat_format)
    return LlamaAsker(llama, DEFAULT_MODEL if name is None else model_title(name, llama.weights.path))


def model_title(name: str, path: Path) -> str:
    """What a model is called in results: its name; of a path the last part, of a checkpoint its run and stage too."""
    if not Path(name).expanduser().exists() and not path.name.startswith("step"):
        return name
    parts = path.resolve().parts
    return "/".join(parts[-3:] if path.name.startswith("step") else parts[-1:]).removesuffix(".gguf")


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
