"""Results in a folder, and which of them are of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from camelid.errors import CamelidError, NotFoundError
from camelid.evals.identity import file_hash
from camelid.evals.records import RESULT, read_result
from camelid.hub.store import resolve


@dataclass(frozen=True)
class Found:
    """A finished result: its folder, and what its `result.json` says."""

    folder: Path
    record: dict[str, Any]

    @property
    def task(self) -> str:
        """Its name."""
        return str(self.record["task"])

    @property
    def key(self) -> tuple[str, int]:
        """Results with the same key are of the same items, asked in the same way."""
        return self.task, int(self.record["shots"])


def find_results(folder: Path) -> list[Found]:
    """All finished results below a folder.

    Raises:
        NotFoundError: no such folder.
        FormatError: a result cannot be read.
    """
    if not folder.is_dir():
        raise NotFoundError(f"{folder}: no such folder; camelid eval writes results there, --results names another")
    read = [(path.parent, read_result(path.parent)) for path in sorted(folder.glob(f"*/{RESULT}"))]
    return [Found(path, record) for path, record in read if record is not None]


def results_of(name: str, found: Sequence[Found]) -> list[Found]:
    """Those of a model: by its name in the results, or by the hash of its files where they are on this machine.

    Of results with the same task and shots the one with most items counts, of these the last written.
    """
    is_path = Path(name).expanduser().exists()
    path = _path_of(name)
    own = [
        each
        for each in found
        if (each.record["model"] == name and not is_path) or (path is not None and _is_of(each, path))
    ]
    own.sort(key=lambda each: (each.record["n"], (each.folder / RESULT).stat().st_mtime_ns))
    return list({each.key: each for each in own}.values())


def _path_of(name: str) -> Path | None:
    """Where the model lies on this machine."""
    try:
        return resolve(name)
    except CamelidError:
        return None


def _is_of(found: Found, path: Path) -> bool:
    """Whether a result is of the files at a path: names and lengths first, since a hash takes a while."""
    files = found.record["conditions"].get("model", {}).get("files", [])
    pairs = [(path if path.is_file() else path / file["name"], file) for file in files]
    if not pairs or (path.is_file() and len(pairs) > 1):
        return False
    same = all(each.is_file() and each.stat().st_size == file["bytes"] for each, file in pairs)
    return same and all(_hash_of(each, each.stat().st_mtime_ns) == file["sha256"] for each, file in pairs)


@cache
def _hash_of(path: Path, mtime_ns: int) -> str:
    """Of a file as it was at that time."""
    return file_hash(path)
