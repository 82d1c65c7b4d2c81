"""Runs a task: asks a model, records, scores. (Being written.)"""

from __future__ import annotations

from typing import Any


def evaluate(*args: Any, **kwargs: Any) -> Any:
    """Ask a model a task."""
    raise NotImplementedError
