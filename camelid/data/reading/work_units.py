"""Units of work: files of a source, small ones together and large ones cut, so that work can be shared and resumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from camelid.data.options import DataOptions
from camelid.data.reading.files import FilePart
from camelid.data.reading.options import SourceOptions
from camelid.data.sources import source_kind
from camelid.errors import OptionError


@dataclass(frozen=True)
class WorkUnit:
    """What one worker reads in one go.

    Attributes:
        source: whose documents.
        number: of the unit in its source.
        parts: what is read, in order.
    """

    source: SourceOptions
    number: int
    parts: tuple[FilePart, ...]

    @property
    def name(self) -> str:
        """Begins the names of its files: `SOURCE-00000`."""
        return f"{self.source.name}-{self.number:05d}"

    @property
    def n_bytes(self) -> int:
        """About how much there is to read."""
        return sum(part.n_bytes for part in self.parts)


def work_units(options: DataOptions, folder: Path) -> list[WorkUnit]:
    """All units, by source in the recipe's order; the same for any number of workers.

    Args:
        options: the table `data`.
        folder: of the recipe, which paths are relative to.

    Raises:
        OptionError: no source, or two of one name; a field that files do not have.
        MissingError: files or libraries that are not there.
    """
    if not options.sources:
        raise OptionError("data.sources: no source of documents; give a table [[data.sources]] with name and kind")
    names = [source.name for source in options.sources]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise OptionError(f"data.sources: two sources are named {twice!r}; give each its own name")
    return [unit for source in options.sources for unit in _units(source, folder)]


def files_of(units: Sequence[WorkUnit]) -> dict[str, str]:
    """Path → label of what units read: files, those in a dataset's folder, and `NAME@COMMIT` for one on the hub."""
    labels: dict[str, str] = {}
    for unit in units:
        for part in unit.parts:
            path = Path(part.path)
            if not path.is_dir():
                labels[part.path] = part.label if path.is_file() else part.path
            elif part.path not in labels:
                below = sorted(file for file in path.rglob("*") if file.is_file())
                labels |= {str(file): file.relative_to(path).as_posix() for file in below}
    return labels


def _units(source: SourceOptions, folder: Path) -> list[WorkUnit]:
    parts: Sequence[FilePart] = source_kind(source.kind).file_parts(source, folder)
    if source.max_documents is not None:  # the first ones, so one after another
        return [WorkUnit(source, 0, tuple(parts))]
    groups: list[list[FilePart]] = []
    size = 0
    for part in parts:
        if not groups or size + part.n_bytes > source.unit_bytes or part.alone:
            groups.append([])
            size = 0
        groups[-1].append(part)
        size += part.n_bytes
    return [WorkUnit(source, number, tuple(group)) for number, group in enumerate(groups)]
