"""The steps of `camelid prepare` for datatrove's executors, which run them on SLURM, on Ray, or here.

Each step is a function of datatrove's kind, of (data, rank, world_size), so that datatrove itself is not needed here.
What the steps leave is what `camelid prepare` leaves, and either goes on where the other stopped.

    last = None
    for step in steps("recipes/llama2-7b.toml"):
        last = SlurmPipelineExecutor(pipeline=[step], tasks=step.tasks, depends=last, ...)
    last.run()
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from camelid.data.document import Document
from camelid.data.filters.rules import Filters
from camelid.data.prepare import Preparation
from camelid.data.workers import Workers
from camelid.errors import OptionError
from camelid.recipe import read_recipe
from camelid.run_layout import DATA, RUNS

MOST_TASKS = 1000  # of one array, on most clusters

StepName = Literal["read", "compare", "keep", "learn", "encode", "finish"]
_SHARED: tuple[StepName, ...] = ("read", "keep", "encode")  # by many tasks; the others are done by one


@dataclass(frozen=True)
class PrepareStep:
    """One step of a preparation, to be an executor's whole pipeline.

    Attributes:
        name: of the step.
        recipe, changes: as for `camelid prepare`.
        folder: of the data.
        tasks: how many the executor shall run; for fewer or more the result is the same.
    """

    name: StepName
    recipe: str
    changes: tuple[str, ...]
    folder: str
    tasks: int

    def __call__(self, data: object = None, rank: int = 0, world_size: int = 1) -> None:
        """Do what falls to one task.

        Raises:
            OptionError: an earlier step is not done, or several tasks do what one must do.
        """
        work = Preparation(read_recipe(self.recipe, self.changes), Path(self.folder), 1, None)
        if work.folder.is_finished():
            return
        if self.name not in _SHARED:
            if world_size != 1:
                raise OptionError(f"step {self.name}: is done by one task, got {world_size}; give tasks=step.tasks")
            rank = 0
        part = slice(rank, None, world_size)
        with Workers(1) as pool:
            if self.name == "read":
                work.read(pool, part)
            elif self.name == "compare":
                work.compare()
            elif self.name == "keep":
                work.keep(pool, part)
            elif self.name == "learn":
                work.learn()
            elif self.name == "encode":
                work.encode(pool, part)
            else:
                work.finish(pool)


def steps(
    recipe: str | Path, changes: Sequence[str] = (), out: str | Path = RUNS, most_tasks: int = MOST_TASKS
) -> list[PrepareStep]:
    """All steps of a preparation, each to be run when the one before is done; makes the data folder.

    Args:
        recipe: a .toml file that all machines see under this path, or the name of one that comes with camelid.
        changes: TABLE.KEY=VALUE, as `--set`.
        out: folder of runs, which all machines see.
        most_tasks: of one step.

    Raises:
        OptionError: something in the recipe is wrong, or the folder was made from something else.
        MissingError: files or libraries that are not there.
    """
    read = read_recipe(recipe, changes)
    folder = Path(out).resolve() / read.name / DATA
    work = Preparation(read, folder, 1, None)
    if work.folder.is_finished():
        work.folder.check_finished(read)
    else:
        with work.folder.locked():
            work.folder.record_plan(work.plan())
            work.folder.make()
    many = max(1, min(most_tasks, len(work.units)))
    place = str(Path(recipe).resolve()) if Path(recipe).exists() else str(recipe)
    names: tuple[StepName, ...] = ("read", "compare", "keep", "learn", "encode", "finish")
    return [PrepareStep(name, place, tuple(changes), str(folder), many if name in _SHARED else 1) for name in names]


class DatatroveDocument(Protocol):
    """What is used of datatrove's `Document`."""

    text: str
    id: str
    metadata: dict[str, Any]


@dataclass
class Rules:
    """Rules of `[data.rules]` for the middle of somebody's own datatrove pipeline.

    Attributes:
        rules: rule → thresholds that differ from the defaults.
        folder: that files named in rules are relative to.

    Raises:
        OptionError: an unknown rule or threshold, or a value that is refused.
    """

    rules: Mapping[str, Mapping[str, Any]]
    folder: Path = field(default_factory=Path)

    def __post_init__(self) -> None:
        Filters(self.rules, self.folder)

    def __call__(
        self, data: Iterable[DatatroveDocument], rank: int = 0, world_size: int = 1
    ) -> Iterator[DatatroveDocument]:
        """The documents that stay, changed where a rule changes them."""
        filters = Filters(self.rules, self.folder)
        for document in data:
            url, licence = document.metadata.get("url"), document.metadata.get("licence", "")
            passed = filters(Document(document.text, document.id, "datatrove", url, licence, document.metadata))
            if passed is not None:
                document.text = passed[0].text
                document.metadata = dict(passed[0].meta)
                yield document
