"""Votes before they are cleaned, with their texts, from any log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from camelid.arena.logs.read import read_logged
from camelid.arena.logs.vote import Conversation, Vote


@dataclass(frozen=True, slots=True)
class Candidate:
    """A vote that may count.

    Attributes:
        place: where it stands, as FILE:LINE.
        invalid: what its log says against it.
        conversations: of side A and B; empty: the log has no texts.
    """

    vote: Vote
    place: str
    invalid: str | None
    conversations: tuple[Conversation, Conversation] = ((), ())

    def contents(self, role: str | None = None) -> Iterator[str | None]:
        """What was said on both sides, by one role or by all."""
        for conversation in self.conversations:
            yield from (each["content"] for each in conversation if role in (None, each["role"]))


def candidates(paths: Sequence[Path]) -> Iterator[Candidate]:
    """All votes of logs in their order.

    Raises:
        MissingError, FormatError, OptionError: as `read_battles`.
    """
    for place, vote, invalid, text in read_logged(paths):
        yield Candidate(vote, place, invalid, (text.conversation_a, text.conversation_b) if text else ((), ()))
