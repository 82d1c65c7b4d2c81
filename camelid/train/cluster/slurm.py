"""A batch script for SLURM that a person can read, change and submit again. No torch here."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from camelid.errors import OptionError
from camelid.run_layout import LATEST
from camelid.train.cluster.clusters import Site
from camelid.train.cluster.preemption import STATUS
from camelid.train.stages import FIRST

_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d\d))?(?::(\d\d))?")


@dataclass(frozen=True)
class Job:
    """What a script is made for.

    Attributes:
        site: a row of SITES.
        name: of the run.
        recipe: path of the recipe's file, or the name of one that comes with camelid.
        folder: where runs lie; the script itself, its log and the run itself are in FOLDER/NAME.
        nodes: machines.
        processes: of each machine: one for each GPU, or for several shares of its processors.
        gpus: of each machine.
        minutes: of one job.
        directory: where the command runs; recipe and folder are relative to it.
        python: the interpreter that has camelid.
        stage: the folder with checkpoints, below FOLDER/NAME.
        changes: of the recipe, as --set takes them.
        account, partition: in the site's words; None leaves them to the site.
        chain: submit a new job, where the site lets none be put back into the queue.
    """

    site: Site
    name: str
    recipe: str
    folder: Path
    nodes: int
    processes: int
    gpus: int
    minutes: int
    directory: Path
    python: str
    stage: str = FIRST
    changes: Sequence[str] = ()
    account: str | None = None
    partition: str | None = None
    chain: bool = False

    @property
    def script(self) -> Path:
        """Where the script lies."""
        return self.folder / self.name / f"{self.name}.sbatch"

    @property
    def cores(self) -> int:
        """Of each process."""
        return max(1, (self.site.cores or os.cpu_count() or 1) // self.processes)


def script(job: Job) -> str:
    """The text of the script: directives, what the site wants, a look at every node, the run, and what comes after."""
    return "\n".join([*_head(job), "", *_place(job), "", *_health(job), "", *_run(job), "", *_after(job)]) + "\n"


def minutes(time: str) -> int:
    """SLURM's way to write a time, in minutes, rounded up: MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS.

    Raises:
        OptionError: it is none of these, or nothing.
    """
    match = _TIME.fullmatch(time)
    if match is None:
        raise OptionError(f"time: wants HH:MM:SS or D-HH:MM:SS, got {time!r}")
    days, *rest = match.groups()
    parts = [int(part) for part in rest if part is not None]
    if days is None and len(parts) < 3:
        parts = [0, *parts]  # MM or MM:SS
    hours, mins, seconds = [*parts, 0, 0][:3]
    total = int(days or 0) * 1440 + hours * 60 + mins + (seconds > 0)
    if not total:
        raise OptionError(f"time: must be longer than nothing, got {time!r}")
    return total


def as_time(total: int) -> str:
    """Minutes as SLURM writes them: 1-02:30:00, or 02:30:00."""
    days, rest = divmod(total, 1440)
    return (f"{days}-" if days else "") + f"{rest // 60:02}:{rest % 60:02}:00"


def lead_seconds(total: int) -> int:
    """How long before the end of a job of so many minutes SLURM sends its signal; it may come a minute earlier."""
    return max(30, min(300, total * 60 // 20))


def _head(job: Job) -> list[str]:
    said = {
        "job-name": f"camelid-{job.name}",
        "account": job.account,
        "partition": job.partition or job.site.partition,
        "nodes": job.nodes,
        "ntasks-per-node": job.processes,
        "cpus-per-task": job.cores,
    }
    lines = [f"#SBATCH --{name}={value}" for name, value in said.items() if value is not None]
    if job.gpus:
        lines.append(f"#SBATCH {job.site.gpu_line.format(gpus=job.gpus)}")
    return [
        "#!/bin/bash",
        f"# {job.site.title}",
        f"# Submit it from anywhere: sbatch {shlex.quote(str(job.directory / job.script))}",
        *(f"# {note}" for note in job.site.notes),
        *([f"# Large files belong in {job.site.scratch}: see --out."] if job.site.scratch else []),
        *lines,
        f"#SBATCH --time={as_time(job.minutes)}",
        f"#SBATCH --signal=USR1@{lead_seconds(job.minutes)}    # all processes save and end with status {STATUS}",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        f'#SBATCH --output="{job.directory / job.folder / job.name}/slurm-%j.log"',  # sbatch knows quotes
    ]


def _place(job: Job) -> list[str]:
    lines = ["set -u", f"cd {shlex.quote(str(job.directory))} || exit 1"]
    lines += [f"module load {name}" for name in job.site.modules]
    lines += [f'export {name}="{value}"' for name, value in job.site.exports]
    if job.site.offline:
        lines.append("export HF_HUB_OFFLINE=1    # compute nodes have no internet: run `camelid prepare` before")
    lines.append(f"export OMP_NUM_THREADS={job.cores}")
    lines.append(f"camelid=({shlex.quote(job.python)} -m camelid)")
    changes = "".join(f" --set {shlex.quote(change)}" for change in job.changes)
    lines.append(f"recipe=({shlex.quote(job.recipe)} --out {shlex.quote(str(job.folder))}{changes})")
    return lines


def _health(job: Job) -> list[str]:
    """One process a node, before hours are spent: does the run's folder take files, does torch see the GPUs?"""
    folder = shlex.quote(str(job.folder / job.name))
    test = f'file={folder}/.health-$SLURM_JOB_ID-$(hostname) && touch "$file" && rm "$file"'
    if job.gpus:
        look = f"import sys, torch; sys.exit(torch.cuda.device_count() < {job.gpus})"
        test += f' && {shlex.quote(job.python)} -c "{look}"'
    test += ' || { echo "$(hostname) is not well"; exit 1; }'
    return [
        "# A look at every node; the job ends here, and says where, if one is not well.",
        'srun --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --kill-on-bad-exit=1 \\',
        f"    bash -c {shlex.quote(test)} || exit 1",
    ]


def _run(job: Job) -> list[str]:
    everything = job.cores * job.processes
    return [
        f"latest() {{ readlink {shlex.quote(str(job.folder / job.name / job.stage / LATEST))}; }}",
        "before=$(latest)",
        'echo "job $SLURM_JOB_ID on $SLURM_JOB_NODELIST goes on from ${before:-the beginning}"',
        "# Data that is there already is not made again.",
        f'srun --nodes=1 --ntasks=1 --cpus-per-task={everything} "${{camelid[@]}}" prepare "${{recipe[@]}}"',
        "status=$?",
        'if [ "$status" -eq 0 ]; then',
        # One that ends early must not have the others killed while they are ending too.
        '    srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=0 --wait=60 \\',
        '        "${camelid[@]}" train "${recipe[@]}"',
        "    status=$?",
        "fi",
    ]


def _after(job: Job) -> list[str]:
    again = f"sbatch {shlex.quote(str(job.directory / job.script))}"
    return [
        f"# {STATUS}: training has saved before the end; 138: the signal came while data was prepared. Both go on",
        "# where they were, unless nothing was learned in all this time.",
        f'if [ "$status" -eq 138 ] || {{ [ "$status" -eq {STATUS} ] && [ "$(latest)" != "$before" ]; }}; then',
        f"    {again} && exit 0" if job.chain else '    scontrol requeue "$SLURM_JOB_ID"',
        "fi",
        'exit "$status"',
    ]
