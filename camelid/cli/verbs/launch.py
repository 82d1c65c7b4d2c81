"""Write a batch script that trains a recipe on a cluster, and goes on when the time is up."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from camelid.cli.console import print_json
from camelid.cli.options import Json
from camelid.errors import MissingError, OptionError, ResourceError, one_of
from camelid.run_layout import RUNS
from camelid.streams import write

if TYPE_CHECKING:
    from camelid.recipe import Recipe
    from camelid.train.cluster.clusters import Cluster
    from camelid.train.cluster.slurm import Job


def run(
    scheduler: Annotated[str, typer.Argument(help="What hands out the machines: slurm.")],
    recipe: Annotated[str, typer.Argument(help="A .toml file, or the name of a recipe that comes with camelid.")],
    *,
    site: Annotated[
        str, typer.Option(help="local, leonardo-booster, leonardo-dcgp, lumi-g, karolina, marenostrum5-acc.")
    ] = "local",
    nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    gpus: Annotated[int | None, typer.Option(min=0, help="GPUs of each; all that the site has, if left out.")] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Processes of each; one for each GPU, else one, if left out.")
    ] = None,
    time: Annotated[str | None, typer.Option(help="Of one job, [D-]HH:MM:SS; the site's longest if left out.")] = None,
    account: Annotated[str | None, typer.Option(help="Project that pays.")] = None,
    partition: Annotated[str | None, typer.Option(help="Another than the site's usual one.")] = None,
    chain: Annotated[
        bool, typer.Option("--chain", help="Go on in a new job, where the site lets none return to the queue.")
    ] = False,
    set: Annotated[list[str] | None, typer.Option(help="TABLE.KEY=VALUE; changes what the recipe says.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of runs; the script is OUT/NAME/NAME.sbatch.")] = Path(RUNS),
    submit: Annotated[bool, typer.Option("--submit", help="Hand it to sbatch too.")] = False,
    json: Json = False,
) -> None:
    """The script is yours to read and change. It looks at every node first, prepares data that is missing, trains, and
    comes back until the recipe is done.
    """
    from camelid.recipe import read_recipe
    from camelid.train.cluster.slurm import Job, script

    if scheduler != "slurm":
        raise OptionError(f"{scheduler}: no such scheduler; {one_of(scheduler, ['slurm'])}")
    row, longest = _row(site, time, account)
    read, gpus = read_recipe(recipe, set or ()), row.gpus if gpus is None else gpus
    job = Job(
        cluster=row,
        name=read.name,
        recipe=str(Path(recipe).resolve() if Path(recipe).is_file() else recipe),
        folder=out,
        nodes=nodes,
        processes=processes or max(1, gpus),
        gpus=gpus,
        minutes=longest,
        directory=Path.cwd(),
        python=sys.executable,
        changes=tuple(set or ()),
        account=account,
        partition=partition,
        chain=chain,
    )
    _check_shares(read, job)
    _write(job.script, script(job))
    number = _submit(job.script) if submit else None
    if json:
        print_json({"script": str(job.script), "job": number})
    elif number is None:
        write(f"{job.script}\nread it, then: sbatch {shlex.quote(str(job.script))}\n")
    else:
        write(f"{job.script}\njob {number}; see: squeue --me\n")


def _row(name: str, time: str | None, account: str | None) -> tuple[Cluster, int]:
    """The site, and the minutes of a job there."""
    from camelid.train.cluster.clusters import CLUSTERS
    from camelid.train.cluster.slurm import as_time, minutes

    if name not in CLUSTERS:
        raise OptionError(f"--site: no {name!r}; {one_of(name, CLUSTERS)}")
    row = CLUSTERS[name]
    longest = minutes(time) if time is not None else row.longest
    if longest > row.longest:
        raise OptionError(f"--time: jobs on {name} may take {as_time(row.longest)}; it comes back until it is done")
    if row.account and account is None:
        raise OptionError(f"--account: {name} wants to know which project pays; give its name")
    return row, longest


def _check_shares(recipe: Recipe, job: Job) -> None:
    """Refuse now what every process would refuse after hours in the queue."""
    from camelid.train.stages import load_stage

    options = recipe.stage_table(job.stage, load_stage(job.stage).Options)
    ranks = job.nodes * job.processes
    if ranks % options.tensor_parallel:
        raise OptionError(f"{ranks} processes cannot be shared by tensor_parallel = {options.tensor_parallel}")
    if options.rows % (ranks // options.tensor_parallel):
        raise OptionError(
            f"a step's {options.rows} rows (batch_tokens / context) cannot be divided among "
            f"{ranks // options.tensor_parallel} readers; change --nodes, --gpus or batch_tokens"
        )


def _write(path: Path, text: str) -> None:
    from camelid.files import whole_file

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise ResourceError(f"{path}: cannot be written ({error.strerror}); choose another --out") from None


def _submit(path: Path) -> str:
    if shutil.which("sbatch") is None:
        raise MissingError(f"--submit: no sbatch on this machine; copy {path} to the cluster's login node")
    done = subprocess.run(["sbatch", "--parsable", str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ResourceError(f"sbatch refuses {path}: {' '.join(done.stderr.split())}")
    return done.stdout.strip().partition(";")[0]
