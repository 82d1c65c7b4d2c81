"""Benchmarks that anyone can repeat, item by item."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from camelid.evals.run import evaluate
    from camelid.evals.task import Item, Task
    from camelid.evals.tasks import TASKS

__all__ = ["TASKS", "Item", "Task", "evaluate"]

_HOMES = {"TASKS": "tasks", "Item": "task", "Task": "task", "evaluate": "run"}


def __getattr__(name: str) -> Any:
    from camelid._lazy import load_name

    return load_name(__name__, _HOMES, name)
