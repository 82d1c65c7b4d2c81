"""What every request that writes text may say: OpenAI's sampling parameters, and our own beside them.

A parameter that is left out, or null, takes the model's own default (`Llama.params`). Ranges of OpenAI's parameters are
OpenAI's; those of ours are read from `SamplingParams`, their home.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError

from camelid.engine.request import Order, SamplingParams
from camelid.serve.body import Body

MOST_STOPS, LONGEST_STOP = 16, 256  # looked for with every token
MOST_BIASES = 1024
LEAST_SHARE = 1e-9  # the likeliest token alone, as OpenAI's top_p of 0


def one_sentence(sentence: str) -> WrapValidator:
    """For unions: what a value must be, where each member would give its own reason."""

    def check(value: object, inner: ValidatorFunctionWrapHandler) -> object:
        try:
            return inner(value)
        except ValidationError:
            raise PydanticCustomError("none_of_them", sentence) from None

    return WrapValidator(check)


T = TypeVar("T")
Listed = Annotated[list[T], Field(fail_fast=True)]  # a million errors, of which one is told, take seconds
StopText = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]
Stop = Annotated[
    StopText | Annotated[Listed[StopText], Field(max_length=MOST_STOPS)],
    one_sentence(f"must be a text or up to {MOST_STOPS} texts, each of 1 to {LONGEST_STOP} characters"),
]
IdText = Annotated[str, Field(pattern="^[0-9]{1,9}$")]
Bias = Annotated[float, Field(ge=-100, le=100)]


def _few(value: object) -> object:
    """Count before each is looked at."""
    if isinstance(value, dict) and len(value) > MOST_BIASES:
        told = "has {n} ids, the limit is {most}"
        raise PydanticCustomError("too_many", told, {"n": len(value), "most": MOST_BIASES})
    return value


def _own(name: str) -> Any:
    """An optional field with the meaning and the range of a field of `SamplingParams`."""
    field = SamplingParams.model_fields[name]
    ranges = {key: value for bound in field.metadata for key, value in asdict(bound).items()}
    return Field(None, description=field.description, **ranges)


class StreamOptions(Body):
    """What a stream holds beside the text."""

    include_usage: bool | None = Field(None, description="End with a chunk of no choices that counts tokens.")
    include_obfuscation: Literal[False] | None = Field(None, description="Chunks are never padded.")


class GenerationRequest(Body):
    """Parameters that chat and completions share."""

    model: str | None = Field(None, description="A name of /v1/models; left out, the first of them.")
    stream: bool | None = Field(None, description="Send pieces as server-sent events while they are written.")
    stream_options: StreamOptions | None = None
    n: int | None = Field(None, ge=1, le=128, description="So many answers from one reading of the prompt.")
    max_tokens: int | None = Field(None, ge=1, description="Most tokens to write; else up to the context.")
    stop: Stop | None = Field(
        None, description="End before this text, or before the first of several; it is not part of the answer."
    )
    temperature: float | None = Field(
        None, ge=0, le=2, description=SamplingParams.model_fields["temperature"].description
    )
    top_p: float | None = Field(None, ge=0, le=1, description=SamplingParams.model_fields["top_p"].description)
    presence_penalty: float | None = Field(None, ge=-2, le=2, description="Subtract once from tokens already written.")
    frequency_penalty: float | None = Field(
        None, ge=-2, le=2, description="Subtract for each time a token was written."
    )
    logit_bias: Annotated[dict[IdText, Bias] | None, BeforeValidator(_few)] = Field(
        None, description="Id (as text) to a number from -100 to 100 that is added to its logit."
    )
    seed: int | None = Field(None, ge=-(2**63), lt=2**63, description=SamplingParams.model_fields["seed"].description)
    user: str | None = Field(None, description="Accepted, and of no effect.")

    top_n_sigma: float | None = _own("top_n_sigma")
    top_k: int | None = _own("top_k")
    min_p: float | None = _own("min_p")
    typical: float | None = _own("typical")
    epsilon: float | None = _own("epsilon")
    eta: float | None = _own("eta")
    repetition_penalty: float | None = _own("repetition_penalty")
    penalty_window: int | None = _own("penalty_window")
    min_tokens: int | None = _own("min_tokens")
    ignore_stop: bool | None = _own("ignore_stop")
    stop_ids: Listed[int] | None = _own("stop_ids")
    draft_tokens: int | None = _own("draft_tokens")
    order: Order | None = _own("order")

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the counts of tokens."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def params(self, defaults: SamplingParams, **changes: Any) -> SamplingParams:
        """The model's `defaults`, changed by what was given here, and by `changes` that are not None.

        Raises:
            OptionError: the choices contradict each other.
        """
        names = SamplingParams.model_fields.keys() & type(self).model_fields.keys()
        given: dict[str, Any] = {name: getattr(self, name) for name in names - {"logprobs"}}
        if isinstance(self.stop, str):
            given["stop"] = (self.stop,)
        if self.top_p == 0:
            given["top_p"] = LEAST_SHARE
        if self.seed is not None and self.seed < 0:
            given["seed"] = self.seed + 2**63
        if self.logit_bias is not None:
            given["logit_bias"] = {int(id): value for id, value in self.logit_bias.items()}
        given |= changes
        return defaults.with_(**{name: value for name, value in given.items() if value is not None})
