"""What a caller asks of the engine, and what comes back: requests in, tokens out, ids only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import AllowInfNan, Field

from camelid.options import Options

if TYPE_CHECKING:
    from camelid.engine.readers import Reader

Order = Literal["camelid", "llama.cpp", "vllm", "hf", "meta"]


class SamplingParams(Options):
    """Sampling

    The one home of these defaults: flags, JSON fields and pages are made from the fields. Temperature and top-p are
    those of Meta's own code.
    """

    temperature: float = Field(0.6, ge=0, le=100, description="0 is greedy; below 1 sharper, above 1 flatter.")
    top_n_sigma: float = Field(0.0, ge=0, description="Keep logits up to so many deviations below the top; 0: all.")
    top_k: int = Field(0, ge=0, description="Keep the k likeliest tokens; 0 keeps all.")
    top_p: float = Field(0.9, gt=0, le=1, description="Keep the smallest set that holds this share; 1 keeps all.")
    min_p: float = Field(0.0, ge=0, le=1, description="Drop tokens below this share of the likeliest; 0 drops none.")
    typical: float = Field(1.0, gt=0, le=1, description="Keep the most typical set of this share; 1 keeps all.")
    epsilon: float = Field(0.0, ge=0, lt=1, description="Drop tokens below this probability; 0 drops none.")
    eta: float = Field(0.0, ge=0, lt=1, description="The same, but lower where the next token is open; 0 drops none.")
    repetition_penalty: float = Field(1.0, ge=0.01, le=100, description="Divide logits of seen tokens; 1: leave them.")
    presence_penalty: float = Field(0.0, ge=-100, le=100, description="Subtract once from tokens already written.")
    frequency_penalty: float = Field(0.0, ge=-100, le=100, description="Subtract for each time a token was written.")
    penalty_window: int | None = Field(None, ge=1, description="Penalties look at the last so many tokens; else all.")
    logit_bias: dict[int, Annotated[float, AllowInfNan()]] = Field(
        {}, description="Add to the logit of an id; -inf bans it."
    )
    seed: int | None = Field(None, ge=0, lt=2**63, description="Same seed, same text; drawn at random if left out.")
    n: int = Field(1, ge=1, le=1024, description="Samples from one reading of the prompt.")
    max_tokens: int | None = Field(None, ge=1, description="Most tokens to write; else up to the context.")
    min_tokens: int = Field(0, ge=0, description="Do not stop before so many tokens, at no stop string either.")
    ignore_stop: bool = Field(False, description="Ban the ids by which the model ends its text.")
    stop: tuple[str, ...] = Field((), description="End before this text; may be given several times.")
    stop_ids: tuple[int, ...] = Field((), description="End at this id too; may be given several times.")
    logprobs: int | None = Field(None, ge=0, le=1000, description="Report so many likely alternatives for each token.")
    draft_tokens: int = Field(0, ge=0, le=64, description="Guess so many tokens ahead, checked in one pass; 0: none.")
    order: Order = Field("camelid", description="Order and details of the sampling steps, as other engines have them.")


class Constraint(Protocol):
    """Says which ids may come next; made above the engine, where text is known.

    What follows from a `push` may take its time; everything but `ready` and `slow` waits for it.
    """

    @property
    def slow(self) -> bool:
        """Whether that time is long, so that guessing ahead gains nothing."""

    def ready(self, seconds: float = 0.0) -> bool:
        """Whether what follows from the last `push` is known, at the latest after so long."""

    @property
    def finished(self) -> bool:
        """Whether nothing can follow any more."""

    def mask(self) -> NDArray[np.bool_]:
        """Which ids may come next, (V,)."""

    def push(self, id: int) -> None:
        """Take the id that was chosen."""

    def fork(self) -> Constraint:
        """An independent copy, for another sample or to look ahead."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A prompt as ids, how to sample, which ids end the answer, and the form it must have.

    With a `reader` nothing is written: it takes what it wants of the prompt, and the request is done.
    """

    ids: tuple[int, ...]
    params: SamplingParams = field(default_factory=SamplingParams)
    stop_ids: tuple[int, ...] = ()
    constraint: Constraint | None = None
    reader: Reader | None = None

    @property
    def all_stop_ids(self) -> set[int]:
        """Ids that end the answer, the model's and the caller's."""
        return {*self.stop_ids, *self.params.stop_ids}


@dataclass(frozen=True)
class Alternative:
    """A likely id at some place: its log-probability before any sampling step, and after all (None: removed, or
    nothing was drawn there, as in a prompt)."""

    id: int
    logprob: float
    sampled_logprob: float | None


@dataclass(frozen=True)
class PromptToken:
    """An id of a prompt: its log-probability and rank (1 is the likeliest) after the ids before it, and the likeliest
    ids at its place."""

    id: int
    logprob: float
    rank: int
    top: tuple[Alternative, ...]


@dataclass(frozen=True)
class Token:
    """One id that the engine has written.

    `logprob` and `rank` (1 is the likeliest) are of the raw distribution, `sampled_logprob` of what the form and the
    sampling steps left (0 when greedy).
    """

    request: int
    sample: int  # which of the request's n samples
    index: int  # 0 for the first written id
    id: int
    logprob: float
    rank: int
    sampled_logprob: float
    top: tuple[Alternative, ...]
    finish_reason: Literal["stop", "length"] | None
    n_cached: int  # ids of the prompt that were not read again
