"""Ids to text piece by piece: only whole characters leave, and nothing that could still become a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence

from camelid.errors import OptionError
from camelid.tokens.tokenizer import Tokenizer


class TextStream:
    """The text of ids that come one by one; the joined pieces are the text of all ids, up to the first stop string.

    The first stop string is the one that is complete first; of two that end together, the longer one.

    Args:
        tokenizer: spells the ids.
        stop: texts to end before.
        starts_text: the ids begin a text, so that SentencePiece's leading space is dropped.
        shown: control tokens that have a text here, id → text; others have none.

    Raises:
        OptionError: a stop string is empty.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop: Sequence[str] = (),
        *,
        starts_text: bool = False,
        shown: Mapping[int, str] | None = None,
    ) -> None:
        if "" in stop:
            raise OptionError("stop: is empty; give at least one character")
        self._tokenizer, self._stop, self._shown = tokenizer, tuple(stop), shown or {}
        self._first = starts_text
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""  # characters that may be the beginning of a stop string
        self.stop_string: str | None = None

    @property
    def stopped(self) -> bool:
        """Whether a stop string has come."""
        return self.stop_string is not None

    def push(self, id: int) -> str:
        """Text that has become certain with this id; often none."""
        if id in self._shown:
            return self._take(self._decoder.decode(self._shown[id].encode()))
        data = self._tokenizer.token_bytes(id)
        if data and self._first:  # not a control token, so the text begins here
            data, self._first = self._tokenizer.token_bytes(id, first=True), False
        return self._take(self._decoder.decode(data))

    def finish(self) -> str:
        """What was held back, when no more ids come; half a character becomes U+FFFD."""
        text = self._take(self._decoder.decode(b"", final=True)) + self._held
        self._held = ""
        return text

    def _take(self, text: str) -> str:
        if self.stopped:
            return ""
        self._held += text
        found = [(self._held.find(stop), stop) for stop in self._stop]
        matches = [(at + len(stop), at, stop) for at, stop in found if at >= 0]
        if matches:
            _, at, self.stop_string = min(matches)
            certain, self._held = self._held[:at], ""
            return certain
        keep = self._beginning_of_stop()
        certain, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return certain

    def _beginning_of_stop(self) -> int:
        """Length of the longest end of the held text with which a stop string begins."""
        longest = max((len(stop) - 1 for stop in self._stop), default=0)
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stop):
                return length
        return 0
