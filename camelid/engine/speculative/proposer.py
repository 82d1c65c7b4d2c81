"""Who proposes draft tokens.

A draft token changes speed and never the distribution of the text: what is written is chosen as ever, and goes on
within a pass while the chosen id is the proposed one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from camelid.engine.sampling.choose import Writer
from camelid.engine.sequence import Sequence
from camelid.engine.speculative.length import MOST, PassCost


class Proposer(Protocol):
    """Proposes draft tokens, and keeps what it needs for that by sequence.

    Attributes:
        cost: told what passes take.
    """

    cost: PassCost

    def propose(self, sizes: Mapping[Writer, int], room: int) -> None:
        """Set the draft tokens of answers that get their next id in this pass.

        Args:
            sizes: ids of each answer's sequence in the pass, also of those that want no draft tokens.
            room: draft tokens that the pass can verify in all.
        """

    def drop(self, sequence: Sequence) -> None:
        """Forget a sequence that has ended."""

    def clear(self) -> None:
        """Forget what was computed, since the weights have changed."""


def most_drafts(writer: Writer, size: int, room: int) -> int:
    """How many draft tokens a pass may verify: none while a prompt is read, and one id is written without any."""
    sequence = writer.sequence
    if size != 1 or sequence.computed + size != len(sequence.ids):
        return 0
    if writer.constraint is not None and writer.constraint.slow:
        return 0
    asked = sequence.request.params.draft_tokens
    return max(0, min(MOST if asked == "auto" else asked, writer.limit - len(sequence.ids) - 1, room))


def n_writing(sizes: Mapping[Writer, int]) -> int:
    """Answers that get their next id in a pass, and read no prompt for it."""
    return sum(size == 1 and len(writer.sequence.ids) == writer.sequence.computed + 1 for writer, size in sizes.items())
