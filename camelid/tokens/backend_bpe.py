"""A Vocabulary in our C++ loop (`csrc/`), for the ways of cutting text that it knows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tokenizers
from numpy.typing import NDArray

from camelid.tokens import _bpe
from camelid.tokens.backend import Array, Backend
from camelid.tokens.merges import known_merges, mergeable_ids
from camelid.tokens.pretokenizers import stages_of
from camelid.tokens.vocabulary import USER, Vocabulary, byte_alphabet

Change = Callable[[str], str]


def build_bpe(vocabulary: Vocabulary) -> Backend | None:
    """The loop for a vocabulary, or None if it would give other ids than the `tokenizers` library.

    Raises:
        FormatError: a merge names a piece that the vocabulary lacks.
    """
    if vocabulary.kind == "sentencepiece":
        known = set(vocabulary.pieces)
        has_bytes = all(f"<0x{byte:02X}>" in known for byte in range(256))
        if not has_bytes or vocabulary.splitter.ignore_merges:
            return None
        return _encoder(vocabulary, [])
    stages = stages_of(vocabulary.splitter)
    normalizer = vocabulary.splitter.normalizer
    if stages is None or (normalizer is not None and normalizer != {"type": "NFC"}):
        return None
    added = [id for id, kind in enumerate(vocabulary.types) if kind == USER and vocabulary.pieces[id]]
    if not added and normalizer is None:
        return _encoder(vocabulary, stages)
    rules = {frozenset(vocabulary.flags.get(id, {})) for id in added} or {frozenset[str]()}
    if normalizer is None and rules <= {frozenset(), frozenset({"normalized"})}:
        rules = {frozenset()}
    if len(rules) > 1 or not rules <= {frozenset(), frozenset({"normalized"})}:
        return None
    ids = {vocabulary.pieces[id]: id for id in reversed(added)}
    return _Parts(_encoder(vocabulary, stages), ids, normalizer is not None, frozenset() not in rules)


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


class _Parts:
    """Text that is composed first (NFC), and from which added tokens are cut out, before the loop sees it."""

    def __init__(self, encoder: _bpe.Encoder, added: dict[str, int], composes: bool, after: bool) -> None:
        """`after`: the added tokens are looked for in composed text, as they are composed themselves."""
        self._encoder = encoder
        compose: Change = tokenizers.normalizers.NFC().normalize_str if composes else _same
        self._before: Change = compose if after else _same
        self._between: Change = _same if after else compose
        self._added = {self._before(piece): id for piece, id in added.items()}
        longest_first = sorted(self._added, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def encode(self, text: str) -> list[int]:
        """The ids of one text."""
        ids: list[int] = []
        for part in self._cut(text):
            ids += [part] if isinstance(part, int) else self._encoder.encode(part)
        return ids

    def encode_batch(self, texts: Sequence[str], small: bool) -> tuple[Array, NDArray[np.int64]]:
        """The ids of all texts, one after another, and where each begins."""
        parts = [np.array(self.encode(text), np.uint16 if small else np.uint32) for text in texts]
        starts = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        return np.concatenate([np.empty(0, np.uint16 if small else np.uint32), *parts]), starts

    def _cut(self, text: str) -> Iterator[str | int]:
        before, between = (_same, _same) if text.isascii() else (self._before, self._between)
        text, at = before(text), 0
        for match in self._pattern.finditer(text):
            yield between(text[at : match.start()])
            yield self._added[match.group()]
            at = match.end()
        yield between(text[at:])


def _same(text: str) -> str:
    return text
