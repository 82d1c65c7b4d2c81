"""Ids to text piece by piece: only whole characters leave, and nothing that could still become a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence

from camelid.errors import OptionError
from camelid.tokens.tokenizer import Tokenizer


class TextStream:
    """The text of ids that come one by one; the joined pieces are the text of all ids, up to the first stop string.

    The first stop string is the one that is complete first; of two that end together, the longer one. A control token
    that stands in a stop string is found as the token and as the same characters, though the token has no text.

    Args:
        tokenizer: spells the ids.
        stop: texts to end before.
        starts_text: the ids begin a text, so that SentencePiece's leading space is dropped.
        shown: control tokens that have a text here, id → text; others have none.
        min_tokens: a stop string that is complete within so many ids does not count, as in vLLM.

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
        min_tokens: int = 0,
    ) -> None:
        if "" in stop:
            raise OptionError("stop: is empty; give at least one character", param="stop")
        self._tokenizer, self._shown = tokenizer, shown or {}
        self._signs = _signs(tokenizer, stop, self._shown)
        self._hidden = dict.fromkeys(map(ord, self._signs.values()))
        self._stops = {one: one for one in stop} | {_with_signs(tokenizer, one, self._signs): one for one in stop}
        self._longest = max(map(len, self._stops), default=0)
        self._first, self._min_tokens = starts_text, min_tokens
        self._n_pushed = self._n_free = 0  # ids; held characters that can only be the beginning of a stop string
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""  # characters that may be the beginning of a stop string
        self.stop_string: str | None = None

    @property
    def stopped(self) -> bool:
        """Whether a stop string has come."""
        return self.stop_string is not None

    def push(self, id: int) -> str:
        """Text that has become certain with this id; often none."""
        self._n_pushed += 1
        if id in self._signs:
            return self._take(self._signs[id])
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
        return text.translate(self._hidden)

    def _take(self, text: str) -> str:
        if self.stopped:
            return ""
        self._held += text
        if self._n_pushed <= self._min_tokens:
            self._n_free = len(self._held)
        matches = []
        for stop in self._stops:
            at = self._held.find(stop, max(0, self._n_free - len(stop) + 1))
            if at >= 0:
                matches.append((at + len(stop), at, stop))
        if matches:
            _, at, stop = min(matches)
            self.stop_string = self._stops[stop]
            certain, self._held = self._held[:at], ""
        else:
            cut = len(self._held) - self._beginning_of_stop()
            certain, self._held = self._held[:cut], self._held[cut:]
            self._n_free = max(0, self._n_free - cut)
        return certain.translate(self._hidden) if self._hidden else certain

    def _beginning_of_stop(self) -> int:
        """Length of the longest end of the held text with which a stop string begins."""
        for length in range(min(self._longest - 1, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0


def _signs(tokenizer: Tokenizer, stop: Sequence[str], shown: Mapping[int, str]) -> dict[int, str]:
    """Control tokens without a text that stand in a stop string: id → a lone surrogate, which no text has."""
    found = [
        id
        for text, id in tokenizer.special_ids.items()
        if text and id not in shown and any(text in one for one in stop) and not tokenizer.token_bytes(id)
    ]
    return {id: chr(0xD800 + number) for number, id in enumerate(found)}


def _with_signs(tokenizer: Tokenizer, stop: str, signs: Mapping[int, str]) -> str:
    """A stop string with signs in the place of control tokens, the longest first."""
    for id in sorted(signs, key=lambda id: len(tokenizer.piece(id)), reverse=True):
        stop = stop.replace(tokenizer.piece(id), signs[id])
    return stop
