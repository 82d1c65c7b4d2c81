"""Many answers at once from the weights of now: the engine that serves, on the model that learns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn

from camelid.engine.backend_torch import TorchBackend
from camelid.engine.engine import Engine
from camelid.engine.load import choose_backend
from camelid.engine.memory import cache_bytes_per_token
from camelid.engine.options import EngineOptions
from camelid.engine.request import Request, SamplingParams, Token
from camelid.errors import OptionError
from camelid.model.llama_torch import LlamaTorch
from camelid.tokens.tokenizer import Tokenizer
from camelid.train.rollouts.live_weights import DTYPES, Precision, live_weights, whole_parameters

if TYPE_CHECKING:
    from camelid.engine.backend_cpu import CpuBackend

MEMORY_SHARE = 0.25  # of what is free may become keys and values


@dataclass(frozen=True)
class Answer:
    """What the model wrote to a prompt.

    Attributes:
        ids: what was written; the id that ended it is the last one, if one did.
        finished: it ended by itself, not at its length's limit.
        logprobs: of each id under the engine's own arithmetic; empty unless asked for. They are for looking at: what is
            learned from must come from the trainer's forward pass (docs/decisions/ppo.md says how far they differ).
    """

    ids: tuple[int, ...]
    finished: bool
    logprobs: tuple[float, ...] = field(default=(), compare=False)


class Rollouts:
    """An engine on a model that is being trained. On a CPU it has a packed copy of the weights, which `update` writes
    anew; on a GPU it reads the model's own tensors where they are whole and have its precision.

    An answer depends on the weights, the prompt, its seed and the sampling choices; on a CPU on nothing else, whatever
    else is in the batch and however many threads there are.

    Args:
        model: on its device; its weights are taken here for the first time. Where ranks share it, all must call.
        tokenizer: says which rows of the output matrix are no token.
        context: most tokens of prompt and answer.
        precision: of the engine's weights.
        max_running: answers that are written at once; more wait.
        threads: of the engine on a CPU; as many as torch has, if not given. The two never work at the same time.

    Raises:
        MissingError: the C++ engine is not built. ResourceError: memory does not suffice.
    """

    def __init__(
        self,
        model: LlamaTorch,
        tokenizer: Tokenizer,
        *,
        context: int,
        precision: Precision = "bf16",
        max_running: int = 64,
        threads: int | None = None,
    ) -> None:
        self._tokenizer, self._precision = tokenizer, precision
        self._absent = tokenizer.absent_ids(model.config.vocab_size)
        threads = threads or torch.get_num_threads()
        options = EngineOptions(context=context, threads=threads, max_running=max_running)
        self._backend = self._load(model, options)
        room = self._backend.free_bytes() * MEMORY_SHARE
        most = int(room // cache_bytes_per_token(model.config, self._backend.bytes_per_number))
        cache = max(context, min(max_running * context, most))
        self._engine = Engine(self._backend, options.with_(cache_tokens=cache))

    def update(self, model: LlamaTorch) -> None:
        """Take the weights of now; where ranks share the model, every rank must call this."""
        if isinstance(self._backend, TorchBackend):
            _share(self._backend.model, model, self._precision)
        else:
            self._backend.refill(live_weights(model, self._tokenizer, self._precision))
        self._engine.clear()

    def answers(
        self,
        prompts: Sequence[Sequence[int]],
        n: int = 1,
        *,
        max_tokens: int,
        seed: int | Sequence[int],
        stop_ids: Sequence[int],
        temperature: float = 1.0,
        top_p: float = 1.0,
        logprobs: bool = False,
    ) -> list[list[Answer]]:
        """`n` answers to each prompt.

        Args:
            prompts: ids, each ending where the assistant's turn has been opened.
            max_tokens: most ids of an answer, with the one that ends it.
            seed: of all, each prompt then has its own by its place in the list (`seeds_of`); or one for each prompt.
            stop_ids: what ends an answer.

        Raises:
            OptionError: a prompt is empty or outside the vocabulary, or as many seeds are not there.
            ContextError: a prompt leaves no room for an answer.
            NumericsError: the logits are not finite.
        """
        seeds = seeds_of(seed, range(len(prompts))) if isinstance(seed, int) else list(seed)
        if len(seeds) != len(prompts):
            raise OptionError(f"seed: {len(seeds)} seeds for {len(prompts)} prompts; give each its own", param="seed")
        self._backend.absent = self._absent[~np.isin(self._absent, list(stop_ids))]
        choices: dict[str, Any] = {"n": n, "max_tokens": max_tokens, "temperature": temperature, "top_p": top_p}
        choices |= {"logprobs": 0 if logprobs else None}
        choices |= {} if self._backend.same_bits else {"draft_tokens": 0}
        requests = (
            Request(ids=tuple(prompt), params=SamplingParams(**choices, seed=own), stop_ids=tuple(stop_ids))
            for prompt, own in zip(prompts, seeds, strict=True)
        )
        written: list[list[list[Token]]] = [[[] for _ in range(n)] for _ in prompts]
        for index, token in self._tokens(requests):
            written[index][token.sample].append(token)
        return [[_answer(tokens) for tokens in samples] for samples in written]

    def _tokens(self, requests: Iterator[Request]) -> Iterator[tuple[int, Token]]:
        for index, outcome in self._engine.stream_all(requests, most=2 * self._engine.options.max_running):
            assert isinstance(outcome, Token)
            yield index, outcome

    def _load(self, model: LlamaTorch, options: EngineOptions) -> CpuBackend | TorchBackend:
        device = model.embed_tokens.weight.device
        if device.type == "cpu":
            weights = live_weights(model, self._tokenizer, self._precision)
            return cast("CpuBackend", choose_backend(weights, "cpu", options))
        with torch.device("meta"):
            shared = LlamaTorch(model.config, options.context)
        shared.cos, shared.sin = shared.cos.to(device), shared.sin.to(device)
        _share(shared, model, self._precision)
        return TorchBackend(shared)


def seeds_of(seed: int, numbers: Sequence[int]) -> list[int]:
    """A seed for each numbered prompt, in [0, 2^63): a hash of both, so that streams of neighbours share nothing."""
    return [
        int.from_bytes(hashlib.blake2b(f"{seed} {number}".encode(), digest_size=8).digest(), "big") >> 1
        for number in numbers
    ]


def _answer(tokens: Sequence[Token]) -> Answer:
    logprobs = tuple(token.logprob for token in tokens if token.logprob is not None)
    return Answer(tuple(token.id for token in tokens), tokens[-1].finish_reason == "stop", logprobs)


def _share(to: LlamaTorch, model: LlamaTorch, precision: Precision) -> None:
    """Let a model of the engine read another's tensors; a copy only where they are in shards or of another type."""
    for name, values in whole_parameters(model, precision).items():
        owner, _, own = name.rpartition(".")
        moved = nn.Parameter(values.to(DTYPES[precision]), requires_grad=False)
        to.get_submodule(owner).register_parameter(own, moved)
