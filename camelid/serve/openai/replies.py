"""What is answered, as OpenAI's API describes it; log-probabilities are of the raw distribution, before any step."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, Literal
from uuid import uuid4

from pydantic import BaseModel

from camelid.chat.results import Generation, Logprob, SpelledToken
from camelid.serve.worker import Worker

FinishReason = Literal["stop", "length", "tool_calls"]

_PREFIXES = {"chat.completion": "chatcmpl", "chat.completion.chunk": "chatcmpl", "text_completion": "cmpl"}


def head(worker: Worker, kind: str) -> dict[str, Any]:
    """What every reply of this kind, and all chunks of one stream, begin with.

    `system_fingerprint` says with what an answer was made: with the same one, the same request with the same seed gives
    the same answer on the CPU.
    """
    return {
        "id": f"{_PREFIXES[kind]}-{uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": worker.name,
        "system_fingerprint": worker.fingerprint,
    }


class PromptDetails(BaseModel):
    """Of the prompt's tokens, those that were found in the cache."""

    cached_tokens: int


class Usage(BaseModel):
    """Counts of tokens: each prompt once, all that was written, ids that end an answer included."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails

    @classmethod
    def of(cls, generations: Sequence[Generation], n: int, n_prompt: int) -> Usage:
        """Of finished choices, n for each prompt."""
        written = sum(generation.usage.completion_tokens for generation in generations)
        return cls.count(n_prompt, written, sum(first.usage.cached_tokens for first in generations[::n]))

    @classmethod
    def count(cls, prompt: int, completion: int, cached: int) -> Usage:
        """The counts with their sum."""
        details = PromptDetails(cached_tokens=cached)
        total = prompt + completion
        return cls(
            prompt_tokens=prompt, completion_tokens=completion, total_tokens=total, prompt_tokens_details=details
        )


class TopLogprob(BaseModel):
    """A likely token; `bytes` is null for a control token, which has no text."""

    token: str
    bytes: list[int] | None
    logprob: float


class TokenLogprob(TopLogprob):
    """A token of the answer, and the likeliest in its place."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    """Log-probabilities of all tokens of an answer, those of calls included."""

    content: list[TokenLogprob]
    refusal: None

    @classmethod
    def of(cls, logprobs: Iterable[Logprob]) -> ChatLogprobs:
        """Of the tokens of an answer."""
        content = [
            TokenLogprob(**_entry(logprob.token), top_logprobs=[TopLogprob(**_entry(other)) for other in logprob.top])
            for logprob in logprobs
        ]
        return cls(content=content, refusal=None)


def _entry(spelled: SpelledToken) -> dict[str, object]:
    return {"token": spelled.text, "bytes": list(spelled.bytes) or None, "logprob": spelled.logprob}


class Function(BaseModel):
    """The function to be called, with its arguments as JSON text."""

    name: str
    arguments: str


class Call(BaseModel):
    """A call that the model asks for."""

    id: str
    type: Literal["function"]
    function: Function


class AnswerMessage(BaseModel):
    """The answer: text, calls, or both."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[Call] = []


class ChatChoice(BaseModel):
    """One of the n answers."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatReply(BaseModel):
    """An answered conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage


def chat_choice(index: int, answer: Generation, with_logprobs: bool) -> ChatChoice:
    """A finished answer as a choice; `tool_calls` is only there if there are some."""
    calls = [
        Call(id=call.id, type="function", function=Function(name=call.name, arguments=call.arguments))
        for call in answer.tool_calls
    ]
    content = None if calls and not answer.text else answer.text
    message = AnswerMessage(role="assistant", content=content, refusal=None, **({"tool_calls": calls} if calls else {}))
    return ChatChoice(
        index=index,
        message=message,
        logprobs=ChatLogprobs.of(answer.logprobs) if with_logprobs else None,
        finish_reason=answer.finish_reason,
    )


class TextLogprobs(BaseModel):
    """A column for each property of the tokens; a prompt's first token has no log-probability.

    Half a character is written `bytes:\\xe2\\x82`; `text_offset` counts characters.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]

    @classmethod
    def of(cls, logprobs: Sequence[Logprob], n: int) -> TextLogprobs:
        """Of the tokens of a text; without alternatives if `n` is 0."""
        return cls(
            tokens=[_word(logprob.token) for logprob in logprobs],
            token_logprobs=[logprob.token.logprob for logprob in logprobs],
            top_logprobs=[_top(logprob) for logprob in logprobs] if n else None,
            text_offset=[logprob.offset for logprob in logprobs],
        )


def _top(logprob: Logprob) -> dict[str, float] | None:
    if logprob.token.logprob is None:
        return None
    tokens = [logprob.token, *reversed(logprob.top)]  # of two that are written alike the likelier one stays
    return {_word(token): token.logprob for token in tokens if token.logprob is not None}


def _word(spelled: SpelledToken) -> str:
    if "\ufffd" in spelled.text and spelled.text.encode() != spelled.bytes:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled.bytes)
    return spelled.text


class TextChoice(BaseModel):
    """One of the answers to one of the prompts."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: FinishReason


class CompletionReply(BaseModel):
    """Continued texts: prompt by prompt, n choices of each."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: Usage


class EmbeddingUsage(BaseModel):
    """Counts of tokens."""

    prompt_tokens: int
    total_tokens: int


class Embedding(BaseModel):
    """A text's vector: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingReply(BaseModel):
    """Vectors in the order of their texts, each of length one."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class ModelReply(BaseModel):
    """A model that is served; prompt and answer together have at most `context` tokens."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    context: int


class ModelList(BaseModel):
    """All models that are served."""

    object: Literal["list"]
    data: list[ModelReply]
