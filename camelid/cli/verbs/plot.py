"""Draw the curves of one or more training runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camelid.cli.console import print_json
from camelid.cli.options import Json
from camelid.errors import OptionError, one_of
from camelid.streams import write
from camelid.train.report.curves import AGAINST, CURVES, usual
from camelid.train.report.metrics import read_metrics
from camelid.train.report.plot import plot, plot_life
from camelid.train.runs import life, open_run


def run(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, as runs/tiny.")],
    *,
    out: Annotated[Path, typer.Option(help="The picture: .png, .svg or .pdf.")] = Path("plot.png"),
    x: Annotated[str, typer.Option(help="What is drawn against: step, tokens or time.")] = "step",
    metrics: Annotated[
        str | None, typer.Option(help=f"Any of {', '.join(CURVES)}, or what a stage names; several with commas.")
    ] = None,
    smooth: Annotated[int | None, typer.Option(min=1, help="Steps of the mean; a fiftieth of the run.")] = None,
    json: Json = False,
) -> None:
    """Raw values are pale, their means strong; several runs are compared in the same panels. A run with several stages
    is drawn stage by stage, each with what it measures."""
    if x not in AGAINST:
        raise OptionError(f"--x: no {x!r}; {one_of(x, AGAINST)}")
    wanted = None if metrics is None else [name.strip() for name in metrics.split(",") if name.strip()]
    stages = [stage for stage in life(runs[0]) if stage.metrics is not None] if len(runs) == 1 else []
    if len(stages) > 1:
        read = [(stage.name, stage.metrics) for stage in stages if stage.metrics is not None]
        path = plot_life(read, out, x, wanted, smooth)
    else:
        opened = [open_run(path) for path in runs]
        names = [run.folder.parent.name for run in opened]
        names = [run.name if names.count(name) > 1 else name for run, name in zip(opened, names, strict=True)]
        read = [(name, read_metrics(run.folder)) for name, run in zip(names, opened, strict=True)]
        path = plot(read, out, x, wanted, smooth)
    if json:
        drawn = wanted if wanted is not None else usual(steps for _, steps in read)
        rows = [{"run": name, "steps": len(steps), "loss": steps.last("loss")} for name, steps in read]
        print_json({"out": str(path), "metrics": drawn, "runs": rows})
        return
    for name, steps in read:
        entropy = steps.about("unigram_entropy")
        beside = f", unigram entropy {entropy:.3f}" if entropy is not None else ""
        loss = steps.last("loss")
        write(f"{name}: {len(steps):,} steps" + (f", loss {loss:.4f}{beside}" if loss is not None else "") + "\n")
    write(f"{path}\n")
