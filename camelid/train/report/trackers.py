"""A run's numbers in other people's tools: TensorBoard and Weights & Biases, beside metrics.jsonl.

A row of `TRACKERS` takes the stage's folder, the step it goes on from and what the recipe says, and gives a `Tracker`.
Their packages are extras, imported when a recipe names them: `log_to = ["tensorboard"]`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from camelid.errors import MissingError, OptionError, ResourceError, one_of


class Tracker(Protocol):
    """Something that gets every step."""

    def step(self, values: Mapping[str, float]) -> None:
        """Take a step's numbers, `step` among them."""

    def close(self) -> None:
        """Nothing more will come; what it got is kept."""


class TensorBoard:
    """Writes event files to `tensorboard/` in the stage's folder; `tensorboard --logdir runs` shows them."""

    def __init__(self, folder: Path, start: int, about: Mapping[str, Any]) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise MissingError("log_to: tensorboard needs: pip install 'camelid[tensorboard]'") from None
        # Files are named by the second; the suffix keeps a quick restart from writing over the one before.
        place, mark = str(folder / "tensorboard"), f".from{start}-{secrets.token_hex(2)}"
        self._writer = SummaryWriter(place, purge_step=start + 1, filename_suffix=mark)
        if not start:
            self._writer.add_text("recipe", "    " + str(about.get("recipe", about)).replace("\n", "\n    "), 0)

    def step(self, values: Mapping[str, float]) -> None:
        """One scalar a number, in order of steps."""
        for name, value in values.items():
            if name not in ("step", "time"):
                self._writer.add_scalar(f"train/{name}", value, int(values["step"]), values.get("time"))

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()


class WeightsAndBiases:
    """Logs to a run of Weights & Biases that has the folder's name; a resumed run goes on there.

    Who logs in, where, and whether at all ($WANDB_MODE=offline) is wandb's own affair.
    """

    def __init__(self, folder: Path, start: int, about: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError:
            raise MissingError("log_to: wandb needs: pip install 'camelid[wandb]'") from None
        note = folder / "wandb.id"
        if not note.exists():
            note.write_text(secrets.token_hex(4), encoding="utf-8")
        try:
            self._run = wandb.init(
                project="camelid",
                name=f"{folder.parent.name}/{folder.name}",
                id=note.read_text(encoding="utf-8").strip(),
                resume="allow",
                dir=str(folder),
                config=dict(about),
            )
        except Exception as error:  # wandb has many kinds: no login, no network, a mode that is none
            raise ResourceError(f"log_to: wandb did not start ({error}); log in, or set WANDB_MODE=offline") from None
        self._run.define_metric("*", step_metric="step")  # its own count cannot go back after a resume

    def step(self, values: Mapping[str, float]) -> None:
        """All numbers in one call."""
        self._run.log(dict(values))

    def close(self) -> None:
        """Upload what is left."""
        self._run.finish()


TRACKERS: dict[str, Callable[[Path, int, Mapping[str, Any]], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}


def open_trackers(names: Iterable[str], folder: Path, start: int, about: Mapping[str, Any]) -> list[Tracker]:
    """The trackers that a recipe names.

    Args:
        names: keys of `TRACKERS`.
        folder: of the stage, there already.
        start: steps that lie behind.
        about: what they keep of the run: the recipe as JSON.

    Raises:
        OptionError: there is no such tracker.
        MissingError: its package is not installed.
        ResourceError: it does not start.
    """
    opened: list[Tracker] = []
    for name in names:
        if name not in TRACKERS:
            raise OptionError(f"log_to: no {name!r}; {one_of(name, TRACKERS)}")
        opened.append(TRACKERS[name](folder, start, about))
    return opened
