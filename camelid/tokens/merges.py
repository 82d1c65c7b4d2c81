"""From pieces with an order to merges: the list that makes the backend merge as SentencePiece and tiktoken do.

Both join, again and again, the two neighbours whose union is the best piece, leftmost on a tie. The backend instead
wants pairs in one order, with no ties. The two agree exactly when each piece comes with only one pair: the two parts
that are left just before the end when the piece *by itself* is merged. Why that is enough: if a piece arises at some
place in a text, no merge before crossed its borders, so the merges inside it were those of the piece by itself, step
by step, and so were the last two parts. Any other pair of the same union never stands there. One order is left, that
of the pieces; only different pieces of equal score could make it ambiguous, and those are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from camelid.errors import FormatError, UnsupportedError
from camelid.tokens.vocabulary import CONTROL, UNKNOWN, Vocabulary

_NEVER = 1 << 62


def last_pair(piece: str, ranks: Mapping[str, int]) -> tuple[str, str] | None:
    """The two parts from which `piece` arises; None if merging its characters never gets there.

    Args:
        ranks: every piece that may arise → its place in the order, lower is earlier.
    """
    parts = list(piece)
    if len(parts) < 2:
        return None
    get = ranks.get
    gains = [get(left + right, _NEVER) for left, right in pairwise(parts)]
    while len(parts) > 2:
        best = min(gains)
        if best == _NEVER:
            return None
        at = gains.index(best)
        parts[at] += parts.pop(at + 1)
        del gains[at]
        if at < len(gains):
            gains[at] = get(parts[at] + parts[at + 1], _NEVER)
        if at:
            gains[at - 1] = get(parts[at - 1] + parts[at], _NEVER)
    return parts[0], parts[1]


def merges_in_order(pieces: Iterable[str], ranks: Mapping[str, int]) -> list[tuple[str, str]]:
    """The pair of each piece that can arise, for pieces given best first."""
    pairs = (last_pair(piece, ranks) for piece in pieces)
    return [pair for pair in pairs if pair is not None]


def merges_by_score(scored: Sequence[tuple[str, float]], source: str = "tokenizer") -> list[tuple[str, str]]:
    """Merges, best first, for SentencePiece's pieces with scores.

    Raises:
        UnsupportedError: two pieces that can arise have the same score, so that their order depends on the place.
    """
    best_first = sorted(scored, key=lambda item: -item[1])
    ranks: dict[str, int] = {}
    rank, previous = -1, None
    for piece, score in best_first:
        rank += score != previous
        previous = score
        ranks[piece] = rank
    merges = merges_in_order((piece for piece, _ in best_first), ranks)
    for one, two in pairwise(left + right for left, right in merges):
        if ranks[one] == ranks[two]:
            raise UnsupportedError(f"{source}: pieces {one!r} and {two!r} have the same score; convert the model again")
    return merges


def order_of(merges: Sequence[tuple[str, str]]) -> list[str] | None:
    """The pieces whose order alone, best first, gives these merges; None if there is no such order."""
    order: dict[str, int] = {}
    last = ""
    for left, right in merges:
        piece = left + right
        if piece in order and piece != last:
            return None
        order.setdefault(piece, len(order))
        last = piece
    given = set(merges)
    if all(pair in given for pair in merges_in_order(order, order)):
        return list(order)
    return None


def mergeable_ids(vocabulary: Vocabulary) -> dict[str, int]:
    """Piece → id of all that text can give; of pieces with the same text the first."""
    pieces = vocabulary.pieces
    ids = dict(zip(reversed(pieces), range(len(pieces) - 1, -1, -1), strict=True))
    control = [id for id, kind in enumerate(vocabulary.types) if kind in (CONTROL, UNKNOWN)]
    for id in (*control, *vocabulary.outside):
        if ids.get(pieces[id]) == id:
            del ids[pieces[id]]
    return ids


def known_merges(vocabulary: Vocabulary, ids: dict[str, int]) -> list[tuple[str, str]]:
    """The merges without those that touch a control piece, of whom some files have many.

    Raises:
        FormatError: a merge names a piece that is not there.
    """
    control = {vocabulary.pieces[id] for id, kind in enumerate(vocabulary.types) if kind in (CONTROL, UNKNOWN)}
    known = []
    for left, right in vocabulary.merges:
        parts = (left, right, left + right)
        unknown = [part for part in parts if part not in ids]
        if not unknown:
            known.append((left, right))
        elif not set(unknown) <= control:
            part = next(part for part in unknown if part not in control)
            raise FormatError(f"{vocabulary.source}: merge {left!r} {right!r}: no piece {part!r}; fetch the file again")
    return known
