"""A Vocabulary in our C++ loop (`csrc/`), for the ways of cutting text that it knows."""

from __future__ import annotations

from collections.abc import Sequence

from camelid.tokens import _bpe
from camelid.tokens.backend import Encoder
from camelid.tokens.merges import known_merges, mergeable_ids
from camelid.tokens.pretokenizers import stages_of
from camelid.tokens.vocabulary import Vocabulary, byte_alphabet


def build_bpe(vocabulary: Vocabulary) -> Encoder | None:
    """The loop for a vocabulary, or None if it would give other ids than the `tokenizers` library.

    Raises:
        FormatError: a merge names a piece that the vocabulary lacks.
    """
    if vocabulary.kind == "sentencepiece":
        known = set(vocabulary.pieces)
        has_bytes = all(f"<0x{byte:02X}>" in known for byte in range(256))
        own = vocabulary.splitter.normalizer is not None or vocabulary.splitter.pre_tokenizer is not None
        if not has_bytes or own or vocabulary.splitter.ignore_merges or vocabulary.unigram:
            return None
        return _encoder(vocabulary, [])
    stages = stages_of(vocabulary.splitter)
    return None if stages is None else _encoder(vocabulary, stages)


def _encoder(vocabulary: Vocabulary, stages: list[str]) -> _bpe.Encoder:
    ids = mergeable_ids(vocabulary)
    alphabet = [-1] * 0
    if vocabulary.kind == "bpe":
        alphabet = [-1] * (1 + max(map(ord, byte_alphabet())))
        for character, byte in byte_alphabet().items():
            alphabet[ord(character)] = byte

    def make(merges: Sequence[tuple[str, str]]) -> _bpe.Encoder:
        ignore = vocabulary.splitter.ignore_merges
        return _bpe.Encoder(ids=ids, merges=list(merges), stages=stages, alphabet=alphabet, whole_words=ignore)

    try:
        return make(vocabulary.merges)
    except ValueError:  # a merge of pieces that are no text
        return make(known_merges(vocabulary, ids))
