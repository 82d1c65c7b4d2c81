"""What a scorer says of one answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scored:
    """One answer, judged.

    Attributes:
        right: True or False; None where no answer could be read, which is equal to nothing.
        answer: what was read as the answer, as it was compared; None where nothing was.
    """

    right: bool | None
    answer: str | None = None

    @property
    def score(self) -> float | None:
        """1.0, 0.0, or None where no answer could be read."""
        return None if self.right is None else float(self.right)
