"""Preferences in the order of training: pairs of conversations that differ in their last answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from camelid.data.chats.chat_data import ChatData
from camelid.data.chats.encode import LEARNED, SECOND
from camelid.data.chats.examples import Example, Pair
from camelid.errors import FormatError


class Pairs(ChatData):
    """Every step's pairs; a pure function of seed and step, whatever the number of ranks.

    For validation, pairs come in order and once; the last step may have fewer.

    Args:
        data: a data folder of preferences.
        pairs_per_step: of all ranks together.
        seed: of the order.
        validation: the pairs held out.

    Raises:
        MissingError, FormatError, VerifyError: the data folder is not complete or was changed.
        OptionError: a number that is not positive, or nothing to learn from.
    """

    def __init__(self, data: Path, pairs_per_step: int, seed: int, validation: bool = False) -> None:
        super().__init__(data, "preferences", pairs_per_step, seed, validation)

    @property
    def n_pairs(self) -> int:
        """Pairs of an epoch."""
        return self.n_records if self.validation else self.order.start(1)

    @property
    def n_steps(self) -> int:
        """Steps that take each pair once; the number of steps there are, for validation."""
        return -(-self.n_pairs // self.per_step)

    def step(self, step: int, rank: int = 0, n_ranks: int = 1) -> list[Pair]:
        """The pairs of one step that one rank learns from: a contiguous share.

        Raises:
            OptionError: the pairs cannot be divided among the ranks, or there is no such step.
        """
        return [self._pair(record) for _, record in self._places(*self._share(step, self.n_steps, rank, n_ranks))]

    def rows_of(self, step: int) -> list[list[dict[str, Any]]]:
        """The two conversations of each pair of a step, as `Batches.rows_of` tells it of documents; `answer` says
        which one."""
        rows = []
        start, stop = self._share(step, self.n_steps)
        for row, (epoch, record) in enumerate(self._places(start, stop)):
            pair, about = self._pair(record), self._provenance(epoch, row, record)
            texts = [self.tokenizer.decode(each.ids.tolist()) for each in (pair.chosen, pair.rejected)]
            size = len(pair.chosen.ids)
            first = about | {"answer": "chosen", "stop": size, "text": texts[0]}
            rows.append([first, about | {"answer": "rejected", "start": size, "text": texts[1]}])
        return rows

    def _pair(self, record: int) -> Pair:
        source, number = self.order.source(record)
        tokens = self.sources[source]
        ids, mask = tokens.document(number)
        found = np.flatnonzero(mask & SECOND)
        if len(found) != 1:
            raise FormatError(f"{self.data}: the mask of pair {number} shows no two answers; prepare the data again")
        second = int(found[0])
        learned = (mask & LEARNED).astype(np.bool_)
        chosen, rejected = (Example(ids[part], learned[part]) for part in (slice(second), slice(second, None)))
        line = tokens.record(number)
        meta = dict(line.pop("meta", {}))
        labels = {name: meta.pop(name, None) for name in ("grade", "chosen_safe", "rejected_safe")}
        about = {"id": line["id"], "source": self.manifest.sources[source].name, "licence": line["licence"], **meta}
        return Pair(chosen, rejected, **labels, about=about)
