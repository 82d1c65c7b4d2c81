"""Messages and tools as OpenAI's API writes them, and their way into a `Message`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from camelid.serve.body import Body
from camelid.tokens.templates.message import Message, ToolCall

T = TypeVar("T")
Listed = Annotated[list[T], Field(fail_fast=True)]  # a million errors, of which one is told, take seconds
FunctionName = Annotated[str, Field(pattern="^[a-zA-Z0-9_-]{1,64}$")]


class MessageBody(Body):
    """A part of the conversation; what is empty in it says nothing."""

    empty_says_nothing: ClassVar[bool] = True


class TextPart(MessageBody):
    """A part of a message; only text is read here."""

    type: Literal["text"]
    text: str


class RefusalPart(MessageBody):
    """What an answer refused to do, in its words."""

    type: Literal["refusal"]
    refusal: str


def _only(*kinds: str) -> BeforeValidator:
    """Name what cannot be read, rather than what it should have been."""

    def check(value: object) -> object:
        if not isinstance(value, str | list):
            raise PydanticCustomError(
                "content_type", "must be a string, or a list of parts, each with a type and a text"
            )
        for number, part in enumerate(value if isinstance(value, list) else [], start=1):
            if isinstance(part, dict) and part.get("type") not in kinds:
                kind = str(part.get("type"))[:40]
                raise PydanticCustomError(
                    "content_part",
                    "part {number} has the type {kind}; only text can be read",
                    {"number": number, "kind": kind},
                )
        return value

    return BeforeValidator(check)


# messages are told apart by their shape, so that an error is about the shape that was meant
_SHAPE = Discriminator(lambda value: "parts" if isinstance(value, list) else "text")
Content = Annotated[
    Annotated[str, Tag("text")] | Annotated[Listed[TextPart], Field(min_length=1), Tag("parts")], _SHAPE, _only("text")
]
AnswerPart = Annotated[TextPart | RefusalPart, Field(discriminator="type")]
AnswerContent = Annotated[
    Annotated[str, Tag("text")] | Annotated[Listed[AnswerPart], Field(min_length=1), Tag("parts")],
    _SHAPE,
    _only("text", "refusal"),
]
Name = Annotated[str | None, Field(description="Of who speaks; for templates that show it.")]


class CalledFunction(MessageBody):
    """Which function was called, with its arguments as JSON text."""

    name: FunctionName
    arguments: str
    parsed_arguments: Any = Field(None, description="OpenAI's client adds it; of no effect.")


class CallRequest(MessageBody):
    """A call that an earlier answer made, as the reply gave it."""

    id: str
    type: Literal["function"]
    function: CalledFunction
    index: int | None = None  # clients that joined a stream send it along


class SystemMessage(MessageBody):
    """What the model should be; `developer` is the same role by a newer name."""

    role: Literal["system", "developer"]
    content: Content
    name: Name = None


class UserMessage(MessageBody):
    """What a person says."""

    role: Literal["user"]
    content: Content
    name: Name = None


class AssistantMessage(MessageBody):
    """What was answered before. A refusal is what the assistant said, so the model reads it as that."""

    role: Literal["assistant"]
    content: AnswerContent | None = None
    refusal: str | None = None
    name: Name = None
    tool_calls: Listed[CallRequest] | None = None
    parsed: Any = Field(None, description="OpenAI's client adds it; of no effect.")


class ToolMessage(MessageBody):
    """What a called function gave."""

    role: Literal["tool"]
    content: Content
    tool_call_id: str
    name: str | None = Field(None, description="The function's name; else that of the call which is answered.")


ChatMessage = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class FunctionDefinition(MessageBody):
    """A function that the model may call; `parameters` is a JSON schema."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(MessageBody):
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
            text = "\n".join(filter(None, [text, message.refusal]))
            messages.append(Message("assistant", text, calls, None, message.name))
        elif isinstance(message, ToolMessage):
            name = message.name or called.get(message.tool_call_id)
            messages.append(Message("tool", text, (), message.tool_call_id, name))
        else:
            role = "user" if message.role == "user" else "system"
            messages.append(Message(role, text, (), None, message.name))
    return messages


def _text(content: str | Sequence[TextPart | RefusalPart] | None) -> str:
    """Several parts are paragraphs of one text."""
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part.text if isinstance(part, TextPart) else part.refusal for part in content)
