"""Batches: packed rows of tokens with what is learned, where documents begin, and where every row came from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from camelid.data.manifest import read_manifest
from camelid.data.shuffle import Rows, Shuffle
from camelid.errors import OptionError

if TYPE_CHECKING:
    from camelid.tokens.tokenizer import Tokenizer

IGNORED = -100
VERSION = 1  # of the order and of the cut into rows; a change changes every run


@dataclass(frozen=True)
class TrainingBatch:
    """Rows that one rank trains on in one step; R rows of T tokens.

    Attributes:
        ids: (R, T) int64.
        targets: (R, T) int64, the next token; IGNORED where another document begins, and in filling.
        positions: (R, T) int64, counted anew for each document of a row.
        documents: (R, T) int32, number of the document within its row; tokens see their own document only.
        samples: (R,) int64, numbers of the samples; -1 for a row of filling.
    """

    ids: NDArray[np.int64]
    targets: NDArray[np.int64]
    positions: NDArray[np.int64]
    documents: NDArray[np.int32]
    samples: NDArray[np.int64]

    @property
    def n_trained(self) -> int:
        """Tokens that are learned."""
        return int(np.count_nonzero(self.targets != IGNORED))


class Batches:
    """Every step's rows, from a data folder; a pure function of seed and step, whatever the number of ranks.

    Row r of a source has the tokens r·T … r·T + T, so each token but a source's first is the target of one row. A
    source's last row is filled up with the end token, of which nothing is learned.

    For training, step s takes the samples s·R … s·R + R − 1 of `Shuffle`, without end. For validation, rows come in
    order and once; the last step is filled up with empty rows.

    Args:
        data: a data folder.
        context: tokens of a row.
        rows_per_step: of all ranks together.
        seed: of the order.
        validation: the documents held out for validation.

    Raises:
        MissingError, FormatError, VerifyError: the data folder is not complete or was changed.
        OptionError: a number that is not positive, or nothing to train on.
    """

    def __init__(self, data: Path, context: int, rows_per_step: int, seed: int, validation: bool = False) -> None:
        for name, value in (("context", context), ("rows_per_step", rows_per_step)):
            if value < 1:
                raise OptionError(f"{name}: must be 1 or more, got {value}")
        self.data, self.manifest = Path(data), read_manifest(Path(data))
        if self.manifest.chats is not None:
            raise OptionError(f"{data}: holds {self.manifest.chats['form']}, of which not all is learned, no documents")
        self.context, self.rows_per_step, self.seed, self.validation = context, rows_per_step, seed, validation
        names = [source.name for source in self.manifest.sources]
        self._sources = [self.manifest.tokens(self.data, name, validation) for name in names]
        self._sizes = [max(0, -(-(len(tokens) - 1) // context)) for tokens in self._sources]
        self._ends = np.cumsum([0, *self._sizes], dtype=np.int64)
        self._shuffle = None if validation else self._training_shuffle()

    @property
    def n_rows(self) -> int:
        """Rows of all sources together, each counted once."""
        return int(self._ends[-1])

    @property
    def n_steps(self) -> int:
        """Steps that take each row once; the number of steps there are, for validation."""
        return -(-self.n_rows // self.rows_per_step)

    def fingerprint(self) -> str:
        """SHA-256, in hex, of all that decides every batch: data, order, and cut."""
        about = [VERSION, self.manifest.fingerprint(), self.context, self.rows_per_step, self.seed, self.validation]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()

    def step(self, step: int, rank: int = 0, n_ranks: int = 1) -> TrainingBatch:
        """The rows of one step that one rank trains on: a contiguous share.

        Raises:
            OptionError: the rows cannot be divided among the ranks, or there is no such step.
        """
        if self.rows_per_step % n_ranks or not 0 <= rank < n_ranks:
            raise OptionError(f"rows of a step: {self.rows_per_step} cannot be divided among {n_ranks} ranks")
        share = self.rows_per_step // n_ranks
        start = self._first(step) + rank * share
        rows = self._rows(start, start + share)
        made = [self._row(int(source), int(row)) for source, row in zip(rows.source, rows.row, strict=True)]
        samples = np.where(rows.row < 0, -1, np.arange(start, start + share))
        ids, targets, positions, documents = (np.stack(column) for column in zip(*made, strict=True))
        return TrainingBatch(ids, targets, positions, documents.astype(np.int32), samples)

    def rows_of(self, step: int) -> list[list[dict[str, Any]]]:
        """Which documents each row of a step is made of: source, epoch, row, shard, document (number in the shard),
        id, url, licence, what else is on record, start and stop (tokens of the document), and the text of these."""
        start = self._first(step)
        rows = self._rows(start, start + self.rows_per_step)
        places = zip(rows.source.tolist(), rows.epoch.tolist(), rows.row.tolist(), strict=True)
        return [self._provenance(source, epoch, row) for source, epoch, row in places if row >= 0]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Of the data folder; checked against the manifest."""
        return self.manifest.open_tokenizer(self.data)

    def _training_shuffle(self) -> Shuffle:
        for source, size in zip(self.manifest.sources, self._sizes, strict=True):
            if source.weight and not size:
                raise OptionError(
                    f"{self.data}: source {source.name} has no tokens to train on; take it out, or give it text"
                )
        weights = [source.weight for source in self.manifest.sources]
        return Shuffle(self.seed, list(zip(self._sizes, weights, strict=True)))

    def _first(self, step: int) -> int:
        if step < 0 or (self.validation and step >= self.n_steps):
            last = f" to {self.n_steps - 1}" if self.validation else ""
            raise OptionError(f"step {step}: there are steps 0{last}")
        return step * self.rows_per_step

    def _rows(self, start: int, stop: int) -> Rows:
        if self._shuffle is not None:
            return self._shuffle.rows(start, stop)
        sample = np.arange(start, stop, dtype=np.int64)
        source = np.searchsorted(self._ends[1:], sample, side="right").astype(np.int64)
        filling = sample >= self.n_rows
        source[filling] = 0
        return Rows(source, np.zeros_like(sample), np.where(filling, -1, sample - self._ends[source]))

    def _row(self, source: int, row: int) -> tuple[NDArray[Any], ...]:
        """ids, targets, positions, documents, each (T,)."""
        length, tokens = self.context, self._sources[source]
        start = row * length
        stop = min(start + length + 1, len(tokens)) if row >= 0 else start
        ids = np.full(length + 1, self.manifest.eos_id, np.int64)
        begins = np.zeros(length + 1, bool)
        if row >= 0:
            ids[: stop - start] = tokens.slice(start, stop)
            begins[tokens.starts(start, stop) - start] = True
        begins[stop - start : stop - start + 1] = True  # filling is a document of its own
        targets = np.where(begins[1:], IGNORED, ids[1:])
        targets[max(stop - start - 1, 0) :] = IGNORED
        places = np.arange(length)
        first = np.maximum.accumulate(np.where(begins[:-1], places, 0))
        documents = np.cumsum(begins[:-1]) - int(begins[0])
        return ids[:-1], targets, places - first, documents

    def _provenance(self, source: int, epoch: int, row: int) -> list[dict[str, Any]]:
        tokens, name = self._sources[source], self.manifest.sources[source].name
        start = row * self.context
        pieces = []
        for span in tokens.documents_at(start, min(start + self.context, len(tokens))):
            text = self.tokenizer.decode(tokens.slice(span.start, span.stop).tolist())
            about = tokens.describe(span)
            place = {"source": name, "epoch": epoch, "row": row, "shard": tokens.shards[span.shard].name}
            place |= {"document": span.document, "start": span.offset}
            pieces.append(about | place | {"stop": span.offset + span.stop - span.start, "text": text})
        return pieces
