"""Shards: the tokens of a source on disk, memory-mapped, with a table of where documents begin and what they are."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from camelid.data.document import n_bytes
from camelid.errors import FormatError, MissingError, OptionError, VerifyError
from camelid.files import sha256
from camelid.run_layout import TOKENS

if TYPE_CHECKING:
    from camelid.data.document import Document

FOLDER = TOKENS  # inside a data folder
MAX_BYTES = 256 * 2**20
_HEADER = 128  # bytes before the numbers of a one-dimensional .npy file
_OPEN = 64  # mapped shards of a source; a mapped file is an open file, and systems allow about a thousand
_STARTS = np.dtype("<u8")


@dataclass(frozen=True)
class Shard:
    """One shard on record: `NAME.npy`, `NAME.docs.npy`, `NAME.docs.jsonl.gz`, and of conversations `NAME.mask.npy`.

    Attributes:
        name: `SOURCE-00000`, or `SOURCE.validation-00000`.
        source: whose tokens.
        validation: held out from training.
        tokens, documents: how many.
        sha256: of the tokens' file, starts_sha256 of the starts', lines_sha256 of the documents' uncompressed lines,
            mask_sha256 of the mask's; empty where there is none.
    """

    name: str
    source: str
    validation: bool
    tokens: int
    documents: int
    sha256: str
    starts_sha256: str
    lines_sha256: str
    mask_sha256: str = ""

    def as_json(self) -> dict[str, Any]:
        """As the manifest has it."""
        return {name: value for name, value in asdict(self).items() if name != "mask_sha256" or value}

    def verify(self, folder: Path) -> None:
        """Hash the files again.

        Args:
            folder: where the shards lie.

        Raises:
            MissingError: a file is not there.
            VerifyError: a file is not what was written.
        """
        self.verify_tokens(folder)
        lines = folder / f"{self.name}.docs.jsonl.gz"
        _check_hash(lines, _hash(lines, gzip.open), self.lines_sha256)

    def verify_tokens(self, folder: Path) -> None:
        """Hash what training reads again: tokens, and where documents begin; raises as `verify`."""
        hashes = {".npy": self.sha256, ".docs.npy": self.starts_sha256, ".mask.npy": self.mask_sha256}
        for suffix, expected in hashes.items():
            if expected:
                _check_hash(folder / f"{self.name}{suffix}", _hash(folder / f"{self.name}{suffix}"), expected)

    def n_bytes(self, folder: Path) -> int:
        """Length of the tokens' file; 0 if it is not there."""
        path = folder / f"{self.name}.npy"
        return path.stat().st_size if path.exists() else 0


def token_type(vocab_size: int) -> np.dtype[Any]:
    """How ids lie on disk: little-endian uint16 where they fit, else uint32."""
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


class ShardWriter:
    """Writes the documents of one source, one after another, into shards.

    A shard's files have their names only when they are complete. What a killed writer left is written over; as a
    context it removes what an error left.

    Args:
        folder: where; made if it is not there.
        source: name of the source.
        vocab_size: ids lie below it; decides the type on disk.
        max_bytes: of tokens in a shard, which a longer document alone may exceed.
        validation: these documents are held out from training.

    Raises:
        OptionError: the name of the source cannot be part of a file's name.
    """

    def __init__(
        self, folder: Path, source: str, vocab_size: int, max_bytes: int = MAX_BYTES, validation: bool = False
    ) -> None:
        if not source or source.startswith(".") or not all(letter.isalnum() or letter in "._-" for letter in source):
            raise OptionError(f"source {source!r}: needs a name of letters, digits, '.', '_' and '-'")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._source, self._vocab_size, self._validation = folder, source, vocab_size, validation
        self._type = token_type(vocab_size)
        self._max_tokens = max_bytes // self._type.itemsize
        self._shards: list[Shard] = []
        self._open_shard: _OpenShard | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._open_shard is not None:
            self._open_shard.discard()
            self._open_shard = None

    def add(self, document: Document, ids: ArrayLike) -> None:
        """Append a document; its ids (T,) as training will see them, begin and end tokens included.

        Raises:
            FormatError: no ids, or an id that the vocabulary does not have.
        """
        array = np.asarray(ids)
        if not array.size:
            raise FormatError(f"{document.id}: has no tokens, not even one that ends it; check the tokenizer")
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= self._vocab_size:
            wrong = high if low >= 0 else low
            raise FormatError(f"{document.id}: id {wrong} is not in the vocabulary of {self._vocab_size}; check both")
        if self._open_shard is not None and self._open_shard.tokens + array.size > self._max_tokens:
            self._finish()
        if self._open_shard is None:
            kind = ".validation" if self._validation else ""
            self._open_shard = _OpenShard(self._folder, f"{self._source}{kind}-{len(self._shards):05d}")
        self._open_shard.add(array.astype(self._type), _line(document, array.size))

    def close(self) -> list[Shard]:
        """Finish; returns all shards, in order. Without documents there are none."""
        self._finish()
        return self._shards

    def _finish(self) -> None:
        if self._open_shard is not None:
            self._shards.append(self._open_shard.finish(self._type, self._source, self._validation))
            self._open_shard = None


class _OpenShard:
    """The files of a shard while they grow."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.tokens = name, 0
        self._folder = folder
        self._starts = [0]
        self._digest = hashlib.sha256()
        self._raw = self._path(".npy").open("wb")
        self._raw.write(bytes(_HEADER))
        self._zipped = self._path(".docs.jsonl.gz").open("wb")
        # No name and no time in it: equal documents give equal files.
        self._lines = gzip.GzipFile(filename="", fileobj=self._zipped, mode="wb", compresslevel=4, mtime=0)

    def add(self, ids: NDArray[Any], line: bytes) -> None:
        self._raw.write(ids.data)
        self._lines.write(line)
        self._digest.update(line)
        self.tokens += ids.size
        self._starts.append(self.tokens)

    def finish(self, kind: np.dtype[Any], source: str, validation: bool) -> Shard:
        self._raw.seek(0)
        self._raw.write(_header(kind, self.tokens))
        self._lines.close()
        with self._path(".docs.npy").open("wb") as starts:
            starts.write(_header(_STARTS, len(self._starts)))
            starts.write(np.array(self._starts, _STARTS).data)
            _sync(starts)
        for file in (self._raw, self._zipped):
            _sync(file)
            file.close()
        hashes = _hash(self._path(".npy")), _hash(self._path(".docs.npy")), self._digest.hexdigest()
        for suffix in (".docs.jsonl.gz", ".docs.npy", ".npy"):
            self._path(suffix).replace(self._folder / f"{self.name}{suffix}")
        return Shard(self.name, source, validation, self.tokens, len(self._starts) - 1, *hashes)

    def discard(self) -> None:
        """Remove what was written."""
        for file, suffix in ((self._lines, ".docs.jsonl.gz"), (self._zipped, ".docs.jsonl.gz"), (self._raw, ".npy")):
            file.close()
            self._path(suffix).unlink(missing_ok=True)

    def _path(self, suffix: str) -> Path:
        return self._folder / f".{self.name}{suffix}.part"


@dataclass(frozen=True)
class DocumentSpan:
    """A stretch of one document within a stretch of a source.

    Attributes:
        shard: number of the shard in its source.
        document: number of the document in the shard.
        start, stop: the tokens, counted in the source.
        offset: tokens of the document that come before `start`.
    """

    shard: int
    document: int
    start: int
    stop: int
    offset: int


class Tokens:
    """The shards of one source as one long array that lies on disk.

    Args:
        folder: where the shards lie.
        shards: in order, of one source.
        vocab_size: decides the type on disk.
    """

    def __init__(self, folder: Path, shards: Sequence[Shard], vocab_size: int) -> None:
        self.shards = tuple(shards)
        self._folder, self._type = folder, token_type(vocab_size)
        self._ends = np.cumsum([0, *(shard.tokens for shard in shards)], dtype=np.int64)
        self._mapped: OrderedDict[int, tuple[NDArray[Any], NDArray[np.uint64]]] = OrderedDict()
        self._lines: tuple[int, list[bytes]] = (-1, [])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def slice(self, start: int, stop: int) -> NDArray[Any]:
        """Ids of the tokens start … stop − 1, a copy, uint16 or uint32 (stop − start,).

        Raises:
            MissingError, FormatError: a shard is not there or not as on record.
        """
        return self._gather(start, stop, lambda number, begin, end: self._open(number)[0][begin:end], self._type)

    def starts(self, start: int, stop: int) -> NDArray[np.int64]:
        """Which of the tokens start … stop − 1 begin a document, ascending, counted in the source."""

        def begins(number: int, begin: int, end: int) -> NDArray[Any]:
            starts = self._open(number)[1][:-1]
            first, last = np.searchsorted(starts, np.array([begin, end], np.uint64))
            return starts[first:last].astype(np.int64) + self._ends[number]

        return self._gather(start, stop, begins, np.dtype(np.int64))

    def documents_at(self, start: int, stop: int) -> list[DocumentSpan]:
        """The documents that the tokens start … stop − 1 belong to, in order."""
        spans = []
        for number, begin, end in self._cuts(start, stop):
            starts, base = self._open(number)[1], int(self._ends[number])
            first = int(np.searchsorted(starts, np.uint64(begin), side="right")) - 1
            last = int(np.searchsorted(starts, np.uint64(end)))
            for document in range(first, last):
                left, right = max(begin, int(starts[document])), min(end, int(starts[document + 1]))
                spans.append(DocumentSpan(number, document, base + left, base + right, left - int(starts[document])))
        return spans

    def describe(self, span: DocumentSpan) -> dict[str, Any]:
        """What is on record about a document: id, url, licence, tokens and what its source gave.

        Raises:
            MissingError, FormatError: the record is not there or damaged.
        """
        if self._lines[0] != span.shard:
            shard = self.shards[span.shard]
            path = self._folder / f"{shard.name}.docs.jsonl.gz"
            lines = _read_lines(path)
            if len(lines) != shard.documents:
                raise FormatError(
                    f"{path}: {len(lines)} documents, {shard.documents} on record; prepare the data again"
                )
            self._lines = (span.shard, lines)
        record: dict[str, Any] = json.loads(self._lines[1][span.document])
        return record

    def _gather(
        self, start: int, stop: int, read: Callable[[int, int, int], NDArray[Any]], kind: np.dtype[Any]
    ) -> NDArray[Any]:
        parts = [read(*cut) for cut in self._cuts(start, stop)]
        return np.concatenate(parts) if parts else np.zeros(0, kind)

    def _cuts(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """Shard number, and start and stop in it, of each shard that has a part of these tokens."""
        if not 0 <= start <= stop <= len(self):
            raise OptionError(f"tokens {start} to {stop}: the source has {len(self)}")
        number = int(np.searchsorted(self._ends, start, side="right")) - 1
        cuts = []
        while start < stop:
            base, end = int(self._ends[number]), min(stop, int(self._ends[number + 1]))
            if end > start:
                cuts.append((number, start - base, end - base))
            start, number = end, number + 1
        return cuts

    def _open(self, number: int) -> tuple[NDArray[Any], NDArray[np.uint64]]:
        if number not in self._mapped:
            shard = self.shards[number]
            ids = _map(self._folder / f"{shard.name}.npy", self._type, shard.tokens)
            path = self._folder / f"{shard.name}.docs.npy"
            starts = _map(path, _STARTS, shard.documents + 1)
            if starts[0] or starts[-1] != shard.tokens or (starts[1:] < starts[:-1]).any():
                raise FormatError(f"{path}: starts of documents are not in order; prepare the data again")
            self._mapped[number] = ids, starts
            if len(self._mapped) > _OPEN:
                self._mapped.popitem(last=False)
        self._mapped.move_to_end(number)
        return self._mapped[number]


def shard_from_json(record: Mapping[str, Any], where: Path) -> Shard:
    """A manifest's row.

    Raises:
        FormatError: fields are missing, unknown or of another kind.
    """
    kinds: dict[str, type] = {"tokens": int, "documents": int, "validation": bool}
    fields = {*Shard.__dataclass_fields__} - {"mask_sha256"} | {*record} & {"mask_sha256"}
    if set(record) != fields or not all(isinstance(record[name], kinds.get(name, str)) for name in fields):
        raise FormatError(f"{where}: a shard is not described as expected; prepare the data again")
    return Shard(**record)


def _line(document: Document, tokens: int) -> bytes:
    about: dict[str, Any] = {"id": document.id, "url": document.url, "licence": document.licence}
    about |= {"tokens": tokens, "bytes": n_bytes(document.text)}
    if document.meta:
        about["meta"] = dict(document.meta)
    return json.dumps(about, ensure_ascii=False, default=str).encode("utf-8", "replace") + b"\n"


def _header(kind: np.dtype[Any], length: int) -> bytes:
    buffer = io.BytesIO()
    described = {"descr": kind.str, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(buffer, described)
    assert buffer.tell() == _HEADER
    return buffer.getvalue()


def _map(path: Path, kind: np.dtype[Any], length: int) -> NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise MissingError(f"{path}: not there; prepare the data again") from None
    except Exception as error:  # NumPy raises many kinds on a damaged header
        raise FormatError(f"{path}: cannot be read ({error}); prepare the data again") from None
    if array.dtype != kind or array.shape != (length,):
        actual = f"{array.dtype} {array.shape}"
        raise FormatError(f"{path}: is {actual}, {kind} ({length},) on record; prepare the data again")
    return array


def _read_lines(path: Path) -> list[bytes]:
    try:
        with gzip.open(path) as file:
            return file.read().splitlines()
    except FileNotFoundError:
        raise MissingError(f"{path}: not there; prepare the data again") from None
    except (OSError, EOFError, zlib.error) as error:
        raise FormatError(f"{path}: cannot be read ({error}); prepare the data again") from None


def _hash(path: Path, *opener: Callable[[Path], Any]) -> str:
    try:
        return sha256(path, *opener)
    except FileNotFoundError:
        raise MissingError(f"{path}: not there; prepare the data again") from None
    except (OSError, EOFError, zlib.error) as error:
        raise VerifyError(f"{path}: cannot be read ({error}); prepare the data again") from None


def _check_hash(path: Path, actual: str, expected: str) -> None:
    if actual != expected:
        raise VerifyError(f"{path}: SHA-256 {actual[:12]}…, on record {expected[:12]}…; prepare the data again")


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
