"""A data folder while it is made: where things lie in it, and what it is being made from."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from camelid.data.manifest import NAME
from camelid.data.units import Unit, files_of
from camelid.errors import FormatError, OptionError
from camelid.weights.lock import exclusive
from camelid.whole import whole_file

PLAN = "plan.json"


class DataFolder:
    """Paths in a data folder. What lies in `work` is removed at the end.

    Attributes:
        path: of the folder.
        documents: files of documents that stay.
        tokenizer: the tokenizer's folder.
        read, kept, encoded: accounts and files between the stages.
        decisions: about duplicates.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.documents = path / "documents"
        self.tokenizer = path / "tokenizer"
        self.work = path / "work"
        self.read, self.kept, self.encoded = self.work / "read", self.work / "kept", self.work / "encoded"
        self.decisions = self.work / "decisions"

    def begin(self) -> None:
        """Make the folders."""
        for folder in (self.documents, self.read, self.kept, self.encoded):
            folder.mkdir(parents=True, exist_ok=True)

    def end(self) -> None:
        """Remove what was between the stages."""
        shutil.rmtree(self.work, ignore_errors=True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Work here alone.

        Raises:
            OptionError: another process does.
        """

        def busy() -> None:
            raise OptionError(f"{self.path}: another camelid prepares data here; wait for it, or choose another name")

        self.path.mkdir(parents=True, exist_ok=True)
        with exclusive(self.path / ".lock", busy):
            yield

    def clear(self) -> None:
        """Remove everything, for a new beginning.

        Raises:
            OptionError: the folder holds something else than prepared data.
        """
        if others := self._strange():
            raise OptionError(f"{self.path}: holds {others[0]} and no plan of data; choose another name")
        shutil.rmtree(self.path, ignore_errors=True)

    def settle(self, plan: Mapping[str, Any]) -> None:
        """Write down what the folder is made from; or see that it is being made from just that.

        The tokenizer's table may change until there is a tokenizer.

        Raises:
            OptionError: it is being made, or was made, from something else; tells the differences.
        """
        path = self.path / PLAN
        if path.exists() and self._begun():
            differences = _differences(read_json(path), json.loads(json.dumps(plan)))
            if not self.tokenizer.exists() and all(one.startswith("tokenizer.") for one in differences):
                write_json(path, plan)  # documents do not depend on it
            elif differences:
                raise OptionError(
                    f"{self.path}: was made from something else: {'; '.join(differences)}; "
                    "choose another name, or replace it with --overwrite"
                )
            return
        if others := self._strange():
            raise OptionError(f"{self.path}: holds {others[0]} and no plan of data; choose another name")
        write_json(path, plan)

    def _begun(self) -> bool:
        """Whether anything was made after the plan."""
        made = (self.read.glob("*.json"), self.documents.glob("*.gz"), self.path.glob(NAME))
        return any(any(files) for files in made)

    def _strange(self) -> list[str]:
        """What lies in a folder that has no plan; not what a kill left, which is hidden."""
        if not self.path.exists() or (self.path / PLAN).exists():
            return []
        return sorted(path.name for path in self.path.iterdir() if not path.name.startswith("."))


def inputs(units: Sequence[Unit]) -> dict[str, dict[str, Any]]:
    """Source → how many files it has and a hash of their names, sizes and times: what changes when they do."""
    found: dict[str, dict[str, Any]] = {}
    for name, mine in itertools.groupby(units, lambda unit: unit.source.name):
        state = []
        for path in files_of(list(mine)):
            about = Path(path).stat() if Path(path).is_file() else None
            state.append([path, about.st_size, about.st_mtime_ns] if about else [path, 0, 0])
        digest = hashlib.sha256(json.dumps(sorted(state)).encode()).hexdigest()
        found[name] = {"files": len(state), "bytes": sum(size for _, size, _ in state), "state": digest}
    return found


def write_json(path: Path, value: Any) -> None:
    """Write a file, complete or not at all."""
    with whole_file(path) as file:
        file.write(json.dumps(value, indent=1, ensure_ascii=False).encode())


def read_json(path: Path) -> Any:
    """What `write_json` wrote.

    Raises:
        FormatError: the file is gone or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: cannot be read ({error}); prepare the data again with --overwrite") from None


def _differences(old: Any, new: Any, where: str = "") -> list[str]:
    """`data.validation 0.01 → 0.02` for each value that differs."""
    if where.startswith("inputs.") and old != new:
        return [f"the files of source {where.removeprefix('inputs.')} have changed"]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [] if old == new else [f"{where} {_short(old)} → {_short(new)}"]
    found = []
    for key in dict.fromkeys([*old, *new]):
        found += _differences(old.get(key), new.get(key), f"{where}.{key}" if where else str(key))
    return found


def _short(value: Any) -> str:
    text = "not there" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
