"""What a caller asks of the engine, and what comes back: requests in, tokens out, ids only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import AllowInfNan, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError

from camelid.engine.batch import Kind
from camelid.errors import CamelidError, ContextError, OptionError
from camelid.options import Options

Wants = Literal["tokens", "logprobs", "logits", "hidden"]
MOST_DRAFTS = 64
EVERY_ROW = range(-1, 0)  # stands for those that a request has by default
Order = Literal["camelid", "llama.cpp", "vllm", "hf", "meta"]


def _auto_or_number(value: object, inner: ValidatorFunctionWrapHandler) -> object:
    """One sentence, where each of both would give its own reason."""
    try:
        return inner(value)
    except ValidationError:
        told = "must be auto or a whole number from 0 to {most}"
        raise PydanticCustomError("auto_or_number", told, {"most": MOST_DRAFTS}) from None


DraftTokens = Annotated[Annotated[int, Field(ge=0, le=MOST_DRAFTS)] | Literal["auto"], WrapValidator(_auto_or_number)]


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
    draft_tokens: DraftTokens = Field(
        "auto", description="Guess so many tokens ahead, checked in one pass; auto: as many as pay; 0: none."
    )
    order: Order = Field("camelid", description="Order and details of the sampling steps, as other engines have them.")


class Constraint(Protocol):
    """Says which ids may come next; made above the engine, where text is known.

    What follows from a `push` may take its time; everything but `ready` and `slow` waits for it.
    """

    @property
    def slow(self) -> bool:
        """Whether that time is long, so that draft tokens gain nothing."""

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
    """A prompt as ids, and what is wanted of it.

    "tokens" are an answer, written as `params`, `stop_ids` and the form say. Of the rest nothing is written: it is what
    the model makes of the prompt itself, and the request ends with one `Scored` or `Rows`.

    Attributes:
        ids: the prompt.
        stop_ids: ids that end the answer.
        constraint: the form that the answer must have.
        wants: an answer; or log-probabilities of the prompt's ids, logits after them, or their hidden states.
        rows: places of the prompt after whose ids the model is asked. Left out: all; for log-probabilities those
            that have an id after them, and the last place alone where `candidates` are given.
        top: with log-probabilities: tell so many likely ids of each place, and the rank of the prompt's own.
        candidates: with log-probabilities: tell those of these ids at each place.
        asked: with log-probabilities: tell those of single ids after single places among `rows`, as (place, id).
        pooled: with hidden states: their mean only.
        adapter: the number of the backend's adapter that the model is asked with; 0: none.
        is_checked: `Engine.check` has found nothing wrong with it.
    """

    ids: tuple[int, ...]
    params: SamplingParams = field(default_factory=SamplingParams)
    stop_ids: tuple[int, ...] = ()
    constraint: Constraint | None = None
    wants: Wants = "tokens"
    rows: range = EVERY_ROW
    top: int | None = None
    candidates: tuple[int, ...] = ()
    asked: tuple[tuple[int, int], ...] = ()
    pooled: bool = False
    adapter: int = 0
    is_checked: bool = field(default=False, init=False, compare=False, repr=False)  # a changed copy is not

    def __post_init__(self) -> None:
        if self.rows is EVERY_ROW:
            n_ids = len(self.ids)
            first = max(0, n_ids - 1) if self.candidates else 0
            last = n_ids - 1 if self.wants == "logprobs" and not self.candidates else n_ids
            object.__setattr__(self, "rows", range(first, max(first, last)))

    @property
    def kind(self) -> Kind:
        """What a row of a forward pass is for this request."""
        return "hidden" if self.wants == "hidden" else "logits"

    @property
    def all_stop_ids(self) -> set[int]:
        """Ids that end the answer, the model's and the caller's."""
        return {*self.stop_ids, *self.params.stop_ids}


def check_prompt(request: Request, vocab_size: int, context: int) -> None:
    """Refuse what cannot be computed, or asks for what is not there.

    Raises:
        OptionError: the prompt is empty or outside the vocabulary, or what is asked for lies outside of it.
        ContextError: the prompt leaves no room for an answer.
    """
    ids, rows = request.ids, request.rows
    if not ids:
        raise OptionError("prompt: has no tokens; give at least one", param="prompt")
    if request.wants == "tokens" and len(ids) >= context:
        raise ContextError(
            f"prompt: has {len(ids)} tokens, the context is {context} with room for one of the answer; "
            "shorten it or raise --context",
            len(ids),
            context,
            param="prompt",
        )
    if len(ids) > context:
        raise ContextError(
            f"prompt: has {len(ids)} tokens, the context is {context}; shorten it or raise --context",
            len(ids),
            context,
            param="prompt",
        )
    if min(ids) < 0 or max(ids) >= vocab_size:
        wrong = next(id for id in ids if not 0 <= id < vocab_size)
        raise OptionError(f"prompt: id {wrong} lies outside the vocabulary of {vocab_size} ids", param="prompt")
    if rows.step != 1 or not 0 <= rows.start <= rows.stop <= len(ids):
        raise OptionError(f"rows: {rows} is not a range of the prompt's {len(ids)} places", param="rows")
    for name, asked in (("candidates", request.candidates), ("asked", [id for _, id in request.asked])):
        for id in asked:
            if not 0 <= id < vocab_size:
                raise OptionError(f"{name}: id {id} lies outside the vocabulary of {vocab_size} ids", param=name)
    for place, _ in request.asked:
        if place not in rows:
            raise OptionError(f"asked: place {place} is none of the rows {rows}", param="asked")


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

    `logprob` and `rank` (1 is the likeliest) are of the raw distribution, and None unless `logprobs` asks for them;
    `sampled_logprob` is of what the form and the sampling steps left (0 when greedy).
    """

    request: int
    sample: int  # which of the request's n samples
    index: int  # 0 for the first written id
    id: int
    logprob: float | None
    rank: int | None
    sampled_logprob: float
    top: tuple[Alternative, ...]
    finish_reason: Literal["stop", "length"] | None
    n_cached: int  # ids of the prompt that were not read again


@dataclass(frozen=True)
class Scored:
    """How likely a prompt's ids are, n rows of it: all log-probabilities are natural and of the raw distribution.

    Attributes:
        logprobs: of the ids that follow the rows' places, (n,); one fewer where a row stands after the last id.
        best: the likeliest id after each place, (n,).
        candidates: of the ids that were asked for at each place, (n, candidates).
        asked: of those that were asked for at single places, (asked,).
        tokens: the ids that follow, with what was asked for by `top`; else empty.
    """

    request: int
    logprobs: NDArray[np.float64]
    best: NDArray[np.int64]
    candidates: NDArray[np.float64]
    asked: NDArray[np.float64]
    tokens: tuple[PromptToken, ...]


@dataclass(frozen=True)
class Rows:
    """Logits, (n, V), or hidden states, (n, D), after the places of a prompt; pooled hidden states are (1, D)."""

    request: int
    rows: NDArray[np.float32]


@dataclass(frozen=True)
class Failed:
    """A request that could not go on, and why."""

    request: int
    error: CamelidError


Outcome = Token | Scored | Rows | Failed  # what a request gives; Scored, Rows and Failed are its last
