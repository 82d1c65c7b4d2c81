"""Which process of a run this is, as torchrun or srun tell it through the environment. No torch here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from camelid.errors import OptionError


@dataclass(frozen=True)
class Launch:
    """How this process was started, among those of a run.

    Attributes:
        rank: its number, of `n_ranks`.
        local_rank: its number on its own machine; also that of its GPU.
        address, port: where rank 0 listens.
    """

    rank: int = 0
    n_ranks: int = 1
    local_rank: int = 0
    address: str = "127.0.0.1"
    port: int = 0


def read_launch(environment: Mapping[str, str]) -> Launch:
    """Read it from torchrun's variables, else from srun's; without either there is one process.

    A batch script outside srun has variables of its job, but none of a job step: there it is one process too.

    Raises:
        OptionError: the variables contradict each other.
    """
    try:
        if "RANK" in environment and "WORLD_SIZE" in environment:
            launch = _torchrun(environment)
        elif int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and "SLURM_PROCID" in environment:
            launch = _srun(environment)
        else:
            return Launch()
    except (KeyError, ValueError) as error:
        raise OptionError(f"the environment names ranks, but not as torchrun or srun do: {error}") from None
    if not 0 <= launch.rank < launch.n_ranks:
        raise OptionError(f"the environment says rank {launch.rank} of {launch.n_ranks}; start it by torchrun or srun")
    return launch


def first_host(nodes: str) -> str:
    """The first of SLURM's list of hosts: `lrdn[0012-0015,0020],x1` → `lrdn0012`."""
    match = re.match(r"([^,\[]+)(?:\[([^\],-]+))?", nodes)
    if match is None:
        raise ValueError(f"no list of hosts: {nodes!r}")
    rest = nodes[nodes.index("]") + 1 :].partition(",")[0] if match[2] else ""
    return match[1] + (match[2] or "") + rest


def _torchrun(environment: Mapping[str, str]) -> Launch:
    rank, count = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    local = int(environment.get("LOCAL_RANK", rank))
    return Launch(rank, count, local, environment["MASTER_ADDR"], int(environment["MASTER_PORT"]))


def _srun(environment: Mapping[str, str]) -> Launch:
    """Every process derives the same port from the job, so that two jobs on a machine do not meet."""
    job, step = int(environment["SLURM_JOB_ID"]), int(environment["SLURM_STEP_ID"])
    nodes = environment.get("SLURM_STEP_NODELIST") or environment["SLURM_JOB_NODELIST"]
    port = int(environment.get("MASTER_PORT", 20_000 + (job * 7 + step) % 20_000))
    address = environment.get("MASTER_ADDR") or first_host(nodes)
    rank, count = int(environment["SLURM_PROCID"]), int(environment["SLURM_STEP_NUM_TASKS"])
    return Launch(rank, count, int(environment["SLURM_LOCALID"]), address, port)
