"""What merges: our C++ loop for every way of cutting text that is known here, else the `tokenizers` library."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from functools import cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from camelid.tokens.vocabulary import Vocabulary

log = logging.getLogger(__name__)

Array = NDArray[np.uint16 | np.uint32]


class Backend(Protocol):
    """Plain text to ids, for a part of a text without control tokens.

    For the SentencePiece kind a space and ▁ are the same, and user-defined pieces are cut out already.
    """

    def encode(self, text: str) -> list[int]:
        """The ids of one text."""

    def encode_batch(self, texts: Sequence[str], small: bool) -> tuple[Array, NDArray[np.int64]]:
        """The ids of all texts, one after another, as uint16 (`small`) or uint32, and where each text begins and the
        last one ends."""


def build_backend(vocabulary: Vocabulary) -> Backend:
    """The fastest backend that gives the vocabulary's ids.

    Raises:
        FormatError: a merge names a piece that the vocabulary lacks, or the file cuts text in a way that cannot be.
    """
    if vocabulary.unigram and vocabulary.splitter.pre_tokenizer is None and vocabulary.splitter.normalizer is None:
        from camelid.tokens.backend_unigram import UnigramBackend

        return UnigramBackend(vocabulary)
    if has_bpe():
        from camelid.tokens.backend_bpe import build_bpe

        fast = build_bpe(vocabulary)
        if fast is not None:
            return fast
    from camelid.tokens.backend_library import LibraryBackend

    return LibraryBackend(vocabulary)


@cache
def has_bpe() -> bool:
    """Whether the C++ merge loop was built when camelid was installed."""
    return importlib.util.find_spec("camelid.tokens._bpe") is not None


@cache
def say_slow() -> None:
    """Tell, once, that much text will take long."""
    log.warning(
        "the C++ tokenizer is not built, the tokenizers library cuts text, much slower: pip install --force camelid"
    )
