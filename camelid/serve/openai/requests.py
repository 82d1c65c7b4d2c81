"""The bodies of requests to /v1/chat/completions, /v1/completions and /v1/embeddings.

A sampling parameter that is left out, or null, takes the model's own default (`Llama.params`). Ranges of OpenAI's
parameters are OpenAI's; those of ours are read from `SamplingParams`, their home.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
)
from pydantic_core import PydanticCustomError

from camelid.engine.request import DraftTokens, Order, SamplingParams
from camelid.serve.body import Body
from camelid.serve.openai.messages import ChatMessage, FunctionName, Listed, NamedTool, Tool

MOST_PROMPTS, MOST_INPUTS = 256, 2048
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
    draft_tokens: DraftTokens | None = Field(None, description=SamplingParams.model_fields["draft_tokens"].description)
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


Id = Annotated[int, Field(ge=0)]


def _texts_or_ids(most: int) -> tuple[WrapValidator, BeforeValidator]:
    """What a prompt or an input must be, said in one sentence; too many of them are another mistake."""

    def count(value: object) -> object:
        if isinstance(value, list) and len(value) > most and not isinstance(value[0], int):
            raise PydanticCustomError("too_many", "has {n} items, the limit is {most}", {"n": len(value), "most": most})
        return value

    sentence = "must be a text, a list of texts, a list of ids or a list of lists of ids; none empty"
    return one_sentence(sentence), BeforeValidator(count)


def _not_empty(text: str) -> str:
    """Unlike pydantic's own, this leaves half a character to the tokenizer, which names it."""
    if not text:
        raise PydanticCustomError("empty", "must not be empty")
    return text


Ids = Annotated[Listed[Id], Field(min_length=1)]
Prompts = Annotated[
    str | Annotated[Listed[str], Field(min_length=1)] | Ids | Annotated[Listed[Ids], Field(min_length=1)],
    *_texts_or_ids(MOST_PROMPTS),
]
InputText = Annotated[str, AfterValidator(_not_empty)]
Inputs = Annotated[
    InputText | Annotated[Listed[InputText], Field(min_length=1)] | Ids | Annotated[Listed[Ids], Field(min_length=1)],
    *_texts_or_ids(MOST_INPUTS),
]


class TextFormat(Body):
    """No form."""

    type: Literal["text"]


class JsonObjectFormat(Body):
    """Any JSON object."""

    type: Literal["json_object"]


class SchemaDefinition(Body):
    """A JSON schema with a name; it always holds, `strict` or not."""

    name: FunctionName
    description: str | None = None
    schema_: dict[str, Any] = Field({}, alias="schema", description="The JSON schema; left out, any JSON value.")
    strict: bool | None = None


class JsonSchemaFormat(Body):
    """JSON after a schema. What the schema asks for holds, or it is refused."""

    type: Literal["json_schema"]
    json_schema: SchemaDefinition


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


ToolChoice = Annotated[
    Literal["none", "auto", "required"] | NamedTool,
    one_sentence('must be none, auto, required or {"type": "function", "function": {"name": …}}'),
]


class ChatRequest(GenerationRequest):
    """A conversation to be answered."""

    messages: Annotated[Listed[ChatMessage], Field(min_length=1)]
    max_completion_tokens: int | None = Field(None, ge=1, description="The same as max_tokens, by its newer name.")
    logprobs: bool | None = Field(None, description="Report each token's log-probability, of the raw distribution.")
    top_logprobs: int | None = Field(None, ge=0, le=20, description="And of so many likely tokens in its place.")
    response_format: ResponseFormat | None = None
    tools: Annotated[Listed[Tool], Field(max_length=128)] | None = Field(
        None, description="Functions that may be called, in the style of the model's own template."
    )
    tool_choice: ToolChoice | None = Field(
        None, description="none: the tools are not shown; required, or a function's name: the answer is a call."
    )
    parallel_tool_calls: bool | None = Field(None, description="false: the answer ends with its first call.")
    continue_final_message: bool | None = Field(
        None, description="Go on with the last message; left out, if it is the assistant's. As in vLLM."
    )
    add_generation_prompt: bool | None = Field(
        None, description="true: begin an answer even behind a message of the assistant; false: do not."
    )
    metadata: Annotated[dict[str, Any], Field(max_length=16)] | None = Field(
        None, description="Accepted, and of no effect."
    )
    store: Literal[False] | None = Field(None, description="Nothing is kept.")
    safety_identifier: str | None = Field(None, description="Accepted, and of no effect.")
    prompt_cache_key: str | None = Field(None, description="Of no effect: shared beginnings are always found.")
    service_tier: Literal["auto", "default"] | None = Field(None, description="There is one.")
    modalities: Listed[Literal["text"]] | None = Field(None, description="Answers are text.")

    @field_validator("top_logprobs")
    @classmethod
    def _only_with_logprobs(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value and not info.data.get("logprobs"):
            raise PydanticCustomError("needs_logprobs", "is only given with logprobs: true")
        return value

    @field_validator("max_completion_tokens")
    @classmethod
    def _one_limit(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("max_tokens") not in (None, value):
            raise PydanticCustomError("two_limits", "differs from max_tokens; give one of them")
        return value

    @field_validator("add_generation_prompt")
    @classmethod
    def _one_of_both(cls, value: bool | None, info: ValidationInfo) -> bool | None:
        continued, messages = info.data.get("continue_final_message"), info.data.get("messages")
        if continued is None and messages:
            continued = messages[-1].role == "assistant" and not value
        if value is not None and messages and value == continued:
            needs = "be true where the last message is continued" if value else "be false where no message is continued"
            said = f"cannot {needs}"
            raise PydanticCustomError("prompt_and_continued", said)
        return value

    @property
    def continues(self) -> bool:
        """Whether the answer goes on with the last message."""
        if self.continue_final_message is not None:
            return self.continue_final_message
        return self.messages[-1].role == "assistant" and not self.add_generation_prompt

    @field_validator("tool_choice")
    @classmethod
    def _only_with_tools(cls, value: object, info: ValidationInfo) -> object:
        if value not in (None, "none") and not info.data.get("tools"):
            raise PydanticCustomError("needs_tools", "is only given with tools")
        return value

    @property
    def may_have_form(self) -> bool:
        """Whether the answer may have to keep to a form."""
        return self.tools is not None or not isinstance(self.response_format, TextFormat | None)

    @property
    def limit(self) -> int | None:
        """Most tokens to write."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def n_logprobs(self) -> int | None:
        """How many likely tokens to report in the place of each; None: no log-probabilities at all."""
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionRequest(GenerationRequest):
    """Texts to be continued, or to be filled in where `suffix` is given."""

    prompt: Prompts = Field(description="A text, several, or the same as ids, which are used as they are.")
    suffix: str | None = Field(None, description="Write what stands between prompt and suffix; for Code Llama.")
    echo: bool | None = Field(None, description="Begin with the prompt; with logprobs, its tokens' too.")
    best_of: int | None = Field(None, ge=1, le=128, description="Write so many, give the n likeliest; no streams.")
    logprobs: int | None = Field(
        None, ge=0, le=20, description="Report log-probabilities, of the raw distribution, and so many likely tokens."
    )
    max_tokens: int | None = Field(16, ge=0, description="Most tokens to write; null: up to the context.")

    @field_validator("suffix")
    @classmethod
    def _fills_in_one_text(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and "prompt" in info.data and not isinstance(info.data["prompt"], str):
            raise PydanticCustomError("suffix_prompt", "needs one prompt, as a text")
        return value

    @field_validator("echo")
    @classmethod
    def _echoes_no_suffix(cls, value: bool | None, info: ValidationInfo) -> bool | None:
        if value and info.data.get("suffix") is not None:
            raise PydanticCustomError("echo_suffix", "cannot be combined with suffix")
        return value

    @field_validator("best_of")
    @classmethod
    def _best_of_enough(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and value < (info.data.get("n") or 1):
            raise PydanticCustomError("best_of_n", "must be n or more")
        if value is not None and value > (info.data.get("n") or 1) and info.data.get("stream"):
            raise PydanticCustomError("best_of_stream", "cannot be streamed: the best is known at the end")
        return value

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """The prompts, each a text or ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        return [self.prompt] if isinstance(self.prompt[0], int) else self.prompt


class EmbeddingRequest(Body):
    """Texts whose vectors are wanted."""

    input: Inputs = Field(description="A text, several, or the same as ids, which are used as they are.")
    model: str | None = Field(None, description="A name of /v1/models; left out, the first of them.")
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="Numbers as JSON (the default), or as base64 of little-endian float32."
    )
    dimensions: int | None = Field(None, ge=1, description="The model's own width; there is no other.")
    user: str | None = Field(None, description="Accepted, and of no effect.")

    @property
    def inputs(self) -> list[str] | list[list[int]]:
        """The inputs, each a text or ids."""
        if isinstance(self.input, str):
            return [self.input]
        return [self.input] if isinstance(self.input[0], int) else self.input
