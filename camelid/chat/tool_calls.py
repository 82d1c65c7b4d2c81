"""Answers that must be calls of tools: the form that `tool_choice` asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from camelid.chat.constrain import Form, Promise
from camelid.errors import OptionError, one_of
from camelid.tokens.templates.tool_styles import Style, control_ids, tool_names
from camelid.tokens.tokenizer import Tokenizer

NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}  # of a function without parameters


def tool_form(
    tools: Sequence[Mapping[str, Any]],
    choice: str | None,
    style: Style,
    tokenizer: Tokenizer,
    *,
    parallel: bool = True,
    talk: bool = False,
) -> Form:
    """A form whose every text `ToolParser` reads as calls, and nothing beside them, with arguments that their schemas
    allow.

    Args:
        tools: functions as OpenAI's API describes them.
        choice: the function that must be called; None: any of them.
        style: how the model writes calls.
        tokenizer: the model's; where it has control tokens for calls, those are written.
        parallel: more than one call may be made.
        talk: the answer may also be text, and text may stand around calls where the style has a word that opens them.

    Raises:
        OptionError: a tool is not a function or cannot be a form, or no tool has that name.
    """
    names = tool_names(tools)
    if choice is not None and choice not in names:
        raise OptionError(f"tool_choice: unknown tool {choice!r}; {one_of(choice, names)}", param="tool_choice")
    words = {text: f"<[{id}]>" for id, text in control_ids(tokenizer, style).items()}
    chosen = [
        (f"tools[{index}].function.parameters", tool["function"])
        for index, tool in enumerate(tools)
        if choice in (None, tool["function"]["name"])
    ]
    more = f"({_quoted(style.between)} call)*" if parallel else ""
    lines = _talk(style, words, more) if talk else [f"start: call {more}", f"call: {_opens(style, words)} called"]
    lines.append(f"called: {' | '.join(f'call_{number}' for number in range(len(chosen)))}")
    schemas = {}
    for number, (place, function) in enumerate(chosen):
        lines.append(f"call_{number}: {_called(function['name'], f'arguments_{number}', style, words)}")
        schemas[f"arguments_{number}"] = _schema(function, place), place
    promise: Promise = "arguments" if talk else "calls"
    return Form(grammar="\n".join(lines), place="tools", schemas=schemas, promise=promise)


def _talk(style: Style, words: Mapping[str, str], more: str) -> list[str]:
    """Rules of an answer that may be text; what begins like a call must go on as one."""
    opens = words.get(style.opens)
    if style.bare:  # an answer that begins with `{` is a call; further on it is text
        text = r"TEXT: /\s*[^\s{](.|\n)*/"
        if opens is None:
            return [
                f"start: called {more} | TEXT?",
                "call: called",
                f"{text} & ~/(.|\\n)*{re.escape(style.opens)}(.|\\n)*/",
            ]
        return [f"start: {opens}? called {more} | TEXT?", "call: called", text]
    begun = f"begun: TEXT {opens}" if opens else f"begun[lazy]: TEXT {_quoted(style.opens)}"
    return ["start: (begun called)* TEXT", begun, r"TEXT: /(.|\n)*/"]


def _opens(style: Style, words: Mapping[str, str]) -> str:
    return "" if style.bare else words.get(style.opens, _quoted(style.opens))


def _called(name: str, arguments: str, style: Style, words: Mapping[str, str]) -> str:
    """One call behind the word that opens it, as the right side of a rule."""
    closes = words.get(style.closes, _quoted(style.closes))
    if style.key is None:
        return f"{_quoted(name + '>')} {arguments} {closes}"
    before = f'{{"name": "{name}", "{style.key}": '
    called = " ".join([_quoted(before), arguments, _quoted("}")])
    return called if style.bare else " ".join([_quoted("\n"), called, _quoted("\n"), closes])


def _schema(function: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The parameters as a schema of objects."""
    schema = function.get("parameters") or NOTHING
    if not isinstance(schema, Mapping) or schema.get("type", "object") != "object":
        raise OptionError(f"{place}: must be a JSON schema of type object", param=place)
    return {**schema, "type": "object"}


def _quoted(text: str) -> str:
    return json.dumps(text)
