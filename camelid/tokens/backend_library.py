"""A Vocabulary in the `tokenizers` library: it merges; control pieces are not known to it, so no text gives them.

It cuts text in every way that a tokenizer.json can say, and is the measure of the C++ loop beside it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import AddedToken
from tokenizers.models import BPE

from camelid.errors import FormatError
from camelid.tokens.backend import Array
from camelid.tokens.merges import known_merges, mergeable_ids
from camelid.tokens.vocabulary import SPACE, USER, Vocabulary

_EMPTY = {"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}


class LibraryBackend:
    """The library behind the interface of `backend.py`."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._library = build_library(vocabulary)
        self._blocks = vocabulary.kind == "sentencepiece"

    def encode(self, text: str) -> list[int]:
        """The ids of one text."""
        ids: list[int] = self._library.encode(self._shown(text), add_special_tokens=False).ids
        return ids

    def encode_batch(self, texts: Sequence[str], small: bool) -> tuple[Array, NDArray[np.int64]]:
        """The ids of all texts, one after another, and where each begins."""
        done = self._library.encode_batch_fast([self._shown(text) for text in texts], add_special_tokens=False)
        parts = [np.array(one.ids, np.uint16 if small else np.uint32) for one in done]
        starts = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        return np.concatenate([np.empty(0, np.uint16 if small else np.uint32), *parts]), starts

    def _shown(self, text: str) -> str:
        return text.replace(" ", SPACE) if self._blocks else text


def build_library(vocabulary: Vocabulary) -> tokenizers.Tokenizer:
    """The library's tokenizer, without control pieces and without anything it would add before or after a text.

    For the SentencePiece kind it takes text with ▁ for spaces and user pieces cut out already.

    Raises:
        FormatError: a merge names a piece that the vocabulary lacks.
    """
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
        model = make(merges=list(vocabulary.merges))
    except Exception:  # a merge of pieces that are no text; the library has no class of its own for this
        model = make(merges=known_merges(vocabulary, ids))
    if sentencepiece:
        return tokenizers.Tokenizer(model)
    splitter = vocabulary.splitter
    shell = {**_EMPTY, "normalizer": splitter.normalizer, "pre_tokenizer": splitter.pre_tokenizer}
    try:
        backend = tokenizers.Tokenizer.from_str(json.dumps(shell))
    except Exception as error:  # the library has no class of its own for this
        raise FormatError(f"{vocabulary.source}: normalizer or pre_tokenizer: {error}; fetch it again") from None
    backend.model = model
    added = [
        AddedToken(vocabulary.pieces[id], special=False, **{"normalized": False, **vocabulary.flags.get(id, {})})
        for id, kind in enumerate(vocabulary.types)
        if kind == USER
    ]
    if added:
        backend.add_tokens(added)
    return backend
