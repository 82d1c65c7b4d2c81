"""Where an assistant's words stand in what a chat template makes of a conversation.

A template with `{% generation %}` says it. For others a turn begins where the prompt for it ends, that is, what the
template makes of the messages before it and the opening of an answer; and it ends with the token that ends a turn. If a
template writes the messages before a turn in another way once others follow (it leaves out thoughts, or gives the tools
with the last question), the two texts are laid side by side at the end of the message before. To find that message in
a text, a tag of characters that occur nowhere is put beside its content, and nothing else may change by it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from camelid.errors import OptionError
from camelid.tokens.templates.jinja_template import Template

_MARKS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
_NO_SPAN = "an exact mask needs a template with {% generation %}"


def free_marks(source: str, values: Mapping[str, Any], n: int = 1, other: str = "") -> list[str]:
    """The first noncharacters of Unicode that occur in neither a template, its values nor another text.

    Raises:
        OptionError: so many are not left.
    """
    written = {*source, *json.dumps(values, ensure_ascii=False), *other}
    free = [mark for mark in _MARKS if mark not in written]
    if len(free) < n:
        raise OptionError("messages: hold every noncharacter from U+FDD0 to U+FDEF; take one out", param="messages")
    return free[:n]


@dataclass(frozen=True)
class TemplateText:
    """A conversation as a template has written it.

    Attributes:
        template: compiled.
        values: `messages` and `tools`, with marks in what was typed.
        names: what else the template was given.
        text: what it made of them.
        mark: the character that stands inside what only looks like a control token.
        control: finds control tokens, and gives them as its one group.
        ends: those of them that end a turn.
        continues: the last message is not finished, and the text goes on behind it.
    """

    template: Template
    values: Mapping[str, Any]
    names: Mapping[str, Any]
    text: str
    mark: str
    control: re.Pattern[str]
    ends: tuple[str, ...]
    continues: bool

    @property
    def messages(self) -> Sequence[dict[str, Any]]:
        """As the template got them."""
        rows: Sequence[dict[str, Any]] = self.values["messages"]
        return rows

    def written(self, messages: Sequence[dict[str, Any]], *, prompt: bool | None = None) -> str:
        """What the template makes of other messages, with or without the opening of an answer."""
        names = self.names if prompt is None else {**self.names, "add_generation_prompt": prompt}
        return self.template.render(**{**self.values, "messages": messages}, **names)


def answer_spans(conversation: TemplateText, size: int) -> list[tuple[int, int]]:
    """Start and end of each assistant's words in the first `size` characters of the text, marks not counted.

    Raises:
        OptionError: the template does not show them.
    """
    marked = conversation.template.has_generation
    spans = _generated(conversation) if marked else _Turns(conversation).spans()

    def clean(at: int) -> int:
        return min(at - conversation.text.count(conversation.mark, 0, at), size)

    return [(clean(start), clean(end)) for start, end in spans if clean(start) < clean(end)]


def _generated(conversation: TemplateText) -> list[tuple[int, int]]:
    """What stands inside the tag `{% generation %}`."""
    opened, closed = free_marks(conversation.template.source, conversation.values, 2, conversation.text)
    template, names = conversation.template, conversation.names
    text = template.render(**conversation.values, marks=(opened, closed), **names)
    if text.replace(opened, "").replace(closed, "") != conversation.text:
        raise OptionError("chat template: looks into what its tag {% generation %} holds; move the tag outwards")
    spans, at, starts = [], 0, []
    for part in re.split(f"([{opened}{closed}])", text):
        if part == opened:
            starts.append(at)
        elif part == closed and starts:
            spans.append((starts.pop(), at))
        else:
            at += len(part)
    return sorted(spans)


class _Turns:
    """The turns of the assistant, by the prompts that lead to them."""

    def __init__(self, conversation: TemplateText) -> None:
        self._it, self._text = conversation, conversation.text
        self._end = re.compile("|".join(map(re.escape, conversation.ends)) or "(?!)")

    def spans(self) -> list[tuple[int, int]]:
        """Start and end of each turn.

        Raises:
            OptionError: one cannot be told.
        """
        rows = self._it.messages
        return [self._span(index) for index, row in enumerate(rows) if row["role"] == "assistant"]

    def _span(self, index: int) -> tuple[int, int]:
        start, is_last = self._start(index), index == len(self._it.messages) - 1
        if is_last and self._it.continues:
            return start, len(self._text)
        ended = self._end.search(self._text, start)
        if ended is None or not (is_last or self._is_before_next(index, ended.end())):
            raise OptionError(
                f"messages: number {index + 1} is the assistant's, and this chat template writes no control token that "
                "ends its turn; a model trained on it would never stop",
                param="messages",
            )
        return start, ended.end()

    def _start(self, index: int) -> int:
        """Where the prompt for this turn ends."""
        before = self._it.messages[:index]
        try:
            prompt = self._it.written(before, prompt=True)
            start = self._shared(prompt, self._text, lambda: self._it.written(before, prompt=False))
            if start is None and index:
                start = self._start_behind(index - 1)
        except OptionError as error:
            raise OptionError(
                f"messages: no prompt for number {index + 1}, the assistant's: {error}", param="messages"
            ) from None
        if start is None:
            raise OptionError(
                f"messages: number {index + 1} is the assistant's, and this chat template writes its turn, or what is "
                f"before it, in another way than in the prompt for it; {_NO_SPAN}",
                param="messages",
            )
        return start

    def _start_behind(self, previous: int) -> int | None:
        """The same, counted from the end of the message before; None where that cannot be found."""
        tags, before = self._tags, self._tags.messages[: previous + 1]
        at, rest = tags.behind(self._tagged, previous), tags.rest(self._it.written(before, prompt=True), previous)
        if at is None or rest is None:
            return None
        bare = lambda: tags.rest(self._it.written(before, prompt=False), previous)  # noqa: E731
        shared = self._shared(rest, self._text[at:], bare)
        return None if shared is None else at + shared

    def _shared(self, prompt: str, text: str, without_opening: Callable[[], str | None]) -> int | None:
        """How much of a prompt the text begins with: all of it, or all but the last pieces of the opening, which some
        templates write only for a new answer, such as the tag that begins a thought; None if it is less."""
        if text.startswith(prompt):
            return len(prompt)
        bare = without_opening()
        if bare is None or not prompt.startswith(bare) or not text.startswith(bare):
            return None
        at, opening = len(bare), prompt[len(bare) :]
        for part in self._it.control.split(opening):
            for piece in filter(None, [part] if self._it.control.fullmatch(part) else part.splitlines(keepends=True)):
                if not text.startswith(piece, at):
                    return at if at > len(bare) else None
                at += len(piece)
        return at

    def _is_before_next(self, index: int, end: int) -> bool:
        """Whether a place in the text is before the next message's content."""
        following = self._tags.before(self._tagged, index + 1)
        if following is not None:
            return end <= following
        whole = self._it.written(self._it.messages[: index + 1], prompt=False)
        return self._text.startswith(whole) and end <= len(whole)

    @cached_property
    def _tags(self) -> _Tags:
        return _Tags(self._it)

    @cached_property
    def _tagged(self) -> str:
        """The text with tags; empty if the template says something else with them."""
        try:
            text = self._it.written(self._tags.messages)
        except OptionError:
            return ""
        return text if self._tags.removed(text) == self._text else ""


class _Tags:
    """Tags on both sides of the content of every message but the assistant's, each unlike any other.

    Attributes:
        messages: with them.
    """

    def __init__(self, conversation: TemplateText) -> None:
        rows = conversation.messages
        self._marks = free_marks(conversation.template.source, conversation.values, 3, conversation.text)
        self._width = len(rows).bit_length() + 1
        self.messages = [
            row if row["role"] == "assistant" else {**row, "content": self._with_tags(row["content"], index)}
            for index, row in enumerate(rows)
        ]

    def removed(self, text: str) -> str:
        """A text without its tags."""
        return text.translate(dict.fromkeys(map(ord, self._marks)))

    def before(self, text: str, index: int) -> int | None:
        """Where the content of a message begins in the text without tags; None if that is not known."""
        return self._place(text, self._tag(2 * index))

    def behind(self, text: str, index: int) -> int | None:
        """Where the content of a message ends in the text without tags; None if that is not known."""
        return self._place(text, self._tag(2 * index + 1))

    def rest(self, text: str, index: int) -> str | None:
        """What follows the content of a message, without tags; None if that is not known."""
        place = self.behind(text, index)
        return None if place is None else self.removed(text)[place:]

    def _place(self, text: str, tag: str) -> int | None:
        return len(self.removed(text[: text.index(tag)])) if text.count(tag) == 1 else None

    def _tag(self, number: int) -> str:
        begin, zero, one = self._marks
        return begin + f"{number:0{self._width}b}".replace("0", zero).replace("1", one)

    def _with_tags(self, content: Any, index: int) -> Any:
        """The content with tags, inside the white space at its ends, which templates may take away."""
        texts = [content] if isinstance(content, str) else [part["text"] for part in content]
        if not texts:
            return content
        begin = len(texts[0]) - len(texts[0].lstrip())
        texts[0] = texts[0][:begin] + self._tag(2 * index) + texts[0][begin:]
        end = len(texts[-1].rstrip())
        texts[-1] = texts[-1][:end] + self._tag(2 * index + 1) + texts[-1][end:]
        return texts[0] if isinstance(content, str) else [{"type": "text", "text": text} for text in texts]
