"""What the methods of `Llama` give back: small frozen records with names."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from camelid.engine.request import Token
from camelid.tokens.templates.message import ToolCall
from camelid.tokens.templates.tool_calls import Arguments, CallBegun

CallPiece = CallBegun | Arguments  # of a running answer: a call begins, or its arguments go on


@dataclass(frozen=True)
class Usage:
    """Counts of ids: read, written (a stop id included), and of those read the ones found in the cache."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class SpelledToken:
    """A token with its bytes (empty for a control token), its text and its log-probability (None: not known)."""

    bytes: bytes
    text: str
    logprob: float | None


@dataclass(frozen=True, slots=True)
class Logprob:
    """A token's log-probability, the likeliest in its place, and the character of the text where it begins."""

    token: SpelledToken
    top: tuple[SpelledToken, ...]
    offset: int


@dataclass(frozen=True)
class Delta:
    """One piece of a running answer: what has become certain with one token, often nothing.

    Attributes:
        text: beside calls.
        token: that was written, in the engine's words.
        sample: which of the request's n samples this belongs to.
        finish_reason: stop, length or tool_calls; None: it goes on.
        seconds: since the request was made.
        n_prompt: ids of the prompt.
        ended: the token is the stop id itself, not part of the answer.
        tool_calls: pieces of calls, where the request has tools.
        logprobs: tokens whose text has left by now, where log-probabilities were asked for.
    """

    text: str
    token: Token
    sample: int
    finish_reason: str | None
    seconds: float
    n_prompt: int
    ended: bool
    tool_calls: tuple[CallPiece, ...] = ()
    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True)
class Generation:
    """A finished answer. With n > 1 the further samples are `others`.

    Attributes:
        text: beside calls.
        ids, tokens: all that was written, without the id that ended it.
        finish_reason: stop, length, tool_calls or abort.
        tool_calls: where the request had tools.
        logprobs: of the tokens of `text` and calls, where log-probabilities were asked for.
        logprob: sum over all tokens, the one that ended it included, in nats; None unless `logprobs` asks for them.
    """

    text: str
    ids: tuple[int, ...]
    finish_reason: str
    usage: Usage
    tokens: tuple[Token, ...]
    seconds_to_first: float
    seconds: float
    others: tuple[Generation, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[Logprob, ...] = ()
    logprob: float | None = None

    def with_others(self, others: tuple[Generation, ...]) -> Generation:
        """The same answer with its sibling samples."""
        return replace(self, others=others)

    @property
    def tokens_per_second(self) -> float:
        """Speed of writing, the first token's wait left out; 0 when there is nothing to measure."""
        writing = self.seconds - self.seconds_to_first
        return (self.usage.completion_tokens - 1) / writing if writing > 0 else 0.0


@dataclass(frozen=True)
class NextToken:
    """A row of the table of likely next tokens."""

    rank: int
    id: int
    text: str
    probability: float
    cumulative: float
    logprob: float


@dataclass(frozen=True)
class NextTable:
    """The likeliest next tokens after a prompt; `sum` is over the whole vocabulary and is 1 within 1e-6."""

    prompt_ids: tuple[int, ...]
    tokens: tuple[NextToken, ...]
    sum: float


@dataclass(frozen=True)
class Likelihood:
    """How likely a continuation is.

    Attributes:
        logprob: the sum of its tokens' log-probabilities in nats.
        is_greedy: greedy decoding would write it.
        n_tokens: that were scored: those that hold more of the context than its spaces, too.
        n_chars, n_bytes: of the continuation as it was given.
        n_moved: tokens of the context alone that are not in the whole text, since one holds the end of the context and
            more; nearly always 0.
    """

    logprob: float
    is_greedy: bool
    n_tokens: int
    n_chars: int = 0
    n_bytes: int = 0
    n_moved: int = 0


@dataclass(frozen=True)
class Perplexity:
    """Negative log-likelihood of a text in nats, over how many tokens, and the text's length in bytes."""

    nll: float
    n_tokens: int
    n_bytes: int

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-likelihood of a token."""
        return math.exp(self.nll / self.n_tokens)

    @property
    def bits_per_byte(self) -> float:
        """Negative log-likelihood in bits over bytes: comparable between tokenizers."""
        return self.nll / math.log(2) / self.n_bytes
