"""Conversations packed into rows: none is cut, none sees another, and what assistants said is learned."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camelid.data.batches import IGNORED, TrainingBatch
from camelid.data.chats.best_fit import best_fit
from camelid.data.chats.chat_data import ChatData
from camelid.data.chats.encode import LEARNED
from camelid.data.chats.order import shuffled
from camelid.errors import OptionError

_ROWS = 2**33  # stands for the source's number where rows are shuffled


class ConversationRows(ChatData):
    """Every step's rows; the interface of `Batches`. A pure function of seed and step, whatever the number of ranks.

    An epoch's conversations are shuffled, packed best-fit with the longest first, and their rows shuffled. Epochs
    follow each other without a gap: step s takes the rows s·R … s·R + R − 1 of all. For validation, rows come in
    order and once; the last step is filled up with empty rows.

    Args:
        data: a data folder of conversations.
        context: tokens of a row.
        rows_per_step: of all ranks together.
        seed: of the order.
        validation: the conversations held out.

    Raises:
        MissingError, FormatError, VerifyError: the data folder is not complete or was changed.
        OptionError: a number that is not positive, a conversation longer than a row, or nothing to learn from.
    """

    def __init__(self, data: Path, context: int, rows_per_step: int, seed: int, validation: bool = False) -> None:
        super().__init__(data, "conversations", rows_per_step, seed, validation)
        self.context, self.rows_per_step = context, rows_per_step
        self._lengths = np.concatenate([tokens.lengths for tokens in self.sources])
        longest = int(self._lengths.max(initial=0))
        if longest > context:
            raise OptionError(f"context: a conversation has {longest} tokens and a row {context}; raise it to that")
        self._epoch = lru_cache(maxsize=2)(self._packed)
        self._starts = [0]

    @property
    def n_rows(self) -> int:
        """Rows of the first epoch."""
        return len(self._epoch(0)) if self.n_records else 0

    @property
    def n_steps(self) -> int:
        """Steps that take each row once; the number of steps there are, for validation."""
        return -(-self.n_rows // self.rows_per_step)

    def step(self, step: int, rank: int = 0, n_ranks: int = 1) -> TrainingBatch:
        """The rows of one step that one rank trains on: a contiguous share.

        Raises:
            OptionError: the rows cannot be divided among the ranks, or there is no such step.
        """
        start, stop = self._share(step, self.n_steps, rank, n_ranks)
        rows = [self._row_at(place) for place in range(start, stop)]
        samples = [place if row is not None else -1 for place, row in zip(range(start, stop), rows, strict=True)]
        made = [self._row(row[2] if row is not None else ()) for row in rows]
        ids, targets, positions, documents = (np.stack(column) for column in zip(*made, strict=True))
        return TrainingBatch(ids, targets, positions, documents.astype(np.int32), np.array(samples, np.int64))

    def rows_of(self, step: int) -> list[list[dict[str, Any]]]:
        """Which conversations each row of a step is made of, as `Batches.rows_of` tells it of documents."""
        start, stop = self._share(step, self.n_steps)
        rows = [row for row in map(self._row_at, range(start, stop)) if row is not None]
        return [[self._told(epoch, row, record) for record in records.tolist()] for epoch, row, records in rows]

    def _told(self, epoch: int, row: int, record: int) -> dict[str, Any]:
        ids, mask = self._document(record)
        learned = int(np.count_nonzero(mask & LEARNED))
        text = self.tokenizer.decode(ids.tolist())
        return self._provenance(epoch, row, record) | {"learned": learned, "text": text}

    def _document(self, record: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        source, number = self.order.source(record)
        return self.sources[source].document(number)

    def _packed(self, epoch: int) -> list[NDArray[np.int64]]:
        """The records of each row of an epoch."""
        records = np.arange(self.n_records) if self.validation else self.order.epoch(epoch)
        rows = [records[row] for row in best_fit(self._lengths[records], self.context)]
        if self.validation:
            return sorted(rows, key=lambda row: int(row.min()))
        return [rows[number] for number in shuffled(np.arange(len(rows)), self.seed, _ROWS, epoch).tolist()]

    def _row_at(self, place: int) -> tuple[int, int, NDArray[np.int64]] | None:
        """Epoch, row and records of a place in the order of all rows; None behind the last one of validation."""
        if self.validation:
            return (0, place, self._epoch(0)[place]) if place < self.n_rows else None
        if self.order.same_size:  # best fit goes by lengths alone, so every epoch has as many rows
            epoch, row = divmod(place, self.n_rows)
            return epoch, row, self._epoch(epoch)[row]
        while self._starts[-1] <= place:
            self._starts.append(self._starts[-1] + len(self._epoch(len(self._starts) - 1)))
        epoch = int(np.searchsorted(self._starts, place, side="right")) - 1
        row = place - self._starts[epoch]
        return epoch, row, self._epoch(epoch)[row]

    def _row(self, records: NDArray[np.int64] | tuple[()]) -> tuple[NDArray[Any], ...]:
        """ids, targets, positions, documents, each (T,)."""
        ids = np.full(self.context, self.manifest.eos_id, np.int64)
        targets, positions = np.full_like(ids, IGNORED), np.arange(self.context)
        documents, start = np.zeros_like(ids), 0
        for number, record in enumerate(records):
            said, mask = self._document(int(record))
            stop = start + len(said)
            ids[start:stop], positions[start:stop] = said, np.arange(len(said))
            targets[start : stop - 1] = np.where(mask[1:] & LEARNED, said[1:], IGNORED)
            documents[start:stop] = number
            start = stop
        positions[start:] = np.arange(self.context - start)  # filling is a document of its own
        documents[start:] = len(records)
        return ids, targets, positions, documents

    def _cut(self) -> list[Any]:
        return [self.context]
