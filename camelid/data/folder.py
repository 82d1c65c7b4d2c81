"""A data folder while it is made: where things lie in it, and what it is being made from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from camelid.data.made_from import check_finished, chosen, differences
from camelid.data.manifest import NAME, read_manifest
from camelid.data.options import DataOptions
from camelid.errors import FormatError, OptionError
from camelid.files import lock, whole_file
from camelid.recipe import Recipe
from camelid.run_layout import DOCUMENTS, TOKENIZER, TOKENS

PLAN = "plan.json"


class DataFolder:
    """Paths in a data folder. What lies in `work` is removed at the end.

    Attributes:
        path: of the folder. `again` says how to make it once more, in messages.
        documents: files of documents that stay.
        tokenizer: the tokenizer's folder.
        read, kept, encoded: statistics and files between the stages.
        decisions: about duplicates.
    """

    def __init__(self, path: Path, again: str = "make the data again with: camelid prepare RECIPE --overwrite") -> None:
        self.path, self._again = path, again
        self.documents = path / DOCUMENTS
        self.tokenizer = path / TOKENIZER
        self.work = path / "work"
        self.read, self.kept, self.encoded = self.work / "read", self.work / "kept", self.work / "encoded"
        self.decisions = self.work / "decisions"

    def make(self) -> None:
        """Make the folders."""
        for folder in (self.documents, self.read, self.kept, self.encoded):
            folder.mkdir(parents=True, exist_ok=True)

    def remove_work(self) -> None:
        """Remove what was between the stages."""
        shutil.rmtree(self.work, ignore_errors=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else works here meanwhile.

        Raises:
            OptionError: another process does.
        """

        def busy() -> None:
            raise OptionError(f"{self.path}: another camelid prepares data here; wait for it, or choose another name")

        self.path.mkdir(parents=True, exist_ok=True)
        with lock(self.path / ".lock", busy):
            yield

    def clear(self) -> None:
        """Remove everything, for a new beginning.

        Raises:
            OptionError: the folder holds something else than prepared data.
        """
        if others := self._foreign():
            raise OptionError(f"{self.path}: holds {others[0]} but no prepared data; choose another name")
        shutil.rmtree(self.path, ignore_errors=True)

    def discard(self) -> None:
        """Remove what was made so far, after a mistake that other options avoid; the folder stays locked."""
        (self.path / PLAN).unlink(missing_ok=True)
        for folder in (self.work, self.documents, self.tokenizer, self.path / TOKENS):
            shutil.rmtree(folder, ignore_errors=True)

    def is_finished(self) -> bool:
        """Whether the data is complete."""
        return (self.path / NAME).exists()

    def check_finished(self, recipe: Recipe, quick: bool = False) -> list[str]:
        """See that complete data is what a recipe asks for; returns notes. See `made_from.check_finished`.

        Raises:
            OptionError, FormatError: as `check`.
        """
        return self.check(chosen(recipe), recipe.table("data", DataOptions), recipe.path.parent, quick)

    def check(self, now: Mapping[str, Any], data: DataOptions, base: Path, quick: bool = False) -> list[str]:
        """See that complete data is what these options ask for; returns notes. See `made_from.check_finished`.

        Raises:
            OptionError: it was made from something else; tells the differences.
            FormatError: plan.json or the manifest cannot be read.
        """
        if others := self._foreign():
            raise OptionError(f"{self.path}: holds {others[0]} but no prepared data; choose another name")
        try:
            then, manifest = read_json(self.path / PLAN), read_manifest(self.path)
            return check_finished(now, data, base, then, manifest, quick)
        except OptionError as error:
            raise OptionError(self._another(str(error))) from None
        except FormatError as error:
            raise FormatError(f"{self.path}: {str(error).removeprefix(f'{self.path}: ')}") from None

    def record_plan(self, plan: Mapping[str, Any]) -> None:
        """Write down what the folder is made from; or see that it is being made from just that.

        The tokenizer's table may change until there is a tokenizer.

        Raises:
            OptionError: it is being made from something else; tells the differences.
        """
        path = self.path / PLAN
        if path.exists() and self._begun():
            old, new = read_json(path), json.loads(json.dumps(plan))
            changes = differences(old, new)
            for name, state in new["inputs"].items():
                if old.get("inputs", {}).get(name) != state:
                    changes.append(f"the files of source {name} have changed")
            changes += [f"{name} have changed" for name in ("tests", "lists") if old.get(name) != new.get(name)]
            if not self.tokenizer.exists() and all(change.startswith("tokenizer.") for change in changes):
                write_json(path, plan)  # documents do not depend on it
            elif changes:
                raise OptionError(self._another("; ".join(changes)))
            return
        if others := self._foreign():
            raise OptionError(f"{self.path}: holds {others[0]} but no prepared data; choose another name")
        write_json(path, plan)

    def _another(self, differences: str) -> str:
        return (
            f"{self.path}: was made from something else: {differences}; give the recipe another name, or {self._again}"
        )

    def _begun(self) -> bool:
        """Whether anything was made after the plan."""
        made = (self.read.glob("*.json"), self.documents.glob("*.gz"), self.path.glob(NAME))
        return any(any(files) for files in made)

    def _foreign(self) -> list[str]:
        """What lies in a folder that has no plan; not what a kill left, which is hidden."""
        if not self.path.exists() or (self.path / PLAN).exists():
            return []
        return sorted(path.name for path in self.path.iterdir() if not path.name.startswith("."))


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
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path}: cannot be read ({error}); prepare the data again with --overwrite") from None
