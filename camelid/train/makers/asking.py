"""Who writes the answers: camelid's engine in this process, or a server that speaks OpenAI's API.

An answer depends on the seed, its prompt, its number and the temperature: never on what is written beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from camelid.engine.engine import Engine
from camelid.engine.load import choose_backend
from camelid.engine.options import EngineOptions
from camelid.engine.request import Request, SamplingParams, Token
from camelid.pedigree import describe_file
from camelid.tokens.templates.chat_format import Message, choose_format
from camelid.train.makers.lines import fingerprint
from camelid.weights.open import open_weights
from camelid.weights.weights import Weights


@dataclass(frozen=True)
class Asked:
    """A conversation that waits for answers.

    Attributes:
        messages: the last one is not the assistant's.
        n: answers.
        temperature: 0 is greedy, and all answers are the same then.
    """

    messages: tuple[Message, ...]
    n: int
    temperature: float

    @cached_property
    def key(self) -> str:
        """Sixteen hexadecimal digits of what is said in it: by them the random numbers of its answers are drawn."""
        return fingerprint([[message.role, message.text] for message in self.messages])


@dataclass(frozen=True)
class Written:
    """An answer.

    Attributes:
        finished: the model ended it; else it was cut.
        n_tokens: that were written, with what ended it.
    """

    text: str
    finished: bool
    n_tokens: int


class Writer(Protocol):
    """Writes answers."""

    def identity(self) -> Any:
        """What writes, as JSON: the same for the same model."""

    def fits(self, messages: Sequence[Message]) -> bool:
        """Whether the context has room for the conversation and an answer."""

    def write(self, asked: Iterable[Asked]) -> Iterator[tuple[Asked, list[Written]]]:
        """Answers, a prompt's together, as they are finished."""


class EngineWriter:
    """Many answers at once in camelid's engine.

    Args:
        model: a folder or file.
        seed: of the random numbers.
        max_tokens: of an answer.
        top_p: as in `SamplingParams`.
        context: of prompt and answer; the model's own where that is smaller.
        max_running: answers that are written at once.
        backend: of the engine.

    Raises:
        OptionError: the model has no chat format. ResourceError: it does not fit into memory.
    """

    def __init__(
        self,
        model: Path,
        *,
        seed: int,
        max_tokens: int,
        top_p: float = 1.0,
        context: int | None = None,
        max_running: int = 64,
        backend: str = "auto",
    ) -> None:
        self._weights = weights = open_weights(model)
        self._seed, self._max_tokens, self._top_p, self._most = seed, max_tokens, top_p, max_running
        self._tokenizer = weights.tokenizer
        self._format = choose_format(self._tokenizer, weights.chat_template, None, weights.named_templates)
        eos = self._tokenizer.eos_id
        own = {*weights.stop_ids, *([] if eos is None else [eos])}
        self._stop_ids = tuple(sorted({*own, *self._format.stop_ids(self._tokenizer)}))
        options = EngineOptions(
            context=min(context or weights.config.context, weights.config.context), max_running=max_running
        )
        self._engine = Engine(choose_backend(weights, backend, options), options)

    def identity(self) -> Any:
        """Hashes of the model's files."""
        return files_of(self._weights)

    def fits(self, messages: Sequence[Message]) -> bool:
        """Whether a token of the answer has room, too."""
        return len(self._ids(messages)) < self._engine.context

    def write(self, asked: Iterable[Asked]) -> Iterator[tuple[Asked, list[Written]]]:
        """Answers, a prompt's together, as they are finished; prompts are begun as soon as there is room for them."""
        opened: dict[int, tuple[Asked, list[list[int]], list[bool | None]]] = {}

        def requests() -> Iterator[Request]:
            for index, each in enumerate(asked):
                opened[index] = each, [[] for _ in range(each.n)], [None] * each.n
                yield self._request(each)

        for index, token in self._engine.stream_all(requests(), self._most):
            assert isinstance(token, Token), "`result` is for requests that write nothing"
            each, ids, finished = opened[index]
            ids[token.sample].append(token.id)
            if token.finish_reason is not None:
                finished[token.sample] = token.finish_reason == "stop"
            if None not in finished:
                del opened[index]
                pairs = zip(ids, finished, strict=True)
                yield each, [Written(self._text(own, bool(ended)), bool(ended), len(own)) for own, ended in pairs]

    def _request(self, asked: Asked) -> Request:
        params = SamplingParams(
            temperature=asked.temperature,
            top_p=self._top_p,
            max_tokens=self._max_tokens,
            n=asked.n,
            seed=seed_of(self._seed, asked.key),
            draft_tokens=0,  # many answers at once fill every pass
        )
        return Request(ids=tuple(self._ids(asked.messages)), params=params, stop_ids=self._stop_ids)

    def _ids(self, messages: Sequence[Message]) -> list[int]:
        return self._format.render(self._tokenizer, messages).ids

    def _text(self, ids: list[int], ended: bool) -> str:
        return self._tokenizer.decode(ids[:-1] if ended and ids[-1] in self._stop_ids else ids)


def seed_of(seed: int, key: str) -> int:
    """The seed of one prompt's answers, below 2^63."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:8], "big") >> 1


def files_of(weights: Weights) -> list[Any]:
    """Name, length and SHA-256 of every file that holds a model."""
    return [describe_file(path) for path in sorted(weights.files)]
