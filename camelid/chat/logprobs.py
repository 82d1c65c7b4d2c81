"""Log-probabilities of an answer's tokens, spelled, and given when their text is."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterable, Mapping

from camelid.chat.results import Logprob, SpelledToken
from camelid.engine.request import Alternative, Token
from camelid.tokens.tokenizer import Tokenizer

UNLIKELY = -9999.0  # OpenAI's stand-in for minus infinity, which JSON does not have


class Speller:
    """Spells tokens that follow each other, and counts the characters of their text.

    Args:
        tokenizer: spells the ids.
        starts_text, shown: as `TextStream` has them.
        offset: characters before the first token.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        starts_text: bool = False,
        offset: int = 0,
        shown: Mapping[int, str] | None = None,
    ) -> None:
        self._tokenizer, self._first, self.offset, self._shown = tokenizer, starts_text, offset, shown or {}
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def spell(self, id: int, logprob: float | None, top: Iterable[Alternative] = ()) -> Logprob:
        """The next token."""
        others = tuple(self._spelled(other.id, other.logprob) for other in top)
        spelled = Logprob(self._spelled(id, logprob), others, self.offset)
        if id in self._shown:
            self.offset += len(self._shown[id])
        elif self._tokenizer.token_bytes(id):  # not a control token, so the text begins here
            self._first = False
            self.offset += len(self._decoder.decode(spelled.token.bytes))
        return spelled

    def _spelled(self, id: int, logprob: float | None) -> SpelledToken:
        is_control = not self._tokenizer.token_bytes(id)
        data = self._tokenizer.token_bytes(id, first=self._first)
        text = self._tokenizer.piece(id) if is_control else data.decode("utf-8", "replace")
        return SpelledToken(data, text, None if logprob is None else max(logprob, UNLIKELY))


class LogprobStream:
    """The log-probabilities of one sample, as its text becomes certain."""

    def __init__(self, speller: Speller) -> None:
        self._speller = speller
        self._pending: deque[Logprob] = deque()  # not a character of them has left
        self._n_left = speller.offset  # characters that have left

    def push(self, token: Token, text: str, finish_reason: str | None, ended: bool) -> tuple[Logprob, ...]:
        """The tokens of which some text has left by now; those of a stop string never do.

        Args:
            token: the next one.
            text: what has become certain with it.
            finish_reason: of the text.
            ended: the token is the stop id itself.
        """
        self._n_left += len(text)
        if not ended:
            self._pending.append(self._speller.spell(token.id, token.logprob, token.top))
        is_whole = finish_reason == "length" or ended
        left = []
        while self._pending and (is_whole or self._pending[0].offset < self._n_left):
            left.append(self._pending.popleft())
        return tuple(left)
