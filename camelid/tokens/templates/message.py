"""A message of a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from camelid.errors import OptionError


@dataclass(frozen=True)
class Text:
    """A part of a message that is text."""

    text: str


@dataclass(frozen=True)
class Image:
    """A part of a message that is a picture: the bytes of a PNG or JPEG file."""

    data: bytes


@dataclass(frozen=True)
class ToolCall:
    """A function that the assistant wants to be called, with its arguments as JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Message:
    """Who says what. Roles are system, user, assistant and tool.

    Attributes:
        role, content: of every message; the content is a text, or parts.
        tool_calls: what an assistant's message calls.
        tool_call_id, name: of a tool's message: which call it answers, and of which function.
    """

    role: str
    content: str | Sequence[Text | Image]
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None

    @property
    def text(self) -> str:
        """The content as one text: parts are its lines, as vLLM joins them for templates that know no parts."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content if isinstance(part, Text))


def refuse_images(messages: Sequence[Message]) -> None:
    """No model that is supported here sees.

    Raises:
        OptionError: a message holds an image.
    """
    for number, message in enumerate(messages, start=1):
        if not isinstance(message.content, str) and any(isinstance(part, Image) for part in message.content):
            raise OptionError(
                f"messages: number {number} holds an image, which no model here can see; leave it out", param="messages"
            )
