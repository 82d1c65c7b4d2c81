"""Public names that load on first use, so that importing camelid costs nothing (PEP 562)."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any


def load_name(package: str, homes: Mapping[str, str], name: str) -> Any:
    """The object `name` from the module of `package` that `homes` says; AttributeError for any other name."""
    if name not in homes:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
