"""A model behind a URL that speaks OpenAI's API. What it says of errors, and of itself, goes to operators only."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import httpx2 as httpx

from camelid.arena.config import ArenaModel
from camelid.arena.live.contenders import NoAnswer, Record
from camelid.tokens.templates.message import Message

CONNECT_SECONDS = 10.0
MOST_LINE = 1 << 20  # characters of an event
MOST_ERROR = 300  # bytes of an error that operators read
_DATED = re.compile(r"-(\d{4}-?\d{2}-?\d{2}|\d{4})")  # behind the name that was asked for: the same model, dated


class EndpointContender:
    """A model of another server.

    Args:
        model: what the arena says of it.
        transport: in place of the network, for tests.

    Raises:
        MissingError: its key is not in the environment.
    """

    def __init__(self, model: ArenaModel, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.model = model
        self.made_with: Mapping[str, Any] = {"url": model.url, "model": model.source}
        key = model.key()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        timeout = httpx.Timeout(None, connect=CONNECT_SECONDS)  # silence is measured where answers are written
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=16)
        self._client = httpx.AsyncClient(
            headers=headers, timeout=timeout, limits=limits, transport=transport, follow_redirects=False
        )

    async def close(self) -> None:
        """End its connections."""
        await self._client.aclose()

    async def answer(
        self, messages: Sequence[Message], sampling: Mapping[str, Any], seed: int, record: Record
    ) -> AsyncGenerator[str, None]:
        """From /chat/completions, as it streams.

        Raises:
            NoAnswer: it refuses, ends in the middle, or answers as another model.
        """
        body = {
            **sampling,
            "model": self.model.source,
            "messages": [{"role": message.role, "content": message.text} for message in messages],
            "stream": True,
            "seed": seed % 2**31,
        }
        complete = False
        try:
            async with self._client.stream("POST", f"{self.model.url}/chat/completions", json=body) as response:
                await _check(response)
                async for line in response.aiter_lines():
                    if len(line) > MOST_LINE:
                        raise NoAnswer(f"an event has {len(line)} characters")
                    data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
                    if data == "[DONE]":
                        complete = True
                        break
                    if data:
                        yield self._piece(data, record)
        except httpx.HTTPError as error:
            raise NoAnswer(f"{type(error).__name__}: {error}") from None
        if not (complete or record.finish_reason):
            raise NoAnswer("ended in the middle")

    def _piece(self, data: str, record: Record) -> str:
        try:
            chunk = json.loads(data)
            if "error" in chunk:
                raise NoAnswer(f"an error in the middle: {str(chunk['error'])[:MOST_ERROR]}")
            self._check_name(chunk.get("model"))
            usage = chunk.get("usage") or {}
            record.n_prompt = usage.get("prompt_tokens", record.n_prompt)
            record.n_tokens = usage.get("completion_tokens", record.n_tokens)
            choices = chunk.get("choices") or ()
            if not choices:
                return ""
            record.finish_reason = (choices[0].get("finish_reason") or record.finish_reason or "")[:16] or None
            text = (choices[0].get("delta") or {}).get("content")
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
            raise NoAnswer(f"not an event of OpenAI's API: {data[:MOST_ERROR]}") from None
        if text is not None and not isinstance(text, str):
            raise NoAnswer("its text is no text")
        return text or ""

    def _check_name(self, name: Any) -> None:
        """Whether it is the model that was asked for; a server need not say."""
        asked = self.model.source
        if name in (None, "", asked, self.model.name):
            return
        rest = str(name).removeprefix(asked)
        if rest != name and _DATED.fullmatch(rest):
            return
        if not any(fnmatchcase(str(name), pattern) for pattern in self.model.answers_as):
            raise NoAnswer(f"answers as another model, {str(name)[:100]!r}; if it is right, add it to answers_as")


async def _check(response: httpx.Response) -> None:
    if response.status_code != 200:
        start = b""
        async for part in response.aiter_bytes():
            start += part
            if len(start) >= MOST_ERROR:
                break
        said = " ".join(start[:MOST_ERROR].decode("utf-8", "replace").split())
        raise NoAnswer(f"status {response.status_code}: {said}")
    kind = response.headers.get("content-type", "")
    if not kind.startswith("text/event-stream"):
        raise NoAnswer(f"streams no events, but {kind[:100] or 'something without a type'}")
