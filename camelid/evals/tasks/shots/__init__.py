"""Shots and prompts that are part of a benchmark as it was published; each file names its source and licence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def published(name: str) -> dict[str, Any]:
    """The content of `name`.json: `source`, `licence`, and `shots` or `prompts`."""
    content: dict[str, Any] = json.loads((Path(__file__).parent / f"{name}.json").read_text(encoding="utf-8"))
    return content
