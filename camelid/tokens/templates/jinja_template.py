"""A model's own chat template, as transformers would run it, but where it can do no harm (see `jinja_process`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from camelid.errors import FormatError, OptionError
from camelid.tokens.templates import jinja_process

LONGEST = 1_000_000  # characters of a template


class Template:
    """A compiled chat template.

    Attributes:
        source: its text.
        variables: names that it looks up, such as `messages` or `tools`.
        has_generation: it marks the assistant's words by the tag `{% generation %}`.

    Raises:
        FormatError: it is not a template, or uses something that is not allowed.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        if len(source) > LONGEST:
            raise FormatError(f"chat template: {len(source):,} characters are too many; {jinja_process.INSTEAD}")
        variables, self.has_generation = json.loads(jinja_process.ask(source))
        self.variables = frozenset(variables)

    def render(self, messages: Sequence[dict[str, Any]], *, marks: tuple[str, str] = ("", ""), **names: Any) -> str:
        """The conversation as text, up to the opening of the assistant's turn.

        Args:
            messages: with `role` and `content`.
            marks: what to put before and after the content of each `{% generation %}`.
            names: more that the template may use, such as `tools` or `bos_token`.

        Raises:
            OptionError: the template refuses the conversation, in its own words, or breaks on it.
            FormatError: it runs too long or makes too much text.
        """
        values = {"messages": list(messages), "add_generation_prompt": True, "tools": None, "documents": None, **names}
        return jinja_process.ask(self.source, values, marks)

    @cached_property
    def reads_parts(self) -> bool:
        """Whether it takes a message's content in parts, and writes the text of those that are text."""
        part = {"type": "text", "text": "Sentinel", "unread": "Unread"}
        try:
            text = self.render([{"role": "user", "content": [part]}], bos_token="", eos_token="")
        except (OptionError, FormatError):
            return False
        return "Sentinel" in text and "Unread" not in text
