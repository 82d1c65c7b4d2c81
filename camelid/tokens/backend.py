"""What merges text into ids; `choose_backend` picks one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.uint16 | np.uint32]


class Encoder(Protocol):
    """Plain text to ids, for a part of a text without control tokens.

    For the SentencePiece kind a space and ▁ are the same, and user-defined pieces are cut out already.
    """

    def encode(self, text: str) -> list[int]:
        """The ids of one text."""

    def encode_batch(self, texts: Sequence[str], small: bool) -> tuple[Array, NDArray[np.int64]]:
        """The ids of all texts, one after another, as uint16 (`small`) or uint32, and where each text begins and the
        last one ends."""
