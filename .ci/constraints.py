"""Print the versions that this environment has of all that `camelid[test]` needs: constraints for pip.

torch is left out, and SymPy, which torch needs too: which of them fit is the machine's affair, and the Makefile asks
for torch by name.
"""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LEFT_OUT = {"camelid", "torch", "sympy", "mpmath"}
PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ABOUT = """\
# What the whole suite passed with. `make` uses it, `make constraints` writes it from an environment that passed;
# `make CONSTRAINTS= test constraints` in a clean clone tries the newest of everything. Not for `pip install camelid`.
"""


def needed() -> dict[str, str]:
    """Package → version, of everything that installing `camelid[test]` brings here."""
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(Requirement(line), "") for line in PROJECT["dependencies"]]
    waiting += _extra("test")
    while waiting:
        asked, extra = waiting.pop()
        name = canonicalize_name(asked.name)
        if asked.marker is not None and not asked.marker.evaluate({"extra": extra}):
            continue
        if name == "camelid":
            waiting += [requirement for wanted in asked.extras for requirement in _extra(wanted)]
        if name in LEFT_OUT:
            continue
        new = [wanted for wanted in ("", *asked.extras) if (name, wanted) not in seen]
        seen |= {(name, wanted) for wanted in new}
        try:
            here = distribution(name)
        except PackageNotFoundError:
            sys.exit(f"{asked}: is not installed here; run `make test` first")
        found[name] = here.version.partition("+")[0]
        waiting += [(Requirement(line), wanted) for line in here.requires or () for wanted in new]
    return found


def _extra(name: str) -> list[tuple[Requirement, str]]:
    return [(Requirement(line), "") for line in PROJECT["optional-dependencies"][name]]


if __name__ == "__main__":
    lines = [f"{name}=={version}" for name, version in sorted(needed().items())]
    sys.stdout.write(ABOUT + "\n".join(lines) + "\n")
