"""The C++ tokenizer's module; `csrc/bind.cpp` is where these come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

class Encoder:
    """Text to ids by merges. Several threads may use one at the same time; Python's lock is not held meanwhile."""

    def __init__(
        self,
        *,
        ids: Mapping[str, int],
        merges: list[tuple[str, str]],
        stages: list[str],
        alphabet: list[int],
        whole_words: bool,
    ) -> None:
        """`stages`: names of the expressions that cut, in turn; none for the SentencePiece kind.

        `alphabet`: code of a character → byte or −1, for the byte-level kind; else empty.
        `whole_words`: a word that is a piece becomes it, whatever the merges say.
        Raises ValueError if a merge is of pieces that are not in `ids`.
        """

    def encode(self, text: str) -> list[int]: ...
    def encode_batch(
        self, texts: Sequence[str], small: bool
    ) -> tuple[NDArray[np.uint16 | np.uint32], NDArray[np.int64]]:
        """The ids of all texts, one after another, as uint16 (`small`) or uint32, and where each text begins."""

    def count_steps(self, text: str) -> int:
        """How much work a text is: bytes looked at, pairs looked up, places visited."""

class WordCounter:
    """How often words come."""

    def __init__(self, stages: list[str], longest: int) -> None: ...
    def add(self, text: str) -> None: ...
    def take(self) -> list[tuple[bytes, int]]:
        """The words so far, in the order of their bytes; nothing is held afterwards."""

    def __len__(self) -> int: ...

def cut(stages: list[str], text: str) -> list[str]:
    """The words of a text."""

def learn_merges(
    symbols: NDArray[np.uint32],
    starts: NDArray[np.uint64],
    counts: NDArray[np.int64],
    lengths: NDArray[np.uint32],
    n_merges: int,
    longest: int,
    min_count: int,
    progress: Callable[[int], None] | None,
) -> list[tuple[int, int]]:
    """The function of `training/bpe_train.py`; the words lie one after another, `starts` has one more than words."""
