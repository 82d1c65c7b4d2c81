"""The official Python client, unmodified, against a test server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import openai
from openai.types.chat import ChatCompletionChunk

SKY = [{"role": "user", "content": "Why is the sky blue?"}]


@contextmanager
def official(server: Any) -> Iterator[openai.OpenAI]:
    """A client that tries once, so that a failure is seen."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def joined(chunks: Iterable[ChatCompletionChunk]) -> dict[int, dict[str, Any]]:
    """Streamed chat choices put together by the rules of OpenAI's API, as a client must."""
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for part in chunk.choices:
            choice = choices.setdefault(
                part.index, {"role": None, "text": "", "calls": {}, "logprobs": [], "finish_reason": None}
            )
            assert choice["finish_reason"] is None, "a choice goes on after its end"
            choice["role"] = part.delta.role or choice["role"]
            choice["text"] += part.delta.content or ""
            choice["finish_reason"] = part.finish_reason
            if part.logprobs is not None:
                choice["logprobs"] += [token.to_dict() for token in part.logprobs.content]
            for call in part.delta.tool_calls or ():
                known = choice["calls"].setdefault(
                    call.index, {"id": call.id, "name": call.function.name, "arguments": ""}
                )
                known["arguments"] += call.function.arguments or ""
    return choices


def assert_same(whole: Any, chunks: Iterable[ChatCompletionChunk]) -> None:
    """A streamed chat answer says what the whole one says, in every choice."""
    streamed = joined(chunks)
    assert sorted(streamed) == [choice.index for choice in whole.choices]
    for choice in whole.choices:
        other = streamed[choice.index]
        assert other["role"] == choice.message.role == "assistant"
        assert other["text"] == (choice.message.content or "")
        assert other["finish_reason"] == choice.finish_reason
        assert other["logprobs"] == [token.to_dict() for token in (choice.logprobs.content if choice.logprobs else [])]
        calls = choice.message.tool_calls or []
        found = [(call["name"], call["arguments"]) for _, call in sorted(other["calls"].items())]
        assert found == [(call.function.name, call.function.arguments) for call in calls]
