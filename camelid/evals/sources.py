"""Where items come from: a file, a folder, an archive (tar, zip, wheel), or a data set of the Hugging Face hub.

    Source.rows(split, "*test*.jsonl", …) → rows as dictionaries, whatever they are packed in

Nothing here asks a network, but a data set that was named as one (`hf:owner/name`). Nothing is unpacked to a disk.
"""

from __future__ import annotations

import csv
import fnmatch
import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from camelid.errors import FormatError, MissingError, OptionError, first_few
from camelid.evals.task import Task
from camelid.hub.benchmarks import benchmarks_path

_MOST = 1 << 30  # bytes of one file of items; more is no benchmark
Row = dict[str, Any]


class Source(Protocol):
    """Files of items. `name` is for messages."""

    name: str

    def names(self) -> list[str]:
        """Paths of all files, with /, sorted."""

    def read(self, name: str) -> bytes:
        """Content of a file, unpacked if it ends in .gz."""

    def read_rows(self, name: str) -> list[Row]:
        """Rows of one file, as `rows` reads it."""

    def find(self, split: str, *patterns: str) -> list[str]:
        """Files that fit the first pattern that any file fits: on its path, or on its last part.

        Raises:
            OptionError: none fits; says what was looked for.
        """

    def rows(self, split: str, *patterns: str, config: str | None = None) -> list[Row]:
        """Rows of the files that `find` finds, as dictionaries: JSON lines, a JSON list, CSV with a header, Arrow,
        Parquet. A source that is a single file is that file, whatever it is called, and has only one split.

        Args:
            split: name of the split, for messages, and at the hub.
            patterns: what its files are called in the published forms, best first.
            config: name of the subset at the hub.

        Raises:
            FormatError: a file cannot be read; says which and where.
            OptionError: no such split.
        """


def open_source(path: Path | str, split: str) -> Source:
    """The source that `--data` names; `split` is the one that a single file holds.

    Raises:
        OptionError: there is no such file.
        FormatError: an archive that cannot be read.
    """
    if str(path).startswith("hf:"):
        return HubSource(str(path))
    path = Path(path).expanduser()
    if path.is_dir():
        return _Folder(path)
    if not path.is_file():
        raise OptionError(f"{path}: no such file or folder; name the benchmark's data", param="data")
    if zipfile.is_zipfile(path):
        return _Zip(path)
    if tarfile.is_tarfile(path):
        return _Tar(path)
    return _SingleFile(path, split)


class _Files:
    """What all sources made of files share."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)

    def names(self) -> list[str]:
        raise NotImplementedError

    def content(self, name: str) -> bytes:
        raise NotImplementedError

    def read(self, name: str) -> bytes:
        data = self.content(name)
        if not name.endswith(".gz"):
            return data
        try:
            with gzip.open(io.BytesIO(data)) as file:
                data = file.read(_MOST + 1)
        except (OSError, EOFError) as error:
            raise FormatError(f"{self.name}: {name}: not a sound gzip file ({error})") from None
        return _bounded(data, f"{self.name}: {name}")

    def find(self, split: str, *patterns: str) -> list[str]:
        names = self.names()
        for pattern in patterns:
            found = [
                name
                for name in names
                if fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name.rpartition("/")[2], pattern)
            ]
            if found:
                return found
        wanted = " or ".join(patterns[:3])
        raise OptionError(
            f"{self.name}: no split {split!r} here: no file is called {wanted} (there is {first_few(names) or 'none'})",
            param="data",
        )

    def rows(self, split: str, *patterns: str, config: str | None = None) -> list[Row]:
        return [row for name in self.find(split, *patterns) for row in self.read_rows(name)]

    def read_rows(self, name: str) -> list[Row]:
        return list(parse_rows(self.read(name), name.removesuffix(".gz"), f"{self.name}: {name}"))


class _Folder(_Files):
    def names(self) -> list[str]:
        return sorted(
            path.relative_to(self.path).as_posix()
            for path in self.path.rglob("*")
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(self.path).parts)
        )

    def content(self, name: str) -> bytes:
        try:
            with (self.path / name).open("rb") as file:
                return _bounded(file.read(_MOST + 1), f"{self.path / name}")
        except OSError as error:
            raise OptionError(f"{self.path / name}: cannot be read ({error.strerror})", param="data") from None


class _SingleFile(_Folder):
    def __init__(self, path: Path, split: str) -> None:
        super().__init__(path.parent)
        self.name, self._file, self._split = str(path), path.name, split

    def names(self) -> list[str]:
        return [self._file]

    def find(self, split: str, *patterns: str) -> list[str]:
        if split != self._split:
            raise OptionError(
                f"{self.name}: is one file, taken for the split {self._split!r}; shots come from {split!r}: "
                f"name a folder with both, or --shots 0",
                param="data",
            )
        return [self._file]


class _Zip(_Files):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self._archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise FormatError(f"{path}: not a sound archive ({error})") from None

    def names(self) -> list[str]:
        return sorted(info.filename for info in self._archive.infolist() if not info.is_dir())

    def content(self, name: str) -> bytes:
        try:
            with self._archive.open(name) as file:
                return _bounded(file.read(_MOST + 1), f"{self.name}: {name}")
        except (OSError, zipfile.BadZipFile, EOFError, RuntimeError) as error:  # RuntimeError: it has a password
            raise FormatError(f"{self.name}: {name}: cannot be read ({error})") from None


class _Tar(_Files):
    """Read once from the beginning to the end, and kept: a compressed tar cannot be jumped in."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._contents: dict[str, bytes] = {}
        total = 0
        try:
            with tarfile.open(path) as archive:
                for member in archive:
                    file = archive.extractfile(member) if member.isfile() else None
                    if file is None or member.name.rpartition("/")[2].startswith("."):
                        continue
                    total += member.size
                    if total > _MOST:
                        raise FormatError(f"{path}: holds more than {_MOST} bytes; name a folder with its files")
                    self._contents[member.name.removeprefix("./")] = file.read()
        except (OSError, tarfile.TarError, EOFError) as error:
            raise FormatError(f"{path}: not a sound archive ({error})") from None

    def names(self) -> list[str]:
        return sorted(self._contents)

    def content(self, name: str) -> bytes:
        return self._contents[name]


class HubSource:
    """A data set of the Hugging Face hub, by the library `datasets`: `hf:owner/name`, or `hf:owner/name:config`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._repo, _, self._config = name.removeprefix("hf:").partition(":")

    def names(self) -> list[str]:
        raise OptionError(f"{self.name}: this task is read from files only; name a file or folder", param="data")

    def read(self, name: str) -> bytes:
        raise OptionError(f"{self.name}: this task is read from files only; name a file or folder", param="data")

    def read_rows(self, name: str) -> list[Row]:
        return self.rows(name)

    def find(self, split: str, *patterns: str) -> list[str]:
        return self.names()

    def rows(self, split: str, *patterns: str, config: str | None = None) -> list[Row]:
        try:
            import datasets
        except ImportError:
            raise MissingError(f"{self.name}: needs the library datasets: pip install 'camelid[datasets]'") from None
        try:
            return [dict(row) for row in datasets.load_dataset(self._repo, self._config or config, split=split)]
        except Exception as error:  # of many libraries, with messages of many lines
            reason = " ".join(str(error).split())[:200]
            raise OptionError(f"{self.name}: split {split!r} cannot be loaded ({reason})", param="data") from None


def parse_rows(data: bytes, name: str, where: str) -> Iterator[Row]:
    """Rows of a file's content, by its suffix: .jsonl, .json (a list, or lines), .csv with a header, .tsv, .arrow,
    .parquet.

    Raises:
        FormatError: it is not what its name says; says where.
    """
    suffix = name.rpartition(".")[2].lower()
    if suffix in ("jsonl", "json", "ndjson"):
        yield from _json_rows(_decoded(data, where), where)
    elif suffix in ("csv", "tsv"):
        yield from _csv_rows(_decoded(data, where), where, "\t" if suffix == "tsv" else ",")
    elif suffix in ("arrow", "parquet"):
        yield from _arrow_rows(data, suffix, where)
    else:
        raise FormatError(f"{where}: what is in it? It should end in .jsonl, .json, .csv, .tsv, .arrow or .parquet")


def parse_table(data: bytes, where: str) -> list[list[str]]:
    """Rows of a CSV file without a header, as lists.

    Raises:
        FormatError: it is not UTF-8, or no CSV.
    """
    try:
        return list(csv.reader(io.StringIO(_decoded(data, where), newline=""), strict=True))
    except csv.Error as error:
        raise FormatError(f"{where}: not a CSV file ({error})") from None


def _json_rows(text: str, where: str) -> Iterator[Row]:
    if text.lstrip().startswith("["):
        try:
            rows = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{where}: not JSON ({error})") from None
        numbered: Iterable[tuple[int, Any]] = enumerate(rows, start=1)
    else:
        numbered = _json_lines(text, where)
    for number, row in numbered:
        if not isinstance(row, dict):
            raise FormatError(f"{where}: item {number}: not an object with fields")
        yield row


def _json_lines(text: str, where: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise FormatError(f"{where}: line {number}: not JSON ({error})") from None


def _csv_rows(text: str, where: str, delimiter: str) -> Iterator[Row]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for number, row in enumerate(reader, start=1):
            if None in row or None in row.values():
                raise FormatError(f"{where}: row {number}: has another number of columns than the header")
            yield dict(row)
    except csv.Error as error:
        raise FormatError(f"{where}: line {reader.line_num}: not a CSV file ({error})") from None


def _arrow_rows(data: bytes, suffix: str, where: str) -> Iterator[Row]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingError(f"{where}: reading Arrow files needs pyarrow: pip install 'camelid[data]'") from None
    try:
        table = pq.read_table(pa.BufferReader(data)) if suffix == "parquet" else pa.ipc.open_stream(data).read_all()
    except pa.ArrowException as error:
        raise FormatError(f"{where}: not a sound {suffix} file ({' '.join(str(error).split())[:200]})") from None
    yield from table.to_pylist()


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{where}: not UTF-8 at byte {error.start}") from None


def _bounded(data: bytes, where: str) -> bytes:
    if len(data) > _MOST:
        raise FormatError(f"{where}: more than {_MOST} bytes, which is no benchmark's file")
    return data


def core_source(task: Task) -> Source:
    """The benchmarks that `camelid pull eval:core` brought.

    Raises:
        MissingError: they are not on this machine, or do not hold this task.
    """
    if not task.in_core:
        raise MissingError(f"{task.name}: name its items with --data; nothing that is pulled holds them")
    return open_source(benchmarks_path(), task.splits.items)
