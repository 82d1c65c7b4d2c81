"""Prompts in the order of training: conversations that wait for an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from camelid.data.chats.chat_data import ChatData
from camelid.data.chats.examples import Prompt


class Prompts(ChatData):
    """Every step's prompts; a pure function of seed and step, whatever the number of ranks.

    For validation, prompts come in order and once; the last step may have fewer.

    Args:
        data: a data folder of prompts.
        prompts_per_step: of all ranks together.
        seed: of the order.
        validation: the prompts held out.

    Raises:
        MissingError, FormatError, VerifyError: the data folder is not complete or was changed.
        OptionError: a number that is not positive, or nothing to learn from.
    """

    def __init__(self, data: Path, prompts_per_step: int, seed: int, validation: bool = False) -> None:
        super().__init__(data, "prompts", prompts_per_step, seed, validation)

    @property
    def n_prompts(self) -> int:
        """Prompts of an epoch."""
        return self.n_records if self.validation else self.order.start(1)

    @property
    def n_steps(self) -> int:
        """Steps that take each prompt once; the number of steps there are, for validation."""
        return -(-self.n_prompts // self.per_step)

    def step(self, step: int, rank: int = 0, n_ranks: int = 1) -> list[Prompt]:
        """The prompts of one step that one rank answers: a contiguous share.

        Raises:
            OptionError: the prompts cannot be divided among the ranks, or there is no such step.
        """
        return [self._prompt(record) for _, record in self._places(*self._share(step, self.n_steps, rank, n_ranks))]

    def rows_of(self, step: int) -> list[list[dict[str, Any]]]:
        """The prompts of a step, each a row of its own, as `Batches.rows_of` tells it of documents."""
        rows = []
        for row, (epoch, record) in enumerate(self._places(*self._share(step, self.n_steps))):
            text = self.tokenizer.decode(self._prompt(record).ids.tolist())
            rows.append([self._provenance(epoch, row, record) | {"text": text}])
        return rows

    def _prompt(self, record: int) -> Prompt:
        source, number = self.order.source(record)
        tokens = self.sources[source]
        ids, _ = tokens.document(number)
        line = tokens.record(number)
        meta = line["meta"]
        about = {"id": line["id"], "source": self.manifest.sources[source].name, "licence": line["licence"]}
        return Prompt(ids, tuple(meta["messages"]), about | meta["about"])
