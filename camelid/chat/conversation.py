"""A conversation that can be changed while it goes on: turns, a system prompt, and the commands that begin with /."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from camelid.chat.llama import Llama
from camelid.chat.results import Delta
from camelid.engine.request import SamplingParams
from camelid.errors import OptionError, ResourceError, one_of
from camelid.files import whole_file
from camelid.streams import read_text
from camelid.tokens.templates.chat_format import Message


class Conversation:
    """Messages so far, and the sampling choices for the next answer."""

    def __init__(self, llama: Llama, params: SamplingParams, system: str | None = None) -> None:
        self.llama, self.params, self.system = llama, params, system
        self.turns: list[Message] = []  # user and assistant, in turn

    @property
    def messages(self) -> list[Message]:
        """The system message, if there is one, and the turns."""
        first = [Message("system", self.system)] if self.system else []
        return first + self.turns

    def ask(self, text: str) -> Iterator[Delta]:
        """Answer a new user message; the turn is kept when the answer ends, or as far as it came if stopped."""
        question = Message("user", text)
        deltas = self.llama.stream_chat([*self.messages, question], self.params)
        return self._keep(question, deltas)

    def again(self) -> Iterator[Delta]:
        """Answer the last user message anew.

        Raises:
            OptionError: nothing was asked yet.
        """
        if len(self.turns) < 2 or self.turns[-2].role != "user":
            raise OptionError("/regenerate: nothing was asked yet")
        before = self.turns[-2:]
        del self.turns[-2:]
        try:
            deltas = self.llama.stream_chat([*self.messages, before[0]], self.params)
        except BaseException:
            self.turns += before
            raise
        return self._keep(before[0], deltas, before)

    def _keep(self, question: Message, deltas: Iterator[Delta], before: Sequence[Message] = ()) -> Iterator[Delta]:
        """Deltas; then the turn is kept, or if there was none the one `before`."""
        parts: list[str] = []
        try:
            for delta in deltas:
                parts.append(delta.text)
                yield delta
        finally:
            self.turns += [question, Message("assistant", "".join(parts))] if parts else before

    def save(self, path: Path) -> None:
        """Write the messages as JSON.

        Raises:
            ResourceError: the place cannot be written.
        """
        text = json.dumps([{"role": m.role, "content": m.text} for m in self.messages], ensure_ascii=False, indent=1)
        try:
            with whole_file(path) as file:
                file.write(text.encode() + b"\n")
        except OSError as error:
            raise ResourceError(f"{path}: cannot be written: {error.strerror}; choose another place") from None

    def read(self, path: Path) -> None:
        """Take the messages of a saved conversation.

        Raises:
            OptionError: the file cannot be read or is not a conversation.
        """
        try:
            rows = json.loads(read_text(path))
            messages = [Message(str(row["role"]), str(row["content"])) for row in rows]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            why = str(error).removeprefix(f"{path}: ")
            raise OptionError(f"{path}: not a saved conversation: {why}") from None
        self.system = messages.pop(0).text if messages and messages[0].role == "system" else None
        self.turns = messages


def _set(conversation: Conversation, words: str) -> str:
    name, _, value = words.partition(" ")
    if not value:
        raise OptionError("/set: wants a name and a value, for example /set temperature 0")
    conversation.params = conversation.params.with_(**{name.replace("-", "_"): _number(value)})
    return f"{name} is {value}"


def _number(value: str) -> object:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _system(conversation: Conversation, words: str) -> str:
    conversation.system = words or None
    return "system prompt set" if words else "system prompt removed"


def _reset(conversation: Conversation, words: str) -> str:
    conversation.turns.clear()
    return "a new conversation"


def _undo(conversation: Conversation, words: str) -> str:
    del conversation.turns[-2:]
    return f"{len(conversation.turns) // 2} turns left"


def _save(conversation: Conversation, words: str) -> str:
    if not words:
        raise OptionError("/save: wants a file name, for example /save talk.json")
    conversation.save(Path(words).expanduser())
    return f"saved to {words}"


def _load(conversation: Conversation, words: str) -> str:
    conversation.read(Path(words).expanduser())
    return f"{len(conversation.turns) // 2} turns read from {words}"


# name → (what it does, its function); /regenerate, /help and /exit belong to the terminal
COMMANDS: dict[str, tuple[str, Callable[[Conversation, str], str]]] = {
    "system": ("TEXT sets the system prompt, nothing removes it", _system),
    "set": ("NAME VALUE changes a sampling option, as /set temperature 0", _set),
    "reset": ("forget the turns, keep the system prompt", _reset),
    "undo": ("forget the last turn", _undo),
    "save": ("FILE writes the conversation as JSON", _save),
    "load": ("FILE goes on with a saved conversation", _load),
}


def command(conversation: Conversation, line: str) -> str:
    """Run a command line such as `/system Be brief.`; returns what to tell the user.

    Raises:
        OptionError: no such command, or it cannot do what it is asked.
    """
    name, _, words = line.removeprefix("/").partition(" ")
    if name not in COMMANDS:
        raise OptionError(f"/{name}: no such command; {one_of(name, [*COMMANDS, 'regenerate', 'help', 'exit'])}")
    return COMMANDS[name][1](conversation, words.strip())
