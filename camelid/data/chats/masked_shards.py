"""Shards with a mask beside their ids: one byte a token, hashed and checked as the ids are."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camelid.data.document import Document
from camelid.data.shards import DocumentSpan, Shard, ShardWriter, Tokens
from camelid.errors import FormatError, MissingError
from camelid.files import sha256, whole_file

SUFFIX = ".mask.npy"
_KEPT = 16  # shards whose documents' records are held


class MaskedShardWriter:
    """A `ShardWriter` that writes masks too, when it is closed."""

    def __init__(self, folder: Path, source: str, vocab_size: int, validation: bool = False) -> None:
        self._folder = folder
        self.ids = ShardWriter(folder, source, vocab_size, validation=validation)
        self._masks: list[NDArray[np.uint8]] = []

    def add(self, document: Document, ids: NDArray[np.int64], mask: NDArray[np.uint8]) -> None:
        """Append a document, ids and mask (T,) each."""
        self.ids.add(document, ids)
        self._masks.append(mask)

    def close(self) -> list[Shard]:
        """Finish; returns all shards, in order."""
        shards, done = [], 0
        for shard in self.ids.close():
            path = self._folder / f"{shard.name}{SUFFIX}"
            with whole_file(path) as file:
                np.save(file, np.concatenate(self._masks[done : done + shard.documents]), allow_pickle=False)
            done += shard.documents
            shards.append(replace(shard, mask_sha256=sha256(path)))
        return shards


class MaskedTokens(Tokens):
    """The shards of one source with their masks."""

    def __init__(self, folder: Path, shards: Sequence[Shard], vocab_size: int) -> None:
        super().__init__(folder, shards, vocab_size)
        self._masks: dict[int, NDArray[np.uint8]] = {}
        self._records: OrderedDict[int, list[dict[str, Any]]] = OrderedDict()
        counts = [shard.documents for shard in self.shards]
        self._first = np.cumsum([0, *counts], dtype=np.int64)
        starts = self.starts(0, len(self))
        self.bounds: NDArray[np.int64] = np.append(starts, len(self))
        """(N + 1,) where each document begins, counted in the source, and where the last one ends."""

    @property
    def n_documents(self) -> int:
        """Documents of all shards."""
        return len(self.bounds) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) tokens of each document."""
        return np.diff(self.bounds)

    def document(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Ids and mask of a document, (T,) each."""
        start, stop = int(self.bounds[number]), int(self.bounds[number + 1])
        mask = self._gather(start, stop, lambda shard, begin, end: self._mask(shard)[begin:end], np.dtype(np.uint8))
        return self.slice(start, stop).astype(np.int64), mask

    def learned(self) -> int:
        """Tokens that are learned, of all documents."""
        return sum(int(np.count_nonzero(self._mask(number) & 1)) for number in range(len(self.shards)))

    def span(self, number: int) -> DocumentSpan:
        """A document as a stretch of the source."""
        shard = int(np.searchsorted(self._first, number, side="right")) - 1
        bounds = self.bounds[number : number + 2].tolist()
        return DocumentSpan(shard, number - int(self._first[shard]), bounds[0], bounds[1], 0)

    def record(self, number: int) -> dict[str, Any]:
        """What is on record about a document; see `Tokens.describe`."""
        return self.describe(self.span(number))

    def describe(self, span: DocumentSpan) -> dict[str, Any]:
        if span.shard not in self._records:
            self._lines = (-1, [])
            super().describe(span)
            self._records[span.shard] = [json.loads(line) for line in self._lines[1]]
            if len(self._records) > _KEPT:
                self._records.popitem(last=False)
        self._records.move_to_end(span.shard)
        return dict(self._records[span.shard][span.document])

    def _mask(self, number: int) -> NDArray[np.uint8]:
        if number not in self._masks:
            shard = self.shards[number]
            path = self._folder / f"{shard.name}{SUFFIX}"
            try:
                mask = np.load(path, mmap_mode="r", allow_pickle=False)
            except FileNotFoundError:
                raise MissingError(f"{path}: not there; prepare the data again") from None
            except Exception as error:  # NumPy raises many kinds on a damaged header
                raise FormatError(f"{path}: cannot be read ({error}); prepare the data again") from None
            if mask.dtype != np.uint8 or mask.shape != (shard.tokens,):
                raise FormatError(f"{path}: is no mask of {shard.tokens} tokens; prepare the data again")
            self._masks[number] = mask
        return self._masks[number]
