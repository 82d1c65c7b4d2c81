"""One conversation, preference or prompt as the rest of camelid knows it, whichever form it came in; and what is none.

A record travels through `prepare` as the metadata of a document, whose text is what was said, so that duplicates and
text of tests are found as in documents.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from camelid.tokens.templates.message import Message, ToolCall

Turn = Mapping[str, Any]
"""{"role", "content"}, and where there is such `tool_calls`, `tool_call_id`, `name`, and `weight`: 0 where an
assistant's message is only read (OpenAI's word)."""

ROLES = ("system", "user", "assistant", "tool")
_BETWEEN = "\n\x1e"  # messages, in the text that is compared


class MisfitError(Exception):
    """A record does not fit; says why in a few words, the same for all of its sort."""


@dataclass(frozen=True)
class ChatRecord:
    """A record, checked.

    Attributes:
        messages: the conversation; of a preference and a prompt what is to be answered.
        chosen, rejected: of a preference, the two answers.
        about: what else is on record: grade, safety labels, `answer`, fields that the source keeps.
        tools: functions that the model may call.
    """

    messages: Sequence[Turn]
    chosen: Turn | None = None
    rejected: Turn | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    tools: Sequence[Mapping[str, Any]] = ()

    def text(self) -> str:
        """All that is said; equal for equal records only."""
        turns = [*self.messages, *(turn for turn in (self.chosen, self.rejected) if turn is not None)]
        calls = [str(turn["tool_calls"]) for turn in turns if "tool_calls" in turn]
        return _BETWEEN.join([f"{turn['role']}: {turn['content']}" for turn in turns] + calls)

    def as_json(self) -> dict[str, Any]:
        """For a document's metadata."""
        values = {"messages": list(self.messages), "chosen": self.chosen, "rejected": self.rejected}
        values |= {"about": dict(self.about), "tools": list(self.tools)}
        return {name: value for name, value in values.items() if value}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ChatRecord:
        """What `as_json` gave."""
        return cls(**values)


def turns(value: Any) -> list[Turn]:
    """Messages, checked: known roles, texts, one system message at most, and that the first.

    Raises:
        MisfitError: they are not.
    """
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise MisfitError("messages are no list, or an empty one")
    checked = [_turn(message) for message in value]
    systems = [number for number, turn in enumerate(checked) if turn["role"] == "system"]
    if len(systems) > 1:
        raise MisfitError("two system messages")
    if systems and systems[0]:
        raise MisfitError("a system message that is not the first")
    return checked


def answer(turn: Turn) -> Turn:
    """An assistant's message that says or calls something.

    Raises:
        MisfitError: it is another's, or empty.
    """
    if turn["role"] != "assistant":
        raise MisfitError(f"ends with the {turn['role']}, not with an answer")
    if not turn["content"].strip() and "tool_calls" not in turn:
        raise MisfitError("an empty answer")
    return turn


def waiting(messages: Sequence[Turn]) -> Sequence[Turn]:
    """A conversation that an answer is to follow.

    Raises:
        MisfitError: it ends with one already, or nobody asks.
    """
    if not messages or messages[-1]["role"] == "system":
        raise MisfitError("no question")
    if messages[-1]["role"] == "assistant":
        raise MisfitError("ends with an answer, not with a question")
    return messages


def to_messages(turns: Sequence[Turn]) -> list[Message]:
    """Turns as the chat formats take them."""
    return [
        Message(
            turn["role"],
            turn["content"],
            tuple(ToolCall(**call) for call in turn.get("tool_calls", ())),
            turn.get("tool_call_id"),
            turn.get("name"),
        )
        for turn in turns
    ]


def _turn(message: Any) -> Turn:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise MisfitError("a message without a role")
    if message["role"] not in ROLES:
        raise MisfitError(f"unknown role {message['role'][:30]!r}")
    calls = _calls(message.get("tool_calls"))
    turn: dict[str, Any] = {"role": message["role"], "content": _content(message.get("content"), bool(calls))}
    turn |= {"tool_calls": calls} if calls else {}
    for name in ("tool_call_id", "name"):
        if isinstance(message.get(name), str) and message["role"] == "tool":
            turn[name] = message[name]
    weight = message.get("weight")
    if weight is not None:
        if weight not in (0, 1) or message["role"] != "assistant":
            raise MisfitError("a weight that is not 0 or 1, or not of an assistant's message")
        turn |= {} if weight else {"weight": 0}
    return turn


def _content(value: Any, optional: bool) -> str:
    if value is None and optional:
        return ""
    if isinstance(value, list):
        if not all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in value):
            raise MisfitError("a message with what is no text")
        value = "\n".join(part["text"] for part in value)
    if not isinstance(value, str):
        raise MisfitError("a message without a text")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell
            raise MisfitError("not Unicode") from None
    return value


def _calls(value: Any) -> list[dict[str, str]]:
    if not value:
        return []
    calls = []
    for number, call in enumerate(value if isinstance(value, list) else [value]):
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise MisfitError("a call of a tool without a name")
        arguments = function.get("arguments", {})
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        calls.append({"id": str(call.get("id") or f"call_{number}"), "name": function["name"], "arguments": text})
    return calls
