"""The bodies of requests to /v1/chat/completions, /v1/completions and /v1/embeddings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WrapValidator, field_validator
from pydantic_core import PydanticCustomError

from camelid.serve.body import Body
from camelid.serve.openai.messages import ChatMessage, FunctionName, NamedTool, Tool
from camelid.serve.openai.sampling import GenerationRequest, Listed, one_sentence

MOST_PROMPTS, MOST_INPUTS = 256, 2048

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
