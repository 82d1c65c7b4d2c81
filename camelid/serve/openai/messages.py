"""Messages and tools as OpenAI's API writes them, and their way into a `Message`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from camelid.serve.openai.sampling import Body
from camelid.tokens.message import Message, ToolCall

FunctionName = Annotated[str, Field(pattern="^[a-zA-Z0-9_-]{1,64}$")]


class ContentPart(Body):
    """A part of a message; only text is read here."""

    type: Literal["text"]
    text: str


def _only_text(value: object) -> object:
    """Name what cannot be read, rather than what it should have been."""
    for number, part in enumerate(value if isinstance(value, list) else [], start=1):
        if isinstance(part, dict) and part.get("type") != "text":
            kind = str(part.get("type"))[:40]
            raise PydanticCustomError(
                "content_part",
                "part {number} has the type {kind}; only text can be read",
                {"number": number, "kind": kind},
            )
    return value


# messages are told apart by their shape, so that an error is about the shape that was meant
Content = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[ContentPart], Field(min_length=1), Tag("parts")],
    Discriminator(lambda value: "parts" if isinstance(value, list) else "text"),
    BeforeValidator(_only_text),
]


class CalledFunction(Body):
    """Which function was called, with its arguments as JSON text."""

    name: FunctionName
    arguments: str
    parsed_arguments: Any = Field(None, description="OpenAI's client adds it; of no effect.")


class CallRequest(Body):
    """A call that an earlier answer made, as the reply gave it."""

    id: str
    type: Literal["function"]
    function: CalledFunction
    index: int | None = None  # clients that joined a stream send it along


class SystemMessage(Body):
    """What the model should be; `developer` is the same role by a newer name."""

    role: Literal["system", "developer"]
    content: Content


class UserMessage(Body):
    """What a person says."""

    role: Literal["user"]
    content: Content


class AssistantMessage(Body):
    """What was answered before. Fields that a reply has and that say nothing are taken back as they came."""

    role: Literal["assistant"]
    content: Content | None = None
    tool_calls: list[CallRequest] | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    parsed: Any = Field(None, description="OpenAI's client adds it; of no effect.")


class ToolMessage(Body):
    """What a called function gave."""

    role: Literal["tool"]
    content: Content
    tool_call_id: str
    name: str | None = Field(None, description="The function's name; else that of the call which is answered.")


ChatMessage = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class FunctionDefinition(Body):
    """A function that the model may call; `parameters` is a JSON schema."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Body):
    """A tool; only functions are tools here."""

    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(Body):
    """A function by its name."""

    name: FunctionName


class NamedTool(Body):
    """The one tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


def to_messages(given: Sequence[ChatMessage]) -> list[Message]:
    """The conversation as the chat formats read it."""
    messages: list[Message] = []
    called: dict[str, str] = {}  # id of a call → its function
    for message in given:
        text = _text(message.content)
        if isinstance(message, AssistantMessage):
            calls = tuple(
                ToolCall(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()
            )
            called |= {call.id: call.name for call in calls}
            messages.append(Message("assistant", text, calls))
        elif isinstance(message, ToolMessage):
            name = message.name or called.get(message.tool_call_id)
            messages.append(Message("tool", text, (), message.tool_call_id, name))
        else:
            messages.append(Message("user" if message.role == "user" else "system", text))
    return messages


def _text(content: str | list[ContentPart] | None) -> str:
    """Several parts are paragraphs of one text."""
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part.text for part in content)
