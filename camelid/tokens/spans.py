"""Which ids of a text overlap a stretch of it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from camelid.errors import OptionError

Spans = Sequence[tuple[int, int]]  # start and end of each stretch, in order


def within(spans: Spans, start: int, end: int) -> Spans:
    """What a part of a text has of some spans, counted from the part's beginning."""
    clipped = ((max(first, start) - start, min(last, end) - start) for first, last in spans)
    return [(first, last) for first, last in clipped if first < last]


def overlapping(pieces: Sequence[bytes], text: str, spans: Spans, space: str) -> list[bool]:
    """For each piece whether it holds a character of a span.

    Args:
        pieces: the bytes of the ids of a text; a space that was put before the text belongs to its first character.
        text: what was cut into them.
        spans: in characters of the text.
        space: how a space is written in the pieces and in the text.

    Raises:
        OptionError: the pieces are not the text's.
    """
    if list(spans) == [(0, len(text))]:
        return [True] * len(pieces)
    shown, data = b"".join(pieces), text.encode()
    before = b"" if shown == data else space.encode()
    if shown != before + data:
        raise OptionError(
            "mask: this vocabulary cannot spell every character beside an answer; reword it", param="mask"
        )

    def place(at: int) -> int:
        return len(before) + len(text[:at].encode()) if at else 0

    edges = [(place(first), place(last)) for first, last in spans]
    ends = list(accumulate(map(len, pieces)))
    return [
        any(start < last and end > first for first, last in edges) for start, end in zip([0, *ends], ends, strict=False)
    ]
