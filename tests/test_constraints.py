"""constraints.txt: versions the suite has passed with, for `make`; `pip install camelid` does not know them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LINES = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
PINNED = dict(line.split("==") for line in LINES)


def test_each_dependency_is_pinned_within_the_bounds_we_state():
    extras = PROJECT["optional-dependencies"]
    stated = PROJECT["dependencies"] + [line for name in ("data", "plots", "test") for line in extras[name]]
    for asked in map(Requirement, stated):
        if (name := canonicalize_name(asked.name)) != "camelid":
            assert name in PINNED, f"{name}: run `make constraints` when the suite has passed"
            assert Version(PINNED[name]) in asked.specifier
    assert sorted(PINNED) == list(PINNED)


def test_torch_is_the_machines_affair():
    """A machine may bring its own build; a pin would have pip replace it."""
    assert not [name for name in PINNED if re.match("torch|nvidia|triton|sympy", name)]
    assert not [version for version in PINNED.values() if "+" in version]


def test_what_is_written_is_what_is_installed():
    command = [sys.executable, str(ROOT / ".ci" / "constraints.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    written = dict(line.split("==") for line in done.stdout.splitlines() if not line.startswith("#"))
    assert {"numpy", "hypothesis", "huggingface-hub", "markupsafe"} <= set(written)
    import numpy as np

    assert written["numpy"] == np.__version__


def test_make_uses_them():
    makefile = (ROOT / "Makefile").read_text()
    assert "-c $(CONSTRAINTS)" in makefile
    assert "pip install --quiet -e" not in makefile
