"""run.json: what made a folder or file, from what, with which code and options. Written at birth, not later."""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from camelid import __version__
from camelid.errors import FormatError, MissingError
from camelid.files import sha256, whole_file
from camelid.parsing import MAX_JSON, parse_json

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
        "commit": code_commit(),
        "python": platform.python_version(),
        "libraries": _versions(),
        "machine": f"{platform.system()} {platform.machine()}",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    target = pedigree_path(made)
    with whole_file(target) as file:  # bytes of a name that are not UTF-8 become JSON's own escapes, as \udce9
        file.write(json.dumps(record, indent=2, ensure_ascii=False).encode(errors="backslashreplace") + b"\n")
    return target


def read_pedigree(made: Path) -> dict[str, Any]:
    """The record of a folder or file.

    Raises:
        MissingError: it has none.
        FormatError: it cannot be read.
    """
    path = pedigree_path(made)
    try:
        with path.open("rb") as file:
            record = parse_json(file.read(MAX_JSON + 1))
    except FileNotFoundError:
        raise MissingError(f"{made}: no {path.name} says how it was made; make it again with camelid") from None
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: not a readable record ({error}); restore it, or make {made.name} again") from None
    if not isinstance(record, dict) or not {"command", "inputs", "camelid"} <= set(record):
        raise FormatError(f"{path}: not a record of camelid's; restore it, or make {made.name} again")
    return record


def pedigree_path(made: Path) -> Path:
    """Where the record of a folder or file lies."""
    return made / NAME if made.is_dir() else made.with_name(f"{made.name}.{NAME}")


def describe_file(path: Path) -> dict[str, Any]:
    """A file's name, length in bytes, and SHA-256."""
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}


def code_commit() -> str | None:
    """The commit of the checkout this code runs from, with `+` if it was changed; None for an installed package."""
    root = Path(__file__).resolve().parent.parent
    top, _, commit = (_git(root, "rev-parse", "--show-toplevel", "HEAD") or "").partition("\n")
    if not commit or Path(top).resolve() != root:  # installed inside somebody's own repository
        return None
    changed = _git(root, "status", "--porcelain", "--", "camelid")
    return commit + ("+" if changed != "" else "")


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints, stripped; None if it fails or is not installed."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _versions() -> dict[str, str]:
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
