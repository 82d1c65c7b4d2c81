"""A message of a conversation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """Who says what. Roles are system, user, assistant and tool."""

    role: str
    content: str
