"""What one forward pass is given: spans of new ids, and which of their rows are wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["logits", "hidden"]


@dataclass(frozen=True)
class Span:
    """One sequence's share of a forward pass.

    Attributes:
        ids: new ids.
        start: position of the first, which is also how many positions the pages hold already.
        pages: the sequence's pages in order, with room for the new positions.
        wanted: indexes into `ids` whose rows are wanted, in steps of one; `range(0)`: none.
        kind: what a row is: logits, (V,), or the hidden state after the final norm, (D,).
        n_prompt: ids of the prompt that the sequence began with; see `model.rope.rope_table`.
        adapter: the number of the backend's adapter that the pass is computed with; 0: none.
    """

    ids: tuple[int, ...]
    start: int
    pages: tuple[int, ...]
    wanted: range
    kind: Kind = "logits"
    n_prompt: int = 0
    adapter: int = 0


@dataclass(frozen=True)
class Batch:
    """The spans of one forward pass, each of another sequence."""

    spans: tuple[Span, ...]
