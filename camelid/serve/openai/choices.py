"""What the tokens of one sample become for a client: pieces of text, of calls, and of log-probabilities.

Streamed and whole answers are made of the same pieces, so that they cannot differ.
"""

from __future__ import annotations

import codecs
import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from camelid.chat.results import Delta
from camelid.engine.request import Alternative
from camelid.serve.errors import ApiError
from camelid.tokens.templates.message import ToolCall
from camelid.tokens.templates.tool_calls import Arguments, CallBegun, CallEnded, Content, ToolParser, gathered
from camelid.tokens.templates.tool_styles import Style
from camelid.tokens.tokenizer import Tokenizer

Promise = Literal["json", "calls", "arguments"]  # arguments: of those calls that there are
UNLIKELY = -9999.0  # OpenAI's stand-in for minus infinity, which JSON does not have


@dataclass(frozen=True, slots=True)
class Spelled:
    """A token with its bytes (empty for a control token), its text and its log-probability (None: not known)."""

    bytes: bytes
    text: str
    logprob: float | None


@dataclass(frozen=True, slots=True)
class Logged:
    """A token's log-probability, the likeliest in its place, and the character of the text where it begins."""

    token: Spelled
    top: tuple[Spelled, ...]
    offset: int


class Speller:
    """Spells tokens that follow each other, and counts the characters of their text.

    Args:
        tokenizer: spells the ids.
        starts_text: the first token begins a text, so that SentencePiece's leading space is dropped.
        offset: characters before the first token.
        shown: control tokens that have a text here, as `TextStream` has it.
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

    def spell(self, id: int, logprob: float | None, top: Iterable[Alternative] = ()) -> Logged:
        """The next token."""
        others = tuple(self._spelled(other.id, other.logprob) for other in top)
        logged = Logged(self._spelled(id, logprob), others, self.offset)
        if id in self._shown:
            self.offset += len(self._shown[id])
        elif self._tokenizer.token_bytes(id):  # not a control token, so the text begins here
            self._first = False
            self.offset += len(self._decoder.decode(logged.token.bytes))
        return logged

    def _spelled(self, id: int, logprob: float | None) -> Spelled:
        is_control = not self._tokenizer.token_bytes(id)
        data = self._tokenizer.token_bytes(id, first=self._first)
        text = self._tokenizer.piece(id) if is_control else data.decode("utf-8", "replace")
        return Spelled(data, text, None if logprob is None else max(logprob, UNLIKELY))


@dataclass(frozen=True, slots=True)
class Piece:
    """What has become certain of one choice."""

    index: int
    text: str = ""
    calls: tuple[CallBegun | Arguments, ...] = ()
    logged: tuple[Logged, ...] = ()
    finish_reason: str | None = None


@dataclass
class Tools:
    """How calls are found in an answer: in which style, of which functions, and whether one is the end of it."""

    style: Style
    names: tuple[str, ...]
    only_one: bool = False


class Choice:
    """One sample's way from tokens to pieces.

    Args:
        index: of the choice in the reply.
        speller: if log-probabilities are wanted.
        tools: if calls are looked for.
        promise: what the form of the answer promises; when it is complete, this is checked.

    Attributes:
        n_tokens: written so far, a stop id included; log-probabilities sum to `logprob`.
        done: the text has ended, whatever tokens still come.
    """

    def __init__(
        self,
        index: int,
        *,
        speller: Speller | None = None,
        tools: Tools | None = None,
        promise: Promise | None = None,
    ) -> None:
        self.index, self.n_tokens, self.logprob, self.done = index, 0, 0.0, False
        self._speller, self._tools, self._promise = speller, tools, promise
        self._parser = ToolParser(tools.style, tools.names) if tools is not None else None
        self._pending: deque[Logged] = deque()  # spelled, and not a character of it has left
        self._n_left = speller.offset if speller is not None else 0  # characters that have left
        self._written: list[Content | CallBegun | Arguments | CallEnded] = []  # kept where a form promises something

    def take(self, delta: Delta) -> Piece | None:
        """What one token adds; None if nothing.

        Raises:
            ApiError: the complete answer has not the form that was promised.
        """
        if self.done:
            return None
        self.n_tokens += 1
        self.logprob += delta.token.logprob
        reason = delta.finish_reason
        logged = self._log(delta) if self._speller is not None else ()
        if self._parser is None and self._promise is None:  # most answers
            self.done = reason is not None
            return Piece(self.index, delta.text, (), logged, reason) if delta.text or logged or reason else None
        events = self._events(delta)
        if reason == "stop" or self.done:
            reason = "tool_calls" if self._parser is not None and self._parser.n_calls else "stop"
        self.done = reason is not None
        if self._promise is not None:
            self._written += events
            if reason in ("stop", "tool_calls"):
                self._check()
        text = "".join(event.text for event in events if isinstance(event, Content))
        calls = tuple(event for event in events if isinstance(event, CallBegun | Arguments))
        return Piece(self.index, text, calls, logged, reason) if text or calls or logged or reason else None

    def _events(self, delta: Delta) -> list[Content | CallBegun | Arguments | CallEnded]:
        if self._parser is None:
            return [Content(delta.text)] if delta.text else []
        events = self._parser.push(delta.text)
        if self._tools is not None and self._tools.only_one:
            end = next((at for at, event in enumerate(events) if isinstance(event, CallEnded)), None)
            if end is not None:
                self.done = True
                return events[: end + 1]
        if delta.finish_reason is None:
            return events
        is_cut = delta.finish_reason == "length" or (delta.finish_reason == "stop" and not delta.ended)
        events += self._parser.finish(cut=is_cut)
        if is_cut and self._promise == "calls":  # the beginning of an opening word
            events = [event for event in events if not isinstance(event, Content)]
        return events

    def _log(self, delta: Delta) -> tuple[Logged, ...]:
        """The tokens of which some text has left by now; those of a stop string never do."""
        assert self._speller is not None
        self._n_left += len(delta.text)
        if not delta.ended:
            self._pending.append(self._speller.spell(delta.token.id, delta.token.logprob, delta.token.top))
        whole = delta.finish_reason == "length" or delta.ended
        left = []
        while self._pending and (whole or self._pending[0].offset < self._n_left):
            left.append(self._pending.popleft())
        return tuple(left)

    def _check(self) -> None:
        text, calls = gathered(self._written)
        try:
            if self._promise == "json":
                json.loads(text)
            if self._promise == "calls" and (text or not calls):
                raise ValueError("it holds no call, or more than calls")
            for call in calls:
                json.loads(call.arguments)
        except ValueError as error:
            message = f"the complete answer has not the form that was promised: {error}"
            raise ApiError(500, message, code="constraint_violated") from None


@dataclass
class Whole:
    """A choice with all its pieces."""

    index: int
    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    logged: list[Logged] = field(default_factory=list)
    finish_reason: str = "length"


def whole(index: int, pieces: Sequence[Piece]) -> Whole:
    """The pieces of one choice, joined."""
    _, calls = gathered(event for piece in pieces for event in piece.calls)
    text = "".join(piece.text for piece in pieces)
    logged = [one for piece in pieces for one in piece.logged]
    return Whole(index, text, calls, logged, pieces[-1].finish_reason or "length")
