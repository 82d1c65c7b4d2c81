"""A data folder of conversations, opened: what rows, pairs and prompts have in common."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camelid.data.chats.masked_shards import MaskedTokens
from camelid.data.chats.options import Form
from camelid.data.chats.order import EpochOrder
from camelid.data.manifest import read_manifest
from camelid.data.shards import FOLDER
from camelid.errors import OptionError

if TYPE_CHECKING:
    from camelid.tokens.tokenizer import Tokenizer

VERSION = 1  # of the order; a change changes every run


class ChatData:
    """Records of one form, in the order of training or of validation.

    Args:
        data: a data folder that `prepare_chats` made.
        form: what must be in it.
        per_step: rows, pairs or prompts of a step, of all ranks together.
        seed: of the order.
        validation: those held out, in order and once.

    Attributes:
        manifest: of the folder.

    Raises:
        MissingError, FormatError, VerifyError: the folder is not complete or was changed.
        OptionError: it holds something else, or nothing to learn from.
    """

    def __init__(self, data: Path, form: Form, per_step: int, seed: int, validation: bool = False) -> None:
        if per_step < 1:
            raise OptionError(f"{form} of a step: must be 1 or more, got {per_step}")
        self.data, self.manifest = Path(data), read_manifest(Path(data))
        there = "documents" if self.manifest.chats is None else self.manifest.chats["form"]
        if there != form:
            raise OptionError(f"{data}: holds {there}, and {form} are wanted; give the stage its own data")
        self.form, self.per_step, self.seed, self.validation = form, per_step, seed, validation
        names = [source.name for source in self.manifest.sources]
        self.sources = [self._tokens(name) for name in names]
        sizes = [tokens.n_documents for tokens in self.sources]
        self.n_records = sum(sizes)
        weights = [1.0 if validation else source.weight for source in self.manifest.sources]
        self._order = None if validation and not self.n_records else EpochOrder(seed, sizes, weights)

    @property
    def order(self) -> EpochOrder:
        """Of the records. There must be some."""
        assert self._order is not None
        return self._order

    def fingerprint(self) -> str:
        """SHA-256, in hex, of all that decides every step: data, order, and cut."""
        about = [VERSION, self.manifest.fingerprint(), self.form, self.per_step, self.seed, self.validation]
        return hashlib.sha256(json.dumps([*about, *self._cut()]).encode()).hexdigest()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Of the data folder; checked against the manifest."""
        return self.manifest.open_tokenizer(self.data)

    def _cut(self) -> list[Any]:
        return []

    def _tokens(self, source: str) -> MaskedTokens:
        kind = self.validation
        shards = [shard for shard in self.manifest.shards if shard.source == source and shard.validation == kind]
        return MaskedTokens(self.data / FOLDER, shards, self.manifest.vocab_size)

    def _share(self, step: int, n_steps: int, rank: int = 0, n_ranks: int = 1) -> tuple[int, int]:
        """Start and stop of a rank's contiguous share of a step, in the order of all.

        Raises:
            OptionError: a step cannot be divided among the ranks, or there is no such step.
        """
        if self.per_step % n_ranks or not 0 <= rank < n_ranks:
            raise OptionError(f"{self.form} of a step: {self.per_step} cannot be divided among {n_ranks} ranks")
        if step < 0 or (self.validation and step >= n_steps):
            last = f" to {n_steps - 1}" if self.validation else ""
            raise OptionError(f"step {step}: there are steps 0{last}")
        share = self.per_step // n_ranks
        start = step * self.per_step + rank * share
        return start, start + share

    def _places(self, start: int, stop: int) -> list[tuple[int, int]]:
        """(epoch, record) of a stretch of the order."""
        if self.validation:
            return [(0, record) for record in range(start, min(stop, self.n_records))]
        return self.order.places(start, stop)

    def _provenance(self, epoch: int, row: int, record: int) -> dict[str, Any]:
        """Where a record came from: what is on record, and its place in the data."""
        number, document = self.order.source(record)
        tokens = self.sources[number]
        span = tokens.span(document)
        place = {"source": self.manifest.sources[number].name, "epoch": epoch, "row": row}
        place |= {"shard": tokens.shards[span.shard].name, "document": span.document}
        return {**tokens.describe(span), **place, "start": 0, "stop": span.stop - span.start}
