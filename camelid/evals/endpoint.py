"""Asks a model behind a URL that speaks OpenAI's API: completions, chat, and log-probabilities by `echo`.

Requests go out several at a time; one that fails in a way that may pass is repeated. The key comes from the
environment. Log-probabilities need a server whose /completions gives those of the prompt (`echo` with `logprobs`); of
one that does not a line tells before anything is counted.
"""

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

from camelid.errors import MissingError, OptionError, ResourceError, UnsupportedError
from camelid.evals.ask import Reply, seed_of
from camelid.evals.task import Choices, Generate, Infill, Likelihoods, Request, Written

KEYS = ("CAMELID_EVAL_KEY", "OPENAI_API_KEY")
PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds before a request is repeated
TIMEOUT = 600.0
_TRANSIENT = (408, 409, 425, 429, 500, 502, 503, 504)


class EndpointAsker:
    """Asks a server.

    Args:
        url: up to and with /v1.
        model: its name there; left out: the only one that the server lists.
        at_once: requests that are on their way together.
    """

    has_chat = True

    def __init__(self, url: str, model: str | None = None, at_once: int = 8) -> None:
        self.url, self._at_once = url.rstrip("/"), at_once
        if urllib.parse.urlsplit(self.url).scheme not in ("http", "https"):
            raise OptionError(f"{url}: no URL of a server; write it as http://127.0.0.1:8000/v1", param="url")
        self._key = os.environ.get("CAMELID_EVAL_KEY") or os.environ.get("OPENAI_API_KEY")
        self.name = model or self._only_model()

    def _only_model(self) -> str:
        names = [str(each.get("id")) for each in self._call("models", None).get("data", ())]
        if len(names) != 1:
            raise OptionError(
                f"{self.url}: serves {', '.join(names) or 'no model'}; name one with --model", param="model"
            )
        return names[0]

    def describe(self) -> Mapping[str, Any]:
        """URL and name: what a server's files are, it does not say."""
        return {"url": self.url, "name": self.name}

    def excess(self, request: Request) -> int:
        """Not known here; the server refuses what is too long."""
        return 0

    def ask(self, requests: Iterable[tuple[Request, str]]) -> Iterator[tuple[int, Reply]]:
        """Answers as they come."""
        running: dict[Future[Reply], int] = {}
        with ThreadPoolExecutor(self._at_once) as pool:
            try:
                for place, (request, word) in enumerate(requests):
                    running[pool.submit(self._answer, request, word)] = place
                    if len(running) >= 2 * self._at_once:
                        yield from _finished(running)
                while running:
                    yield from _finished(running)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _answer(self, request: Request, word: str) -> Reply:
        if isinstance(request, Choices):
            return self._likelihoods(request)
        if isinstance(request, Generate):
            return self._written(request, word)
        raise UnsupportedError(f"{self.url}: documents are measured on a model's files only; name them with --model")

    def _written(self, request: Generate, word: str) -> Reply:
        body: dict[str, Any] = {
            "model": self.name,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "n": request.n,
        }
        if request.temperature > 0:
            body["seed"] = seed_of(request.seed, word) % 2**31
        if request.stops:
            body["stop"] = list(request.stops)
        if isinstance(request.prompt, Infill):
            raise UnsupportedError(
                f"{self.url}: filling in is measured on a model's files only; name them with --model"
            )
        if isinstance(request.prompt, str):
            found = self._call("completions", {**body, "prompt": request.prompt})
            texts = [str(each["text"]) for each in found["choices"]]
        else:
            messages = [{"role": message.role, "content": message.text} for message in request.prompt]
            found = self._call("chat/completions", {**body, "messages": messages})
            texts = [str(each["message"]["content"] or "") for each in found["choices"]]
        reasons = tuple(str(each.get("finish_reason")) for each in found["choices"])
        return Reply(Written(tuple(texts), reasons), int(found.get("usage", {}).get("prompt_tokens", 0)), None)

    def _likelihoods(self, request: Choices) -> Reply:
        own = [self._pair(*pair) for pair in zip(request.contexts, request.continuations, strict=True)]
        alone: list[tuple[float, bool, int, int, bool]] = []
        if request.unconditioned is not None:
            alone = [self._pair(request.unconditioned, each) for each in request.continuations]
        logprobs, greedy, n_tokens, n_prompt, moved = zip(*own, strict=True)
        answer = Likelihoods(logprobs, greedy, n_tokens, tuple(each[0] for each in alone))
        return Reply(answer, max(n_prompt), None, ("boundary moved",) if any(moved) else ())

    def _pair(self, context: str, continuation: str) -> tuple[float, bool, int, int, bool]:
        """Log-probability of a continuation, whether it is greedy, its tokens, the prompt's, and whether a token holds
        the end of the context, too."""
        body = {"model": self.name, "prompt": context + continuation, "max_tokens": 1, "temperature": 0}
        found = self._call("completions", {**body, "echo": True, "logprobs": 1})["choices"][0].get("logprobs") or {}
        offsets, values, tops = (found.get(name) or () for name in ("text_offset", "token_logprobs", "top_logprobs"))
        tokens = found.get("tokens") or ()
        end, start = len(context) + len(continuation), len(context.rstrip())
        inside = [at for at, offset in enumerate(offsets) if offset < end]
        first = next((at for at in inside if _end(at, offsets, end) > start), None)
        if not inside or len(values) < len(inside) or first is None or offsets[inside[0]] > 0:
            raise UnsupportedError(
                f"{self.url}: gives no log-probabilities of a prompt (completions with echo and logprobs), which this "
                f"task needs; measure the model's files with --model, or take a task that generates, as mmlu:chat"
            )
        chosen = range(first, inside[-1] + 1)
        total = sum(float(values[at]) for at in chosen)
        greedy = all(tops and tops[at] and max(tops[at], key=tops[at].get) == tokens[at] for at in chosen)
        return total, greedy, len(chosen), first, offsets[first] < start

    def _call(self, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(f"{self.url}/{path}", data=data, headers=headers)
        for pause in (*PAUSES, None):
            try:
                with urllib.request.urlopen(asked, timeout=TIMEOUT) as answer:
                    found: dict[str, Any] = json.loads(answer.read())
                    return found
            except urllib.error.HTTPError as error:
                reason = f"{error.code}: {_message(error)}"
                if error.code not in _TRANSIENT:
                    raise self._refusal(error.code, reason) from None
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = str(getattr(error, "reason", error)) or type(error).__name__
            if pause is not None:
                time.sleep(pause)
        raise ResourceError(
            f"{self.url}/{path}: no answer after {len(PAUSES) + 1} attempts ({reason}); the same command goes on"
        )

    def _refusal(self, status: int, reason: str) -> Exception:
        if status in (401, 403):
            return MissingError(f"{self.url}: needs a key ({status}); set {KEYS[0]}")
        return OptionError(f"{self.url}: the server refuses ({reason})", param="url")


def _end(at: int, offsets: Sequence[int], end: int) -> int:
    return min(offsets[at + 1], end) if at + 1 < len(offsets) else end


def _finished(running: dict[Future[Reply], int]) -> Iterator[tuple[int, Reply]]:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        yield running.pop(future), future.result()


def _message(error: urllib.error.HTTPError) -> str:
    try:
        found = json.loads(error.read())
        return " ".join(str(found["error"]["message"]).split())[:300]
    except (OSError, ValueError, KeyError, TypeError):
        return str(error.reason)
