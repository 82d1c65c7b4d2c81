"""What the tokens of a request say, as text: piece by piece, and collected."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from camelid.chat.results import Delta, Generation, Usage
from camelid.engine.request import Request, Token
from camelid.tokens.stream import TextStream
from camelid.tokens.tokenizer import Tokenizer


class Answer:
    """The running answer to a request; the clock starts when it is made.

    Args:
        tokenizer: spells the ids.
        request: whose tokens will come.
        starts_text: the answer begins a text, so that SentencePiece's leading space is dropped.
        shown: control tokens that have a text here, id → text, such as those around a tool call; others have none.

    Raises:
        OptionError: a stop string is empty.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        request: Request,
        *,
        starts_text: bool = False,
        shown: Mapping[int, str] | None = None,
    ) -> None:
        params = request.params
        self._texts = [
            TextStream(tokenizer, params.stop, starts_text=starts_text, shown=shown, min_tokens=params.min_tokens)
            for _ in range(params.n)
        ]
        self._open = set(range(params.n))
        self._ends = request.all_stop_ids
        self._n_prompt, self._started = len(request.ids), time.perf_counter()

    @property
    def done(self) -> bool:
        """Whether the text of every sample has ended; the engine may still write behind a stop string."""
        return not self._open

    def push(self, token: Token) -> Delta | None:
        """The piece that has become certain with this token; None if its sample's text has ended already."""
        if token.sample not in self._open:
            return None
        text = self._texts[token.sample]
        ended = token.finish_reason == "stop" and token.id in self._ends
        piece = "" if ended else text.push(token.id)
        reason = "stop" if text.stopped else token.finish_reason
        if reason:
            piece += text.finish()
            self._open.discard(token.sample)
        return Delta(piece, token, token.sample, reason, time.perf_counter() - self._started, self._n_prompt, ended)


def collect(deltas: Iterable[Delta]) -> Generation:
    """All pieces of an answer as one; further samples are its `others`."""
    parts: dict[int, list[Delta]] = {}
    for delta in deltas:
        parts.setdefault(delta.sample, []).append(delta)
    samples = [_sample(parts[index]) for index in sorted(parts)]
    return samples[0] if len(samples) == 1 else samples[0].with_others(tuple(samples[1:]))


def _sample(deltas: list[Delta]) -> Generation:
    last = deltas[-1]
    tokens = tuple(delta.token for delta in deltas if not delta.ended)
    usage = Usage(last.n_prompt, len(deltas), deltas[0].token.n_cached)
    return Generation(
        text="".join(delta.text for delta in deltas),
        ids=tuple(token.id for token in tokens),
        finish_reason=last.finish_reason or "abort",
        usage=usage,
        tokens=tokens,
        seconds_to_first=deltas[0].seconds,
        seconds=last.seconds,
    )
