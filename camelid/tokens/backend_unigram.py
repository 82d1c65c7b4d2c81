"""SentencePiece's unigram models: the cut of a text whose pieces' scores have the largest sum.

Sums are float32, and of equal sums the first found stays, so that ties fall as they do in SentencePiece.
Source: Model::EncodeOptimized of unigram_model.cc.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from camelid.errors import FormatError
from camelid.tokens.backend import Array
from camelid.tokens.vocabulary import NORMAL, SPACE, USER, Vocabulary

_UNKNOWN_PENALTY = 10.0


class UnigramBackend:
    """A unigram vocabulary behind the interface of `backend.py`.

    Raises:
        FormatError: it has no piece for the unknown.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        if vocabulary.unk_id is None or vocabulary.scores is None:
            raise FormatError(f"{vocabulary.source}: a unigram model without a piece for the unknown; fetch it again")
        rows = list(zip(vocabulary.pieces, vocabulary.types, vocabulary.scores, strict=True))
        normal = [float(np.float32(score)) for _, kind, score in rows if kind == NORMAL]
        lowest, highest = min(normal, default=0.0), max(normal, default=0.0)
        self._unknown, self._unknown_score = vocabulary.unk_id, float(np.float32(lowest - _UNKNOWN_PENALTY))
        self._pieces: dict[str, tuple[int, float]] = {}
        lengths: dict[str, set[int]] = {}
        for id, (piece, kind, score) in enumerate(rows):
            if kind not in (NORMAL, USER) or not piece or id in vocabulary.flags:
                continue
            own = len(piece.encode()) * highest - 0.1 if kind == USER else score
            self._pieces.setdefault(piece, (id, float(np.float32(own))))
            lengths.setdefault(piece[0], set()).add(len(piece))
        self._lengths = {first: sorted(known) for first, known in lengths.items()}
        bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
        ids = {piece: id for id, piece in enumerate(vocabulary.pieces)}
        self._bytes = [ids[piece] for piece in bytes_] if all(piece in ids for piece in bytes_) else []

    def encode(self, text: str) -> list[int]:
        """The ids of one text."""
        text = text.replace(" ", SPACE)
        ids: list[int] = []
        unknown = False  # neighbours that are unknown become one
        for id, start, end in self._best(text):
            if id != self._unknown:
                ids.append(id)
            elif self._bytes:
                ids += [self._bytes[byte] for byte in text[start:end].encode()]
            elif not unknown:
                ids.append(id)
            unknown = id == self._unknown
        return ids

    def encode_batch(self, texts: Sequence[str], small: bool) -> tuple[Array, NDArray[np.int64]]:
        """The ids of all texts, one after another, and where each begins."""
        parts = [np.array(self.encode(text), np.uint16 if small else np.uint32) for text in texts]
        starts = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        return np.concatenate([np.empty(0, np.uint16 if small else np.uint32), *parts]), starts

    def _best(self, text: str) -> list[tuple[int, int, int]]:
        """Id, start and end of each piece of the best cut, in order."""
        size, pieces, lengths = len(text), self._pieces, self._lengths
        score, came_from, id_of = [0.0] * (size + 1), [-1] * (size + 1), [-1] * (size + 1)

        def offer(start: int, end: int, id: int, gain: float) -> None:
            whole = float(np.float32(gain + score[start]))
            if came_from[end] < 0 or whole > score[end]:
                score[end], came_from[end], id_of[end] = whole, start, id

        for start in range(size):
            single = False
            for length in lengths.get(text[start], ()):
                if start + length > size:
                    break
                piece = pieces.get(text[start : start + length])
                if piece is not None:
                    offer(start, start + length, *piece)
                    single = single or length == 1
            if not single:
                offer(start, start + 1, self._unknown, self._unknown_score)
        path, end = [], size
        while end > 0:
            path.append((id_of[end], came_from[end], end))
            end = came_from[end]
        return path[::-1]
