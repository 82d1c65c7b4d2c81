"""Tool calls inside an answer: found while the text comes, by one parser for streamed and whole answers alike.

A model writes a call as text, in the style that its chat template taught it. The parser reads character by character:
what may still become a call is held back, what has become one is given as it comes, and what turns out to be none is
given as content, unchanged. So the events of a text do not depend on how it was cut.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection, Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

from camelid.tokens.templates.message import ToolCall
from camelid.tokens.templates.tool_styles import Style

T = TypeVar("T")
Scan = Generator[None, str, T]  # wants the next character each time; END is the last

END = ""
_ARGUMENTS, _OTHERS = ("arguments", "parameters"), ("type", "id")  # keys of a call, beside the name


@dataclass(frozen=True)
class Content:
    """Text that belongs to no call."""

    text: str


@dataclass(frozen=True)
class CallBegun:
    """A call whose function is known; `index` counts the calls of the answer."""

    index: int
    id: str
    name: str


@dataclass(frozen=True)
class Arguments:
    """A piece of the arguments' JSON text, as the model wrote it."""

    index: int
    text: str


@dataclass(frozen=True)
class CallEnded:
    """Nothing more comes for this call; its arguments are whole unless the answer broke off."""

    index: int


ToolEvent = Content | CallBegun | Arguments | CallEnded


def gathered(events: Iterable[ToolEvent]) -> tuple[str, tuple[ToolCall, ...]]:
    """The content and the calls that the events of a whole answer make."""
    content: list[str] = []
    begun: list[CallBegun] = []
    arguments: list[list[str]] = []
    for event in events:
        if isinstance(event, Content):
            content.append(event.text)
        elif isinstance(event, CallBegun):
            begun.append(event)
            arguments.append([])
        elif isinstance(event, Arguments):
            arguments[event.index].append(event.text)
    calls = (ToolCall(call.id, call.name, "".join(parts)) for call, parts in zip(begun, arguments, strict=True))
    return "".join(content), tuple(calls)


def new_id() -> str:
    """An id for a call, unlike any other."""
    return f"call_{secrets.token_hex(12)}"


class ToolParser:
    """Finds the calls in an answer whose text comes piece by piece.

    Args:
        style: how the model writes calls; the text must have the style's control tokens written out (`control_ids`).
        names: functions that may be called; what names another one is content.
        make_id: gives each call its id.

    Attributes:
        n_calls: calls that have begun.
    """

    def __init__(self, style: Style, names: Collection[str], make_id: Callable[[], str] = new_id) -> None:
        self._style, self._names, self._make_id = style, frozenset(names), make_id
        self._events: list[ToolEvent] = []
        self._ahead: str | None = None  # a character that was looked at and not taken
        self._held: list[str] = []  # characters taken, of which it is not known yet what they are
        self._named: str | None = None  # the function of a call that is being read
        self._is_cut = False
        self.n_calls = 0
        self._scan = self._answer()
        next(self._scan)

    def push(self, text: str) -> list[ToolEvent]:
        """What has become certain with more of the text."""
        for character in text:
            self._scan.send(character)
        events, self._events = self._events, []
        return events

    def finish(self, cut: bool = False) -> list[ToolEvent]:
        """What was held back, when no more text comes.

        Args:
            cut: the text would have gone on; then a call that has only begun is no content. It is given as far as its
                name is known, as OpenAI does, else it is dropped.
        """
        self._is_cut = cut
        with suppress(StopIteration):
            self._scan.send(END)
        events, self._events = self._events, []
        return events

    # What follows reads characters: `_peek` waits for the next one, `_take` puts it among the held.

    def _peek(self) -> Scan[str]:
        if self._ahead is None:
            self._ahead = yield
        return self._ahead

    def _take(self) -> None:
        assert self._ahead
        self._held.append(self._ahead)
        self._ahead = None

    def _blanks(self) -> Scan[None]:
        while (yield from self._peek()).isspace():
            self._take()

    def _answer(self) -> Scan[None]:
        """Content and calls, in any order; white space between calls is nobody's words."""
        style = self._style
        blank, ended = True, False  # only white space since the beginning or a call; the call's last word may come
        while (ahead := (yield from self._peek())) != END:
            if blank and ahead.isspace():
                self._take()
                continue
            if blank and style.bare and ahead == "{":
                begun = (yield from self._call()) or self._cut_off(is_bare=True)
            else:
                word = yield from self._word([style.opens, style.closes] if ended else [style.opens])
                if word == style.closes or (ended and (yield from self._broke_off(style.closes))):
                    self._held.clear()
                    ended = False
                    continue
                begun = word is not None and ((yield from self._call()) or self._cut_off())
            blank = ended = begun
            if not begun:
                self._say()
        if blank and self.n_calls:
            self._held.clear()
        self._say()

    def _cut_off(self, is_bare: bool = False) -> bool:
        """Whether the text was cut inside a call; without an opening word only a known function makes it one."""
        if not self._is_cut or self._ahead != END or (is_bare and self._named is None):
            return False
        if self._named is not None:
            self._begin(self._named)
            self._end()
        self._held.clear()
        return True

    def _broke_off(self, word: str) -> Scan[bool]:
        """Whether the text ended inside this word."""
        return (yield from self._peek()) == END and word.startswith("".join(self._held).strip())

    def _word(self, words: list[str]) -> Scan[str | None]:
        """One of the words, if it comes next; of anything else one character is taken, and as many as fitted."""
        for at in count():
            ahead = yield from self._peek()
            words = [word for word in words if ahead != END and word[at] == ahead]
            if words or (at == 0 and ahead != END):
                self._take()
            if not words:
                return None
            if len(words[0]) == at + 1:
                return words[0]
        raise AssertionError  # words end

    def _call(self) -> Scan[bool]:
        """The call after its opening word; False if it is none, and then all of it is still held."""
        self._named = None
        return (yield from self._tagged() if self._style.key is None else self._object())

    def _tagged(self) -> Scan[bool]:
        name = ""
        while (ahead := (yield from self._peek())) != ">":
            name += ahead
            if ahead == END or not any(known.startswith(name) for known in self._names):
                return False
            self._take()
        if name not in self._names:
            return False
        self._named = name
        self._take()
        yield from self._blanks()
        if (yield from self._peek()) == "{":
            yield from self._value(self._begin(name))
        elif (yield from self._word([self._style.closes])):
            self._give(self._begin(name), "{}")
        else:
            return False
        self._end()
        return True

    def _object(self) -> Scan[bool]:
        """An object with the name and the arguments, in any order."""
        yield from self._blanks()
        if (yield from self._peek()) != "{":
            return False
        name = arguments = index = None
        ahead = ","
        while ahead == ",":
            self._take()  # the brace or the comma
            key = yield from self._key()
            if key == "name" and name is None:
                name = yield from self._text()
                if name not in self._names:
                    return False
                self._named = name
            elif key in _ARGUMENTS and arguments is None:
                if (yield from self._peek()) != "{":
                    return False
                index = self._begin(name) if name is not None else None
                arguments = yield from self._value(index)
            elif key in _OTHERS or index is not None:
                yield from self._value()
            else:
                return False
            if index is None and name is not None and arguments is not None:
                index = self._begin(name)
                self._give(index, arguments)
            yield from self._blanks()
            ahead = yield from self._peek()
        if ahead == "}" and index is None and name is not None and not self._style.bare:
            index = self._begin(name)
            self._give(index, "{}")
        if index is None:
            return False
        if ahead == "}":
            self._take()
            self._held.clear()
        self._end()
        return True

    def _key(self) -> Scan[str | None]:
        """A key with its colon, and the white space around them; None if something else comes."""
        yield from self._blanks()
        key = yield from self._text()
        yield from self._blanks()
        if key is None or (yield from self._peek()) != ":":
            return None
        self._take()
        yield from self._blanks()
        return key

    def _text(self) -> Scan[str | None]:
        """A JSON string's text; None if something else comes."""
        if (yield from self._peek()) != '"':
            return None
        try:
            return str(json.loads((yield from self._value())))
        except ValueError:
            return None

    def _value(self, index: int | None = None) -> Scan[str]:
        """A JSON value as it is written, by its quotes and brackets; given as it comes to the call `index`."""
        depth, quoted, escaped = 0, False, False
        written: list[str] = []
        while (ahead := (yield from self._peek())) != END:
            outside = not quoted and depth == 0
            if not quoted and (ahead == self._style.closes[0] or (outside and (ahead in ",:}]" or ahead.isspace()))):
                break  # no JSON has the closing word's first character here, so the value is broken off
            if ahead == '"' and not escaped:
                quoted = not quoted
            if not quoted:
                depth += (ahead in "{[") - (ahead in "}]")
            escaped = quoted and ahead == "\\" and not escaped
            self._take()
            written.append(ahead)
            if index is not None:
                self._held.clear()
                self._give(index, ahead)
            if depth == 0 and not quoted and ahead in '"}]':
                break
        return "".join(written)

    # What the text turned out to be.

    def _say(self) -> None:
        """All that is held is content."""
        if self._held:
            text = "".join(self._held)
            self._held.clear()
            last = self._events[-1] if self._events else None
            if isinstance(last, Content):
                self._events[-1] = Content(last.text + text)
            else:
                self._events.append(Content(text))

    def _begin(self, name: str) -> int:
        """All that is held belongs to a call."""
        self._held.clear()
        self._events.append(CallBegun(self.n_calls, self._make_id(), name))
        self.n_calls += 1
        return self.n_calls - 1

    def _give(self, index: int, text: str) -> None:
        last = self._events[-1] if self._events else None
        if isinstance(last, Arguments):
            self._events[-1] = Arguments(index, last.text + text)
        else:
            self._events.append(Arguments(index, text))

    def _end(self) -> None:
        """The call is over; what is held came in its place and is content."""
        self._events.append(CallEnded(self.n_calls - 1))
        self._say()
