"""The styles in which models write tool calls, and what a description of a tool must be."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from camelid.errors import OptionError
from camelid.tokens.tokenizer import Tokenizer

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # as OpenAI's API has it
_PARAMETERS = re.compile(r'"parameters\\?"\s*:')


@dataclass(frozen=True)
class Style:
    """How a family of models writes a call.

    Attributes:
        name: key of `STYLES`.
        opens, closes: what stands before and after a call; the reader does without `closes` where it does not come.
        key: of the arguments, in a JSON object with the name of the function; None: the name follows `opens` up to a
            `>`, and then come the arguments alone.
        between: what parts two calls.
        bare: the object may come without `opens`, first or after another call.
    """

    name: str
    opens: str
    closes: str
    key: str | None
    between: str
    bare: bool = False


STYLES: dict[str, Style] = {
    row.name: row
    for row in (
        # <tool_call>{"name": "f", "arguments": {…}}</tool_call>: Hermes 2 Pro, Qwen 2.5
        Style("hermes", "<tool_call>", "</tool_call>", "arguments", "\n"),
        # {"name": "f", "parameters": {…}}; …: Llama 3.1 and later
        Style("json", "<|python_tag|>", ";", "parameters", "; ", bare=True),
        # <function=f>{…}</function>: what Llama 3.1's model card calls custom
        Style("function", "<function=", "</function>", None, "\n"),
    )
}


def style_of(template: str) -> Style | None:
    """The style that a chat template has its model write; None if it is none of `STYLES`."""
    if "<parameter=" in template:  # a tag for each argument
        return None
    if "<tool_call>" in template:
        return STYLES["hermes"]
    if "<function=" in template:
        return STYLES["function"]
    return STYLES["json"] if _PARAMETERS.search(template) else None


def control_ids(tokenizer: Tokenizer, style: Style) -> dict[int, str]:
    """Control tokens of a vocabulary with which calls begin and end, and their text, which a parser must be given.

    A stream of text leaves control tokens out; where one of these comes, its text goes in its place.
    """
    found = {tokenizer.special_ids[word]: word for word in (style.opens, style.closes) if word in tokenizer.special_ids}
    return {id: word for id, word in found.items() if not tokenizer.token_bytes(id)}


def tool_names(tools: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The names of functions that OpenAI's API describes as `{"type": "function", "function": {"name": …}}`.

    Raises:
        OptionError: a tool is something else, or two have one name.
    """
    names: list[str] = []
    for number, tool in enumerate(tools, start=1):
        function = tool.get("function")
        if tool.get("type") != "function" or not isinstance(function, Mapping):
            raise OptionError(
                f"tools: number {number} is not a function; only tools of type 'function' can be called", param="tools"
            )
        name = function.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise OptionError(
                f"tools: number {number}: the name must be 1 to 64 letters, digits, _ and -, got {name!r}",
                param="tools",
            )
        if name in names:
            raise OptionError(f"tools: two are named {name!r}; give each its own name", param="tools")
        names.append(name)
    return tuple(names)
