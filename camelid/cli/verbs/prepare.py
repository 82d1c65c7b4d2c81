"""Make a recipe's data: read, filter, deduplicate, tokenise."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from camelid.cli.console import print_json, stderr
from camelid.cli.options import Json
from camelid.console import Terminal
from camelid.errors import OptionError
from camelid.files import size_text
from camelid.run_layout import DATA, RUNS
from camelid.streams import literal, printable

if TYPE_CHECKING:
    from camelid.data.estimate import Estimate
    from camelid.data.prepare import Prepared
    from camelid.data.prepare import Progress as OnProgress
    from camelid.data.stage_stats import StageStats


def run(
    recipe: Annotated[str, typer.Argument(help="A .toml file, or the name of a recipe that comes with camelid.")],
    *,
    set: Annotated[list[str] | None, typer.Option(help="TABLE.KEY=VALUE; changes what the recipe says.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of runs; data lies in OUT/NAME/data.")] = Path(RUNS),
    workers: Annotated[int | None, typer.Option(help="Processes; one for each processor if left out.")] = None,
    dry_run: Annotated[int | None, typer.Option(metavar="N", help="Try N documents and keep nothing.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace data made from another recipe.")] = False,
    json: Json = False,
) -> None:
    """What is done stays done: a run that was killed goes on where it stopped, with the same result."""
    from camelid.data.prepare import prepare, try_out
    from camelid.machine import available_bytes, threads
    from camelid.recipe import read_recipe

    read = read_recipe(recipe, set or ())
    with stage_bars() as show:
        if dry_run is not None:
            if dry_run < 1:
                raise OptionError(f"--dry-run: must be at least 1, got {dry_run}")
            done = try_out(read, dry_run, show)
        else:
            folder = out / read.name / DATA
            workers = threads()[0] if workers is None else workers
            free = available_bytes()
            done = prepare(read, folder, workers, free=free, overwrite=overwrite, planned=show_estimate, progress=show)
    if json:
        print_json(_as_json(done, dry_run is not None))
    else:
        _print(done, dry_run is not None)


def show_estimate(need: Estimate) -> None:
    """Say, before anything begins, what it will take."""
    about = size_text(need.n_bytes) if need.n_bytes else "an unknown amount"
    stderr.print(
        f"{need.files:,} files, {about} of text; at most {size_text(need.memory)} of memory, "
        f"about {size_text(need.disk)} of disk and {_time(need.seconds)}"
    )


def _time(seconds: float) -> str:
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{seconds / 60:.0f} min"


@contextlib.contextmanager
def stage_bars() -> Iterator[OnProgress]:
    """A callback that draws a bar for each step, on standard error."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    times = (TimeElapsedColumn(), TextColumn("[dim]left[/]"), TimeRemainingColumn())
    bars = Progress(*columns, *times, console=stderr)
    tasks = {}

    def show(name: str, done: int, total: int | None) -> None:
        bars.start()  # not before there is something to see
        if name not in tasks:
            tasks[name] = bars.add_task(printable(name), total=total)
        bars.update(tasks[name], completed=done, total=total)

    try:
        yield show
    finally:
        if tasks:
            bars.stop()


def _print(done: Prepared, trial: bool) -> None:
    console = Terminal()
    console.print(_table(done.stage_stats))
    for warning in _warnings(done):
        stderr.print(f"[yellow]{literal(warning)}[/]")
    if trial:
        console.print("A trial: nothing was kept.")
        return
    assert done.manifest is not None
    tokens = sum(shard.tokens for shard in done.manifest.shards)
    console.print(
        f"{'Was there already' if done.already else 'Done'}: {tokens:,} tokens in {done.folder}", soft_wrap=True
    )


def _table(stage_stats: Sequence[StageStats]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("stage", "in", "out", "MB/s"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    table.add_column("dropped and changed", overflow="fold")
    for stats in stage_stats:
        most = sorted(stats.dropped.items(), key=lambda row: (-row[1], row[0]))
        changes = [f"{count:,} {reason}" for reason, count in most]
        changes += [f"{times:,} {what}" for what, times in stats.changed.items()]
        speed = f"{stats.bytes_in / stats.seconds / 1e6:,.1f}" if stats.seconds else ""
        numbers = (f"{stats.documents_in:,}", f"{stats.documents_out:,}", speed)
        table.add_row(stats.name, *numbers, literal(", ".join(changes)))
    return table


def _warnings(done: Prepared) -> list[str]:
    return [*(warning for stats in done.stage_stats for warning in stats.warnings()), *done.notes]


def _as_json(done: Prepared, trial: bool) -> dict[str, object]:
    about: dict[str, object] = {"folder": None if trial else str(done.folder), "already": done.already}
    about |= {"stages": [stats.as_json() for stats in done.stage_stats], "warnings": _warnings(done)}
    if done.manifest is not None:
        about |= {
            "tokens": sum(shard.tokens for shard in done.manifest.shards),
            "documents": sum(shard.documents for shard in done.manifest.shards),
            "fingerprint": done.manifest.fingerprint(),
        }
    return about
