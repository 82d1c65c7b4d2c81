"""A Vocabulary in the `tokenizers` library: it merges; control pieces are not known to it, so no text gives them."""

from __future__ import annotations

import json
from functools import partial

import tokenizers
from tokenizers import AddedToken
from tokenizers.models import BPE

from camelid.errors import FormatError
from camelid.tokens.vocabulary import CONTROL, UNKNOWN, USER, Vocabulary

_EMPTY = {"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}


def build_backend(vocabulary: Vocabulary) -> tokenizers.Tokenizer:
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
        model = make(merges=_known_merges(vocabulary, ids))
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


def mergeable_ids(vocabulary: Vocabulary) -> dict[str, int]:
    """Piece → id of all that text can give; of pieces with the same text the first."""
    pieces = vocabulary.pieces
    ids = dict(zip(reversed(pieces), range(len(pieces) - 1, -1, -1), strict=True))
    for id, kind in enumerate(vocabulary.types):
        if kind in (CONTROL, UNKNOWN) and ids.get(pieces[id]) == id:
            del ids[pieces[id]]
    return ids


def _known_merges(vocabulary: Vocabulary, ids: dict[str, int]) -> list[tuple[str, str]]:
    """The merges without those that touch a control piece."""
    control = {vocabulary.pieces[id] for id, kind in enumerate(vocabulary.types) if kind in (CONTROL, UNKNOWN)}
    kept = []
    for left, right in vocabulary.merges:
        parts = (left, right, left + right)
        unknown = [part for part in parts if part not in ids]
        if not unknown:
            kept.append((left, right))
        elif not set(unknown) <= control:
            part = next(part for part in unknown if part not in control)
            raise FormatError(f"{vocabulary.source}: merge {left!r} {right!r}: no piece {part!r}; fetch the file again")
    return kept
