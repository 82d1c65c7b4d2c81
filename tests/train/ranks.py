"""Several processes that train together on this machine, as torchrun would start them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from camelid.recipe import read_recipe
from camelid.train.parallel import Parallel
from camelid.train.stages.pretrain import pretrain

ROOT = Path(__file__).parent.parent.parent


def together(ranks: int, tensor_parallel: int, sittings: list[dict[str, Any]], seconds: float = 100) -> str:
    """Let `ranks` processes train, one sitting after another; each has recipe, run, changes, stop_after.

    Returns what they said on standard error. Raises CalledProcessError if one of them fails.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.train.ranks", str(tensor_parallel), json.dumps(sittings, default=str)]
    started = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **places, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    said = [process.communicate(timeout=seconds)[1] for process in started]
    for process, words in zip(started, said, strict=True):
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command, stderr=words)
    return "\n".join(said)


def main() -> None:
    with Parallel(int(sys.argv[1])) as parallel:
        for sitting in json.loads(sys.argv[2]):
            recipe = read_recipe(sitting["recipe"], sitting.get("changes", ()))
            list(pretrain(recipe, Path(sitting["run"]), parallel, stop_after=sitting.get("stop_after")))
            parallel.barrier()


if __name__ == "__main__":
    main()
