"""Files that a source reads: found by paths and patterns, cut where documents end, opened through their compression."""

from __future__ import annotations

import codecs
import glob
import gzip
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pydantic import Field

from camelid.data.reading.options import SourceOptions
from camelid.errors import FormatError, MissingError

_LOOK = 1 << 16  # bytes read at once in search of a place to cut
_COMPRESSED = (".gz", ".zst", ".zstd")


class FileOptions(SourceOptions):
    """A source in files."""

    path: tuple[str, ...] = Field(min_length=1, description="Files, folders and patterns, relative to the recipe.")

    def __init__(self, **values: Any) -> None:
        if isinstance(values.get("path"), str):
            values["path"] = (values["path"],)
        super().__init__(**values)


@dataclass(frozen=True)
class FilePart:
    """A file, or a part of one, that is read in one go.

    Attributes:
        path: where it is; empty for what is no file.
        label: begins the ids of its documents: the path from the folder that all files of the source share.
        start, stop: which bytes, row groups or shards.
        n_bytes: about how much there is to read; 0 if that is not known.
        alone: not to be read together with others.
    """

    path: str
    label: str
    start: int
    stop: int
    n_bytes: int
    alone: bool = False


def find_files(options: FileOptions, folder: Path, endings: Sequence[str] = ()) -> list[tuple[str, str]]:
    """(path, label) of the files that a source names, each once, by label; hidden files in folders are left out.

    Args:
        options: of the source.
        folder: that paths are relative to.
        endings: which files of a folder are meant; all if there are none.

    Raises:
        MissingError: a path or pattern that leads to no file.
    """
    all_files: set[str] = set()
    for name in options.path:
        path = str(folder / Path(name).expanduser())
        if Path(path).is_file():
            files = [path]
        elif Path(path).is_dir():
            files = [file for file in _walk(path) if file.endswith(tuple(endings) or "")]
        else:
            files = [file for file in glob.glob(path, recursive=True) if Path(file).is_file()]  # noqa: PTH207
        if not files:
            what = f" that ends in {' or '.join(endings)}" if endings and Path(path).is_dir() else ""
            raise MissingError(f"data.sources {options.name}: {path}: no file{what}; check the path")
        all_files.update(os.path.abspath(file) for file in files)  # noqa: PTH100 - links stay links
    shared = os.path.commonpath([str(Path(file).parent) for file in all_files])
    return sorted((file, Path(file).relative_to(shared).as_posix()) for file in all_files)


def _walk(folder: str) -> Iterator[str]:
    for at, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(at, name) for name in names if not name.startswith("."))  # noqa: PTH118


def whole_part(path: str, label: str) -> FilePart:
    """A file as one part."""
    size = Path(path).stat().st_size
    return FilePart(path, label, 0, size, size)


def cut(path: str, label: str, ending: bytes, part_bytes: int) -> list[FilePart]:
    """A file as parts of about `part_bytes`, each up to and with an `ending`; compressed files stay whole."""
    part = whole_part(path, label)
    if path.endswith(_COMPRESSED) or part.n_bytes <= part_bytes:
        return [part]
    places = [0]
    with Path(path).open("rb") as file:
        while places[-1] + part_bytes < part.stop:
            place = _next(file, places[-1] + part_bytes, ending)
            if place is None or place >= part.stop:
                break
            places.append(place)
    ends = [*places[1:], part.stop]
    return [FilePart(path, label, start, stop, stop - start) for start, stop in zip(places, ends, strict=True)]


def _next(file: IO[bytes], start: int, ending: bytes) -> int | None:
    """The place after the first `ending` from `start` on."""
    file.seek(start)
    tail, at = b"", start
    while block := file.read(_LOOK):
        place = (tail + block).find(ending)
        if place >= 0:
            return at - len(tail) + place + len(ending)
        at += len(block)
        tail = (tail + block)[-(len(ending) - 1) :] if len(ending) > 1 else b""
    return None


def lines(part: FilePart, longest: int) -> Iterator[tuple[int, bytes | None]]:
    """(offset, line without its end) of each line of a part; None for one longer than `longest` bytes, which is
    passed over without being held in memory. Offsets count uncompressed bytes.

    Raises:
        MissingError: the file is gone, or zstandard is not installed.
        FormatError: it cannot be read, or its compression is damaged.
    """
    stop = None if part.path.endswith(_COMPRESSED) else part.stop
    with opened(part.path) as file:
        if is_utf16(file.read(64)):  # half its lines would be lost, and the others wrong
            raise FormatError(f"{part.path}: is UTF-16 or UTF-32, not UTF-8; convert it, as with iconv -t UTF-8")
        at = part.start
        file.seek(at)
        while stop is None or at < stop:
            line = file.readline(longest + 2)
            if not line:
                return
            start, too_long = at, False
            at += len(line)
            while not line.endswith(b"\n") and (rest := file.readline(_LOOK)):
                at, too_long = at + len(rest), True
                line = rest
            yield start, None if too_long else line.rstrip(b"\r\n")


@contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """A file open for reading, uncompressed by its ending (.gz, .zst).

    Raises:
        MissingError: it is gone, or zstandard is not installed.
        FormatError: it cannot be read, or its compression is damaged.
    """
    try:
        with _open(path) as file:
            yield file
    except FileNotFoundError:
        raise MissingError(f"{path}: has disappeared since the work began; put it back") from None
    except (OSError, EOFError, zlib.error) as error:
        raise FormatError(f"{path}: cannot be read ({error}); fetch it again") from None
    except Exception as error:
        if type(error).__name__ == "ZstdError":
            raise FormatError(f"{path}: cannot be read ({error}); fetch it again") from None
        raise


def is_utf16(begin: bytes) -> bool:
    """Whether bytes begin as UTF-16 or UTF-32: with many zeros, or with a mark and something that is no UTF-8."""
    if begin[:64].count(0) * 3 > len(begin[:64]):
        return True
    marked = begin.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return marked and "\ufffd" in begin[2:60].decode("utf-8", "replace")


def _open(path: str) -> IO[bytes]:
    if path.endswith(".gz"):
        return gzip.open(path)  # type: ignore[return-value]
    if path.endswith((".zst", ".zstd")):
        return _zstandard(path)
    return Path(path).open("rb")


def _zstandard(path: str) -> IO[bytes]:
    try:
        from compression import zstd  # type: ignore[import-not-found]  # Python 3.14
    except ImportError:
        try:
            from backports import zstd
        except ImportError:
            raise MissingError(f"{path}: needs zstandard; pip install 'camelid[data]'") from None
    options = {zstd.DecompressionParameter.window_log_max: 31}  # zstd --ultra --long=31, 2 GB: nobody writes more
    file: IO[bytes] = zstd.open(path, options=options)
    return file
