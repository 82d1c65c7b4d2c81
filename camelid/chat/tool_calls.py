"""Answers that must be calls of tools: the form that `tool_choice` asks for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from camelid.chat.constrain import COMPACT, Form
from camelid.errors import OptionError, one_of
from camelid.tokens.tokenizer import Tokenizer
from camelid.tokens.tool_styles import Style, control_ids, tool_names

NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}  # of a function without parameters


def tool_form(
    tools: Sequence[Mapping[str, Any]], choice: str | None, style: Style, tokenizer: Tokenizer, *, parallel: bool = True
) -> Form:
    """A form whose every text `ToolParser` reads as calls, and nothing beside them, with arguments that their schemas
    allow.

    Args:
        tools: functions as OpenAI's API describes them.
        choice: the function that must be called; None: any of them.
        style: how the model writes calls.
        tokenizer: the model's; where it has control tokens for calls, those are written.
        parallel: more than one call may be made.

    Raises:
        OptionError: a tool is none or cannot be a form, or none is named so.
    """
    names = tool_names(tools)
    if choice is not None and choice not in names:
        raise OptionError(f"tool_choice: {choice!r} is none of the tools; {one_of(choice, names)}")
    words = {text: f"<[{id}]>" for id, text in control_ids(tokenizer, style).items()}
    chosen = [tool["function"] for tool in tools if choice in (None, tool["function"]["name"])]
    more = f"({_quoted(style.between)} call)*" if parallel else ""
    lines = [f"start: call {more}", f"call: {' | '.join(f'call_{number}' for number in range(len(chosen)))}"]
    for number, function in enumerate(chosen):
        lines.append(f"call_{number}: {_call(function['name'], f'arguments_{number}', style, words)}")
        lines.append(f"arguments_{number}: %json {_schema(function)}")
    return Form(grammar="\n".join(lines))


def _call(name: str, arguments: str, style: Style, words: Mapping[str, str]) -> str:
    """One call as the right side of a rule."""
    opens, closes = (words.get(word, _quoted(word)) for word in (style.opens, style.closes))
    if style.key is None:
        return f"{opens} {_quoted(name + '>')} {arguments} {closes}"
    before = f'{{"name": "{name}", "{style.key}": '
    called = " ".join([_quoted(before), arguments, _quoted("}")])
    return called if style.bare else " ".join([opens, _quoted("\n"), called, _quoted("\n"), closes])


def _schema(function: Mapping[str, Any]) -> str:
    """The parameters as the JSON of a schema of objects that are written in one way."""
    schema = function.get("parameters") or NOTHING
    if not isinstance(schema, Mapping) or schema.get("type", "object") != "object":
        raise OptionError(f"tools: the parameters of {function['name']!r} must be a JSON schema of type object")
    try:
        return json.dumps({**schema, "type": "object", "x-guidance": COMPACT})
    except RecursionError:
        raise OptionError(f"tools: the parameters of {function['name']!r} are nested too deep; flatten them") from None


def _quoted(text: str) -> str:
    return json.dumps(text)
