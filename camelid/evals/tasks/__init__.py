"""The table of tasks: a name on the command line, and the file that has it, loaded when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping

from camelid.errors import OptionError, one_of
from camelid.evals.task import Task

# Name up to ":" → module of this package. A module's `TASKS` is a tuple of its tasks: `(Mmlu(), Mmlu(chat=True))` has
# `mmlu` and `mmlu:chat` under the row "mmlu": "mmlu".
_HOMES: dict[str, str] = {
    "gsm8k": "gsm8k",
    "ifeval": "ifeval",
    "math": "math",
    "mt-bench": "mt_bench",
    "xstest": "xstest",
    "humaneval": "humaneval",
    "humaneval-infill": "infill",
    "mbpp": "mbpp",
    "arc-easy": "choices",
    "arc-challenge": "choices",
    "boolq": "choices",
    "commonsenseqa": "choices",
    "copa": "choices",
    "gpqa": "gpqa",
    "hellaswag": "choices",
    "lambada": "choices",
    "mmlu": "mmlu",
    "openbookqa": "choices",
    "perplexity": "perplexity",
    "piqa": "choices",
    "sciq": "choices",
    "socialiqa": "choices",
    "winogrande": "choices",
}


class _Tasks(Mapping[str, Task]):
    """Name → task. Looking one up loads its module; counting and listing load all."""

    def __getitem__(self, name: str) -> Task:
        home = _HOMES.get(name.partition(":")[0])
        found = {} if home is None else tasks_of(home)
        if name not in found:
            raise KeyError(name)
        return found[name]

    def __iter__(self) -> Iterator[str]:
        for home in dict.fromkeys(_HOMES.values()):
            yield from tasks_of(home)

    def __len__(self) -> int:
        return sum(1 for _ in self)


TASKS = _Tasks()


def tasks_of(home: str) -> dict[str, Task]:
    """The tasks of a module of this package, by name."""
    module = importlib.import_module(f"{__name__}.{home}")
    return {task.name: task for task in module.TASKS}


def find_task(name: str) -> Task:
    """The task called `name`.

    Raises:
        OptionError: no such task; says which names are near.
    """
    try:
        return TASKS[name]
    except KeyError:
        raise OptionError(f"{name}: no such task; {one_of(name, TASKS)}", param="task") from None
