"""A message of a conversation."""

from __future__ import annotations

from dataclasses import dataclass


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
        role, content: of every message.
        tool_calls: what an assistant's message calls.
        tool_call_id, name: of a tool's message: which call it answers, and of which function.
    """

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
