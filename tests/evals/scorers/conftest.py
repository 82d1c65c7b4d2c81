"""Real answers and golds, where a folder of them is at hand."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def real_rows() -> Callable[[str], Iterator[dict[str, Any]]]:
    """Rows of a gzipped JSON-lines file below `CAMELID_TEST_DATA`."""
    folder = Path(os.environ.get("CAMELID_TEST_DATA", "nowhere"))

    def rows(name: str) -> Iterator[dict[str, Any]]:
        if not (folder / name).exists():
            pytest.skip(f"no {name} in the folder that CAMELID_TEST_DATA names")
        with gzip.open(folder / name, "rt", encoding="utf-8") as file:
            yield from map(json.loads, file)

    return rows
