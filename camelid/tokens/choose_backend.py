"""Which backend a vocabulary gets: our C++ loop for every way of cutting text that is known here, else the `tokenizers`
library."""

from __future__ import annotations

import importlib.util
import logging
from functools import cache

from camelid.tokens.backend import Encoder
from camelid.tokens.vocabulary import Vocabulary

log = logging.getLogger(__name__)


def choose_backend(vocabulary: Vocabulary) -> Encoder:
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
def warn_slow() -> None:
    """Warn, once, that much text will take long."""
    log.warning(
        "the C++ tokenizer is not built, the tokenizers library cuts text, much slower: pip install --force camelid"
    )
