"""Who computes: the protocol of a backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from camelid.engine.batch import Batch
from camelid.model.config import ModelConfig

if TYPE_CHECKING:
    from camelid.weights.lora import Adapter
    from camelid.weights.weights import Weights


class Backend(Protocol):
    """Computes forward passes; owns the weights and the pool of pages.

    A row's result must not depend on the other spans of its batch.

    Attributes:
        same_bits: a row has the same bits however many ids its span has.
        absent: ids of the output matrix that are no token (see `absent_ids`); their logits are always -inf.
    """

    name: str
    config: ModelConfig
    page_size: int
    bytes_per_number: int  # of keys and values
    absent: NDArray[np.int64]
    same_bits: bool

    def free_bytes(self) -> int:
        """Memory that is left where keys and values are going to lie."""

    def allocate(self, n_pages: int) -> None:
        """Make the pool, with room for `n_pages` pages; what was in it is lost."""

    def forward(self, batch: Batch) -> list[NDArray[np.float32]]:
        """Write the new positions' keys and values into their pages.

        Returns:
            For each span its wanted rows in order: logits, (rows, V), or hidden states after the final norm, (rows, D).
        """

    def add_adapter(self, adapter: Adapter) -> int:
        """Take in what spans with the number that is returned are computed with, beside the base."""

    def copy_page(self, source: int, target: int) -> None:
        """Copy the keys and values of one page onto another."""


ALL_ARE_TOKENS: NDArray[np.int64] = np.empty(0, np.int64)  # no id is absent


def absent_ids(weights: Weights) -> NDArray[np.int64]:
    """Rows of a model's output matrix that are no token: those beyond the tokenizer, and its unused pieces.

    Ids that the files name as stop ids count as tokens: they end a text and need no piece. Without a tokenizer nothing
    is known to be absent.
    """
    if not weights.has_tokenizer:
        return ALL_ARE_TOKENS
    absent = weights.tokenizer.absent_ids(weights.config.vocab_size)
    return absent[~np.isin(absent, weights.stop_ids)]


def without_absent(logits: NDArray[np.float32], absent: NDArray[np.int64]) -> NDArray[np.float32]:
    """Logits, (rows, V), in which ids that are no token are -inf; written in place."""
    if len(absent):
        logits[:, absent] = -np.inf
    return logits
