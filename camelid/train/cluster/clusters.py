"""Clusters: what a batch script must say there. From the sites' public pages, November 2026; a site may change.

Sources: docs.hpc.cineca.it (Leonardo), docs.lumi-supercomputer.eu (LUMI), docs.it4i.cz (Karolina),
www.bsc.es/supportkc (MareNostrum 5). No torch here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cluster:
    """One partition of one cluster.

    Attributes:
        title: in words.
        partition: SLURM's name; None leaves it to the cluster's default.
        gpus: of a node; 0: trains on processors, one process a node.
        cores: of a node that a job may use; 0: as many as the machine has that writes the script.
        longest: longest time of a job, in minutes.
        account: whether a project must be named.
        gpu_line: how a script asks for n GPUs of each node.
        modules: to load first.
        exports: variables that every process wants.
        offline: whether compute nodes have no way to the internet.
        scratch: where large and short-lived files belong, as the shell sees it.
        notes: for the reader of the script.
    """

    title: str
    partition: str | None
    gpus: int
    cores: int
    longest: int
    account: bool = True
    gpu_line: str = "--gpus-per-node={gpus}"
    modules: tuple[str, ...] = ()
    exports: tuple[tuple[str, str], ...] = ()
    offline: bool = False
    scratch: str = ""
    notes: tuple[str, ...] = ()


_HOUR, _DAY = 60, 24 * 60
_LEONARDO_MODULES = ("python/3.11.6--gcc--8.5.0",)

CLUSTERS: dict[str, Cluster] = {
    "local": Cluster("This machine, or a cluster without a row here", None, 0, 0, _DAY, account=False),
    "leonardo-booster": Cluster(
        "Leonardo Booster, CINECA: 4 NVIDIA A100 of 64 GB",
        "boost_usr_prod",
        gpus=4,
        cores=32,
        longest=_DAY,
        gpu_line="--gres=gpu:{gpus}",
        modules=_LEONARDO_MODULES,
        offline=True,
        scratch="$SCRATCH",
        notes=("For a trial of at most 30 minutes on 2 nodes add: #SBATCH --qos=boost_qos_dbg",),
    ),
    "leonardo-dcgp": Cluster(
        "Leonardo Data Centric, CINECA: two Xeon 8480+, 112 cores",
        "dcgp_usr_prod",
        gpus=0,
        cores=112,
        longest=_DAY,
        modules=_LEONARDO_MODULES,
        offline=True,
        scratch="$SCRATCH",
    ),
    "lumi-g": Cluster(
        "LUMI-G, CSC: 4 AMD MI250X, which are 8 GPUs of 64 GB",
        "standard-g",
        gpus=8,
        cores=56,  # of 64; one of each eight is kept for the system
        longest=2 * _DAY,
        exports=(("NCCL_SOCKET_IFNAME", "hsn"), ("MIOPEN_USER_DB_PATH", "/tmp/$USER-miopen-$SLURM_JOB_ID")),
        scratch="/scratch/$SLURM_JOB_ACCOUNT",
        notes=("torch must be built for ROCm here.",),
    ),
    "karolina": Cluster(
        "Karolina GPU, IT4Innovations: 8 NVIDIA A100 of 40 GB",
        "qgpu",
        gpus=8,
        cores=128,
        longest=2 * _DAY,
        scratch="/scratch/project/$SLURM_JOB_ACCOUNT",
    ),
    "marenostrum5-acc": Cluster(
        "MareNostrum 5 accelerated, BSC: 4 NVIDIA H100 of 64 GB",
        "acc",
        gpus=4,
        cores=80,
        longest=2 * _DAY,
        gpu_line="--gres=gpu:{gpus}",
        offline=True,
        scratch="$SCRATCH",
        notes=("Name your queue too: #SBATCH --qos=acc_ehpc, or the one of your project.",),
    ),
}
