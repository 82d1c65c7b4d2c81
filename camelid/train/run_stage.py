"""One stage of a run: where it lies, what the recipe says of it, and which model it begins from. No torch here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camelid.errors import MissingError, OptionError
from camelid.hub.store import resolve
from camelid.recipe import Recipe, stage_kind
from camelid.run_layout import DATA, newest_checkpoint
from camelid.train.options import RunOptions

if TYPE_CHECKING:
    from camelid.data.estimate import Estimate
    from camelid.data.prepare import Progress
    from camelid.train.parallel import Parallel

log = logging.getLogger(__name__)

CodeReward = Callable[[str, Mapping[str, Any]], float]
"""(answer, what the data says of its prompt) → reward: a check by code, as whether a sum is right."""

WITHOUT_POLICY = ("reward",)  # kinds whose model does not write


@contextmanager
def _no_bars() -> Iterator[Progress]:
    yield lambda what, done, of: None


@dataclass(frozen=True)
class Show:
    """How a person sees what a stage prepares; who calls brings it. Nothing is shown by default.

    Attributes:
        bars: a context that gives what is called with what is done: its name, how much of it, and of how much.
        planned: called with what preparing will take, before it begins.
        note: called with a line that a person should read.
    """

    bars: Callable[[], AbstractContextManager[Progress]] = _no_bars
    planned: Callable[[Estimate], None] | None = None
    note: Callable[[str], None] = log.warning


@dataclass(frozen=True)
class RunStage:
    """A stage of a run, on one rank.

    Attributes:
        recipe: of the run.
        name: of the stage, as ppo-2.
        run: the run's folder, as runs/tiny.
        parallel: the ranks.
        rewards: rewards by code that the caller knows, by name.
        show: how a person sees what it prepares.
    """

    recipe: Recipe
    name: str
    run: Path
    parallel: Parallel
    rewards: Mapping[str, CodeReward] = field(default_factory=dict)
    show: Show = field(default_factory=Show)

    @property
    def kind(self) -> str:
        """What it does, as ppo."""
        return stage_kind(self.name)

    @property
    def folder(self) -> Path:
        """Of its checkpoints and its record."""
        return self.run / self.name

    @property
    def data(self) -> Path:
        """Of what it learns from: the run's own documents for pretraining, else a folder of the stage."""
        return self.run / DATA if self.kind == "pretrain" else self.folder / DATA

    def options(self, kind: type[RunOptions]) -> Any:
        """Its table, read.

        Raises:
            OptionError: the recipe is wrong.
        """
        return self.recipe.stage_table(self.name, kind)

    def start(self, named: str | None = None) -> Path | None:
        """The model that it begins from: what `named` says, else the newest checkpoint of the stage before it whose
        model writes, else the recipe's base.

        Args:
            named: a stage of this recipe, a model's name, or a path.

        Returns:
            a folder or a file for `open_weights`; None where a new model begins.

        Raises:
            MissingError: the stage before it has no checkpoint yet, or no such model is here.
        """
        if named is not None:
            return self.model_of(named) if named in self.recipe.stages else resolve(named)
        before = [name for name in self._earlier() if stage_kind(name) not in WITHOUT_POLICY]
        if before:
            return self.model_of(before[-1])
        return None if self.recipe.base is None else resolve(self.recipe.base)

    def model_of(self, stage: str) -> Path:
        """The newest checkpoint of another stage of this run.

        Raises:
            OptionError: this recipe has no such stage. MissingError: it has no checkpoint.
        """
        if stage not in self.recipe.stages:
            raise OptionError(f"{self.name}: no stage {stage} in this recipe; it has {', '.join(self.recipe.stages)}")
        found = newest_checkpoint(self.run / stage)
        if found is None:
            raise MissingError(f"{self.run / stage}: no checkpoint is there, and {self.name} begins from it")
        return found

    def _earlier(self) -> tuple[str, ...]:
        stages = self.recipe.stages
        return stages[: stages.index(self.name)] if self.name in stages else ()
