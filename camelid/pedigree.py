"""run.json: what made a folder or file, from what, with which code and options. Written at birth, not later."""

from __future__ import annotations

import datetime
import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from camelid import __version__

NAME = "run.json"
LIBRARIES = ("numpy", "tokenizers", "torch")


def write_pedigree(
    made: Path,
    command: str,
    inputs: Iterable[Path],
    options: Mapping[str, Any],
    counts: Mapping[str, Any] | None = None,
) -> Path:
    """Record how `made` came to be: `run.json` in a folder, `NAME.run.json` beside a file; complete or not at all.

    Args:
        made: the folder or file that was made.
        command: the verb.
        inputs: files that it was made from; each is hashed.
        options: what was chosen, as JSON values.
        counts: numbers worth keeping.
    """
    record = {
        "made": made.name,
        "command": command,
        "options": dict(options),
        "inputs": [describe_file(path) for path in inputs],
        "counts": dict(counts or {}),
        "camelid": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "libraries": _versions(),
        "machine": f"{platform.system()} {platform.machine()}",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    target = pedigree_path(made)
    beside = target.with_name(target.name + ".part")
    beside.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    beside.replace(target)
    return target


def pedigree_path(made: Path) -> Path:
    """Where the record of a folder or file lies."""
    return made / NAME if made.is_dir() else made.with_name(f"{made.name}.{NAME}")


def describe_file(path: Path) -> dict[str, Any]:
    """A file's name, length in bytes, and SHA-256."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": digest}


def _commit() -> str | None:
    """The commit of the checkout this code runs from, with `+` if it was changed; None for an installed package."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "-C", str(here), "status", "--porcelain", "--untracked-files=no", "."],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
