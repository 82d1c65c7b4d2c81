"""Several processes that train together on this machine, as torchrun would start them."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from camelid.recipe import Recipe, read_recipe
from camelid.train.events import Event, Step
from camelid.train.parallel import Parallel
from camelid.train.run import train
from camelid.train.run_stage import RunStage

ROOT = Path(__file__).parent.parent.parent


def pretrain(recipe: Recipe, run: Path, parallel: Parallel, **more: Any) -> Iterator[Event]:
    """A session of pretraining, as `camelid train` begins it, on data that is there."""
    return train(RunStage(recipe, "pretrain", run, parallel), prepares=False, **more)


def steps_of(recipe: Recipe, run: Path, parallel: Parallel, **more: Any) -> Iterator[Step]:
    """The steps of such a session."""
    return (event for event in pretrain(recipe, run, parallel, **more) if isinstance(event, Step))


def together(ranks: int, tensor_parallel: int, sessions: list[dict[str, Any]], seconds: float = 300) -> str:
    """Let `ranks` processes train, one session after another; each has recipe, run, changes, stop_after.

    Returns what they said on standard error.
    """
    command = [sys.executable, "-m", "tests.train.ranks", str(tensor_parallel), json.dumps(sessions, default=str)]
    started = begin_together(ranks, command, cwd=ROOT)
    said = [process.communicate(timeout=seconds)[1] for process in started]
    for process, words in zip(started, said, strict=True):
        if process.returncode:
            raise AssertionError(f"a process ended with {process.returncode}: {words}")
    return "\n".join(said)


def begin_together(ranks: int, command: list[str], **more: Any) -> list[subprocess.Popen[str]]:
    """The same command as several ranks."""
    port = str(_free_port())
    places = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            command,
            env={**os.environ, **places, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )
        for rank in range(ranks)
    ]


def _free_port() -> int:
    """One that no outgoing connection is given (those are above 32767), as it is free for seconds before it is used."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port


def main() -> None:
    with Parallel(int(sys.argv[1])) as parallel:
        for session in json.loads(sys.argv[2]):
            recipe = read_recipe(session["recipe"], session.get("changes", ()))
            list(pretrain(recipe, Path(session["run"]), parallel, stop_after=session.get("stop_after")))
            parallel.barrier()


if __name__ == "__main__":
    main()
