"""What the tokens of a request say: text, calls of tools and log-probabilities, piece by piece, and collected.

Python, the terminal, pages and HTTP read answers here, streamed and whole alike.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from camelid.chat.logprobs import LogprobStream, Speller
from camelid.chat.results import CallPiece, Delta, Generation, Usage
from camelid.engine.request import Request, Token
from camelid.tokens.stream import TextStream
from camelid.tokens.templates.tool_calls import Arguments, CallBegun, CallEnded, Content, ToolParser, gathered
from camelid.tokens.templates.tool_styles import Style
from camelid.tokens.tokenizer import Tokenizer

if TYPE_CHECKING:
    from camelid.chat.constrain import Promise


@dataclass(frozen=True)
class Tools:
    """How calls are found in an answer: in which style, of which functions, and whether the first one ends it."""

    style: Style
    names: tuple[str, ...]
    only_one: bool = False


@dataclass(frozen=True, kw_only=True)
class AnswerOptions:
    """How the ids of an answer are read.

    Attributes:
        starts_text: the answer begins a text, so that SentencePiece's leading space is dropped.
        shown: control tokens that have a text here, id → text, such as those around a tool call; others have none.
        offset: characters before the answer, for log-probabilities that say at which character a token begins.
        tools: if calls are looked for.
        promise: what the form of the answer promises.
    """

    starts_text: bool = False
    shown: Mapping[int, str] = field(default_factory=dict)
    offset: int = 0
    tools: Tools | None = None
    promise: Promise | None = None


@dataclass(frozen=True, kw_only=True)
class TextRequest(Request):
    """A request, and how its answer is read."""

    answer: AnswerOptions = field(default_factory=AnswerOptions)


class Answer:
    """The running answer to a request; the clock starts when it is made.

    Args:
        tokenizer: spells the ids.
        request: whose tokens will come.

    Raises:
        OptionError: a stop string is empty.
    """

    def __init__(self, tokenizer: Tokenizer, request: TextRequest) -> None:
        self._samples = [_Sample(tokenizer, request) for _ in range(request.params.n)]
        self._open = set(range(request.params.n))
        self._ends = request.all_stop_ids
        self._n_prompt, self._started = len(request.ids), time.perf_counter()

    @property
    def done(self) -> bool:
        """Whether every sample has ended; the engine may still write behind a stop string or the only call."""
        return not self._open

    def push(self, token: Token) -> Delta | None:
        """What has become certain with this token; None if its sample has ended already."""
        if token.sample not in self._open:
            return None
        sample = self._samples[token.sample]
        ended = token.finish_reason == "stop" and token.id in self._ends
        text = "" if ended else sample.text.push(token.id)
        reason: str | None = "stop" if sample.text.stopped else token.finish_reason
        if reason:
            text += sample.text.finish()
        logprobs = sample.logprobs.push(token, text, reason, ended) if sample.logprobs is not None else ()
        calls: tuple[CallPiece, ...] = ()
        if sample.calls is not None:
            text, calls, reason = sample.calls.push(text, reason, ended)
        if reason:
            self._open.discard(token.sample)
        seconds = time.perf_counter() - self._started
        return Delta(text, token, token.sample, reason, seconds, self._n_prompt, ended, calls, logprobs)


class _Sample:
    """What one sample is read with."""

    def __init__(self, tokenizer: Tokenizer, request: TextRequest) -> None:
        params, options = request.params, request.answer
        starts_text, shown = options.starts_text, options.shown
        self.text = TextStream(
            tokenizer, params.stop, starts_text=starts_text, shown=shown, min_tokens=params.min_tokens
        )
        self.calls = _CallStream(options.tools, options.promise) if options.tools is not None else None
        self.logprobs: LogprobStream | None = None
        if params.logprobs is not None:
            speller = Speller(tokenizer, starts_text=starts_text, offset=options.offset, shown=shown)
            self.logprobs = LogprobStream(speller)


class _CallStream:
    """Parts the text of one sample into content and calls."""

    def __init__(self, tools: Tools, promise: Promise | None) -> None:
        self._only_one, self._promise = tools.only_one, promise
        self._parser = ToolParser(tools.style, tools.names)

    def push(self, text: str, finish_reason: str | None, ended: bool) -> tuple[str, tuple[CallPiece, ...], str | None]:
        """Content, pieces of calls and the finish reason, with more of the text.

        Args:
            text: what has become certain.
            finish_reason: of the text.
            ended: a stop id ended it, so that it is not cut.
        """
        events = self._parser.push(text)
        end = next((at for at, event in enumerate(events) if isinstance(event, CallEnded)), None)
        if end is not None and self._only_one:
            events, finish_reason = events[: end + 1], "tool_calls"
        elif finish_reason is not None:
            is_cut = finish_reason == "length" or not ended
            events += self._parser.finish(cut=is_cut)
            if is_cut and self._promise == "calls":  # the beginning of an opening word
                events = [event for event in events if not isinstance(event, Content)]
            if finish_reason == "stop" and self._parser.n_calls:
                finish_reason = "tool_calls"
        content = "".join(event.text for event in events if isinstance(event, Content))
        calls = tuple(event for event in events if isinstance(event, CallBegun | Arguments))
        return content, calls, finish_reason


def collect(deltas: Iterable[Delta]) -> Generation:
    """All pieces of an answer as one; further samples are its `others`."""
    samples: dict[int, list[Delta]] = {}
    for delta in deltas:
        samples.setdefault(delta.sample, []).append(delta)
    first, *others = (_joined(samples[index]) for index in sorted(samples))
    return first.with_others(tuple(others)) if others else first


def _joined(deltas: list[Delta]) -> Generation:
    last = deltas[-1]
    tokens = tuple(delta.token for delta in deltas if not delta.ended)
    _, calls = gathered(piece for delta in deltas for piece in delta.tool_calls)
    return Generation(
        text="".join(delta.text for delta in deltas),
        ids=tuple(token.id for token in tokens),
        finish_reason=last.finish_reason or "abort",
        usage=Usage(last.n_prompt, len(deltas), deltas[0].token.n_cached),
        tokens=tokens,
        seconds_to_first=deltas[0].seconds,
        seconds=last.seconds,
        tool_calls=calls,
        logprobs=tuple(logprob for delta in deltas for logprob in delta.logprobs),
        logprob=_sum(delta.token.logprob for delta in deltas),
    )


def _sum(logprobs: Iterable[float | None]) -> float | None:
    """Of all, or None where they were not asked for."""
    known = [logprob for logprob in logprobs if logprob is not None]
    return sum(known) if known else None
