"""Models behind one interface: camelid's engine in this process, or a server elsewhere."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from camelid import __version__
from camelid.arena.config import ArenaModel, LimitOptions
from camelid.chat.answer import TextRequest
from camelid.chat.llama import Llama
from camelid.errors import CamelidError
from camelid.evals.identity import describe_model
from camelid.serve.worker import Worker
from camelid.tokens.templates.message import Message


class NoAnswer(CamelidError):  # noqa: N818 - what happened, to a battle
    """A model did not answer; the message is for operators, and never reaches who asked."""


@dataclass
class Record:
    """What is kept of an answer beside its text; what is not known is None.

    Attributes:
        prompt_hash: SHA-256 of the prompt's ids, int32 in little endian.
        seconds: until the end; `first_seconds` until the first piece.
    """

    prompt_hash: str | None = None
    n_prompt: int | None = None
    n_tokens: int | None = None
    finish_reason: str | None = None
    first_seconds: float | None = None
    seconds: float | None = None


class Contender(Protocol):
    """A model that answers."""

    model: ArenaModel
    made_with: Mapping[str, Any]

    def answer(
        self, messages: Sequence[Message], sampling: Mapping[str, Any], seed: int, record: Record
    ) -> AsyncGenerator[str, None]:
        """The answer, piece by piece.

        Raises:
            CamelidError: there is none; NoAnswer where another server is to blame.
        """


class EngineContender:
    """A model of camelid's own engine.

    Args:
        model: what the arena says of it.
        worker: owns it.
    """

    def __init__(self, model: ArenaModel, worker: Worker) -> None:
        self.model, self.worker = model, worker
        self.made_with: Mapping[str, Any] = engine_made_with(worker.llama)

    async def answer(
        self, messages: Sequence[Message], sampling: Mapping[str, Any], seed: int, record: Record
    ) -> AsyncGenerator[str, None]:
        """From the worker's queue."""
        request = await asyncio.to_thread(engine_request, self.worker.llama, messages, sampling, seed)
        record.prompt_hash, record.n_prompt = ids_hash(request.ids), len(request.ids)
        record.n_tokens = 0
        async with aclosing(self.worker.stream(request)) as running:
            async for deltas in running:
                record.n_tokens += len(deltas)
                record.finish_reason = deltas[-1].finish_reason
                yield "".join(delta.text for delta in deltas)


def engine_made_with(llama: Llama) -> Mapping[str, Any]:
    """Files with their hashes, and whatever else changes an answer's bits."""
    return {**describe_model(llama), "camelid": __version__}


def engine_request(llama: Llama, messages: Sequence[Message], sampling: Mapping[str, Any], seed: int) -> TextRequest:
    """What a battle asks of the engine; `replay` asks the same."""
    return llama.chat_request(list(messages), seed=seed, **sampling)


def ids_hash(ids: Sequence[int]) -> str:
    """Of a prompt: SHA-256 of its ids, int32 in little endian."""
    return hashlib.sha256(np.asarray(ids, "<i4").tobytes()).hexdigest()


def sampling_of(model: ArenaModel, limits: LimitOptions) -> dict[str, Any]:
    """The model's own, with an end for answers that have none."""
    return {"max_tokens": limits.tokens, **model.sampling}


@dataclass
class Side:
    """One answer on its way.

    Attributes:
        text: as far as it has come.
        ended: nothing more comes; `problem` says why, if it has failed.
    """

    text: str = ""
    ended: bool = False
    problem: str | None = None
    record: Record = field(default_factory=Record)


async def write(
    contender: Contender, messages: Sequence[Message], sampling: Mapping[str, Any], seed: int, side: Side,
    limits: LimitOptions,
) -> None:  # fmt: skip
    """Have an answer written into `side`; whatever goes wrong is its `problem`, and never raised."""
    clock = asyncio.get_running_loop().time
    started, record = clock(), side.record
    try:
        async with asyncio.timeout(limits.seconds):
            async with aclosing(contender.answer(messages, sampling, seed, record)) as pieces:
                while (piece := await _next(pieces, side, limits)) is not None:
                    if piece and record.first_seconds is None:
                        record.first_seconds = clock() - started
                    side.text += piece
                    if len(side.text) > limits.answer:
                        raise NoAnswer(f"wrote more than {limits.answer} characters")
        if not side.text.strip():
            raise NoAnswer("answered nothing")
    except TimeoutError:
        side.problem = f"took longer than {limits.seconds:g} seconds"
    except CamelidError as error:
        side.problem = " ".join(str(error).split())
    except Exception as error:
        side.problem = f"{type(error).__name__}: {error}"
    record.seconds = clock() - started
    side.ended = True


async def _next(pieces: AsyncGenerator[str, None], side: Side, limits: LimitOptions) -> str | None:
    seconds = limits.silent_seconds if side.text else limits.first_seconds
    try:
        return await asyncio.wait_for(anext(pieces, None), seconds)
    except TimeoutError:
        raise NoAnswer(f"was silent for {seconds:g} seconds") from None
