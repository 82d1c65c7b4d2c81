"""Answers from a server that speaks OpenAI's API: `camelid serve`, vLLM, llama.cpp, or one far away."""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from camelid.errors import MissingError, OptionError, ResourceError
from camelid.tokens.templates.message import Message
from camelid.train.makers.asking import Asked, Written, seed_of

KEY = "OPENAI_API_KEY"
PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds before a request is repeated
TIMEOUT = 600.0
_TRANSIENT = (408, 409, 425, 429, 500, 502, 503, 504)


class EndpointWriter:
    """Asks a server for several answers to a prompt at a time (`n`), several prompts at once.

    Args:
        url: up to and with /v1.
        model: its name there; None: the only one that the server lists.
        seed: of the random numbers, as far as the server heeds it.
        max_tokens, top_p: of an answer.
        at_once: prompts that are on their way together.

    Raises:
        OptionError: no such URL, or the model must be named.
    """

    def __init__(
        self, url: str, model: str | None, *, seed: int, max_tokens: int, top_p: float = 1.0, at_once: int = 8
    ) -> None:
        self._url, self._seed, self._at_once = url.rstrip("/"), seed, at_once
        self._body = {"max_tokens": max_tokens, "top_p": top_p}
        if urllib.parse.urlsplit(self._url).scheme not in ("http", "https"):
            raise OptionError(f"url: {url} is no URL of a server; write it as http://127.0.0.1:8000/v1", param="url")
        self._model = model or self._only_model()

    def identity(self) -> Any:
        """URL and name: what a server's files are, it does not say."""
        return {"url": self._url, "model": self._model}

    def fits(self, messages: Sequence[Message]) -> bool:
        """Not known here; the server refuses what is too long."""
        return True

    def write(self, asked: Iterable[Asked]) -> Iterator[tuple[Asked, list[Written]]]:
        """Answers, a prompt's together, as they come."""
        running: dict[Future[list[Written]], Asked] = {}
        with ThreadPoolExecutor(self._at_once) as pool:
            try:
                for each in asked:
                    running[pool.submit(self._answers, each)] = each
                    if len(running) >= 2 * self._at_once:
                        yield from _finished(running)
                while running:
                    yield from _finished(running)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _answers(self, asked: Asked) -> list[Written]:
        messages = [{"role": message.role, "content": message.text} for message in asked.messages]
        body = {**self._body, "model": self._model, "messages": messages, "temperature": asked.temperature}
        found = self._call("chat/completions", {**body, "n": asked.n, "seed": seed_of(self._seed, asked.key) % 2**31})
        choices = sorted(found["choices"], key=lambda each: int(each.get("index", 0)))
        if len(choices) != asked.n:
            raise OptionError(
                f"url: {self._url} gives {len(choices)} answers where n is {asked.n}; take another server"
            )
        tokens = int((found.get("usage") or {}).get("completion_tokens", 0)) // asked.n
        texts = [str(each["message"].get("content") or "") for each in choices]
        ends = [each.get("finish_reason") == "stop" for each in choices]
        return [Written(text, ended, tokens) for text, ended in zip(texts, ends, strict=True)]

    def _only_model(self) -> str:
        names = [str(each.get("id")) for each in self._call("models", None).get("data", ())]
        if len(names) != 1:
            named = ", ".join(names) or "no model"
            raise OptionError(f"url: {self._url} serves {named}; name one with url_model", param="url_model")
        return names[0]

    def _call(self, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {os.environ[KEY]}"
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(f"{self._url}/{path}", data=data, headers=headers)
        reason = ""
        for pause in (*PAUSES, None):
            try:
                with urllib.request.urlopen(asked, timeout=TIMEOUT) as answer:
                    found: dict[str, Any] = json.loads(answer.read())
                    return found
            except urllib.error.HTTPError as error:
                with error:
                    reason, said = f"{error.code} {error.reason}", error.read().decode("utf-8", "replace")
                if error.code in (401, 403):
                    raise MissingError(f"url: {self._url} needs a key ({error.code}); set {KEY}") from None
                if error.code not in _TRANSIENT:
                    said = " ".join(said.split())[:300]
                    raise OptionError(f"url: {self._url} refuses ({reason}: {said})", param="url") from None
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = str(getattr(error, "reason", error)) or type(error).__name__
            if pause is not None:
                time.sleep(pause)
        raise ResourceError(
            f"url: {self._url}/{path} gives no answer after {len(PAUSES) + 1} attempts ({reason}); "
            "the same command goes on"
        )


def _finished(running: dict[Future[list[Written]], Asked]) -> Iterator[tuple[Asked, list[Written]]]:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        yield running.pop(future), future.result()
