"""A Vocabulary in the `tokenizers` library: it merges; control pieces are not known to it, so no text gives them.

It cuts text in every way that a tokenizer.json can say, and is the measure of the C++ loop beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers.models import BPE, Unigram

from camelid.errors import FormatError
from camelid.tokens.backend import Array
from camelid.tokens.files.tokenizer_parts import with_prefix
from camelid.tokens.merges import known_merges, mergeable_ids
from camelid.tokens.normalizing import asked, asked_quietly, library_part
from camelid.tokens.pretokenizers import stages_of
from camelid.tokens.vocabulary import CONTROL, SPACE, UNKNOWN, Vocabulary


class LibraryBackend:
    """The library behind the interface of `backend.py`.

    Args:
        vocabulary: what to merge with.
        prefix: for a sentencepiece vocabulary with a pre-tokenizer of its own: it puts the space before each text.
    """

    def __init__(self, vocabulary: Vocabulary, prefix: bool = False) -> None:
        self._library = build_library(vocabulary, prefix)
        self._source = vocabulary.source
        own = vocabulary.splitter.pre_tokenizer is not None and stages_of(vocabulary.splitter) is None
        self._ask = asked_quietly if own else asked
        self._blocks = vocabulary.kind == "sentencepiece" and vocabulary.splitter.pre_tokenizer is None

    def encode(self, text: str) -> list[int]:
        """The ids of one text."""
        shown = self._shown(text)
        ids: list[int] = self._ask(lambda: self._library.encode(shown, add_special_tokens=False).ids, self._source)
        return ids

    def encode_batch(self, texts: Sequence[str], small: bool) -> tuple[Array, NDArray[np.int64]]:
        """The ids of all texts, one after another, and where each begins."""
        shown = [self._shown(text) for text in texts]
        done = self._ask(lambda: self._library.encode_batch_fast(shown, add_special_tokens=False), self._source)
        parts = [np.array(encoding.ids, np.uint16 if small else np.uint32) for encoding in done]
        starts = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        return np.concatenate([np.empty(0, np.uint16 if small else np.uint32), *parts]), starts

    def _shown(self, text: str) -> str:
        return text.replace(" ", SPACE) if self._blocks else text


def build_library(vocabulary: Vocabulary, prefix: bool = False) -> tokenizers.Tokenizer:
    """The library's tokenizer for normalised text without added tokens; it puts nothing after it.

    Raises:
        FormatError: a merge names a piece that the vocabulary lacks, or the pre-tokenizer is damaged.
    """
    model = _unigram(vocabulary) if vocabulary.unigram else _bpe(vocabulary)
    library = tokenizers.Tokenizer(model)
    cutter = vocabulary.splitter.pre_tokenizer
    if vocabulary.kind == "sentencepiece":
        cutter = with_prefix(cutter, prefix)
    if cutter is not None:
        library.pre_tokenizer = library_part("pre_tokenizer", cutter, vocabulary.source)
    return library


def _bpe(vocabulary: Vocabulary) -> BPE:
    sentencepiece = vocabulary.kind == "sentencepiece"
    ids = mergeable_ids(vocabulary)
    has_bytes = sentencepiece and all(f"<0x{byte:02X}>" in ids for byte in range(256))
    unknown = None
    if sentencepiece and not has_bytes and vocabulary.unk_id is not None:
        unknown = vocabulary.pieces[vocabulary.unk_id]
        ids[unknown] = vocabulary.unk_id
    make = partial(
        BPE,
        vocab=ids,
        unk_token=unknown,
        fuse_unk=unknown is not None,
        byte_fallback=has_bytes,
        ignore_merges=vocabulary.splitter.ignore_merges,
    )
    try:
        return make(merges=list(vocabulary.merges))
    except Exception:  # a merge of pieces that are no text; the library has no class of its own for this
        return make(merges=known_merges(vocabulary, ids))


def _unigram(vocabulary: Vocabulary) -> Unigram:
    """Control pieces keep their score, which the score of the unknown follows from, but hold a space, as no text here
    does."""
    scores = vocabulary.scores or ()
    rows = [
        (f" {id}" if kind in (CONTROL, UNKNOWN) else piece, score)
        for id, (piece, kind, score) in enumerate(zip(vocabulary.pieces, vocabulary.types, scores, strict=True))
    ]
    has_bytes = all(f"<0x{byte:02X}>" in set(vocabulary.pieces) for byte in range(256))
    try:
        return Unigram(rows, vocabulary.unk_id, has_bytes)
    except Exception as error:  # the library has no class of its own for this
        raise FormatError(f"{vocabulary.source}: {error}; fetch it again") from None
