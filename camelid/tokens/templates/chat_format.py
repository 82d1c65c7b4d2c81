"""Conversations become ids. Control tokens are placed as ids, so what a person typed can never become one.

`FORMATS` holds the formats of the family, for files that bring no template; `template_format` runs a model's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from camelid.errors import OptionError, one_of
from camelid.tokens.templates import chat_jinja
from camelid.tokens.templates.chat_templates import TOOL_USE
from camelid.tokens.templates.guard_format import encode_guard
from camelid.tokens.templates.jinja_template import Template
from camelid.tokens.templates.message import Message
from camelid.tokens.templates.render import TURN_ENDS, template_ids
from camelid.tokens.templates.tool_styles import Style, style_of, tool_names
from camelid.tokens.tokenizer import Tokenizer

__all__ = ["FORMATS", "ChatFormat", "Message", "choose_format", "template_format"]

Ids = list[int]


@dataclass(frozen=True)
class ChatFormat:
    """How a conversation becomes ids that end where the assistant's answer begins.

    Attributes:
        name: key of `FORMATS`, or `template`.
        render: tokenizer and messages to ids.
        ends: control tokens that end an answer; those that a tokenizer lacks do not count.
        needs: control tokens without which the format cannot be written.
        jinja: the same format as a template, for files that other programs open; None where there is none. Tools and
            calls of tools are written by it alone.
        tool_jinja: the template that is used instead where there are tools.
    """

    name: str
    render: Callable[[Tokenizer, Sequence[Message]], Ids]
    ends: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    jinja: str | None = None
    tool_jinja: str | None = None

    def encode(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] = (),
        continues: bool = False,
    ) -> Ids:
        """The ids of a conversation, up to the opening of the assistant's turn.

        Args:
            tokenizer: the model's.
            messages: the conversation so far.
            tools: functions that the model may call, as OpenAI's API describes them.
            continues: the last message is not finished: the ids end with its content.

        Raises:
            OptionError: the tokenizer lacks the format's control tokens, the conversation does not fit the format, a
                tool is none, or the format has no place for tools.
            FormatError: the model's own template runs too long or makes too much text.
        """
        if not messages:
            raise OptionError("messages: there are none; give at least one", param="messages")
        missing = next((token for token in self.needs if _id(tokenizer, token) is None), None)
        if missing is not None:
            raise OptionError(
                f"chat format {self.name!r} needs the token {missing}, which this model does not have; "
                f"formats that fit its vocabulary: {', '.join(_fitting(tokenizer)) or 'none'}"
            )
        calls = any(message.tool_calls for message in messages)
        if tools or calls:
            tool_names(tools)
            return template_ids(self._with_tools(bool(tools), calls), tokenizer, messages, tools, continues)
        return self._continued(tokenizer, messages) if continues else self.render(tokenizer, messages)

    def _continued(self, tokenizer: Tokenizer, messages: Sequence[Message]) -> Ids:
        if self.jinja is None:
            raise OptionError(f"chat format {self.name!r}: the last message cannot be continued; end with the user's")
        if self.name in FORMATS:  # what this format refuses, as if a question came next
            done = messages[-1].role == "assistant"
            self.render(tokenizer, [*messages, Message("user", "")] if done else messages)
        return template_ids(_compiled(self.jinja), tokenizer, messages, continues=True)

    @property
    def tool_style(self) -> Style | None:
        """How the model writes calls of tools; None if the format has no place for tools, or the style is unknown."""
        jinja = self._jinja_for(tools=True)
        return style_of(jinja) if jinja is not None and "tools" in _compiled(jinja).variables else None

    def _jinja_for(self, tools: bool) -> str | None:
        return self.tool_jinja if tools and self.tool_jinja is not None else self.jinja

    def _with_tools(self, tools: bool, calls: bool) -> Template:
        """The template, if it has a place for tools and for calls of them, as far as there are any."""
        whose = "this model's chat template" if self.name == "template" else f"chat format {self.name!r}"
        jinja = self._jinja_for(tools)
        if self.tool_jinja is not None and (jinja is None or (calls and "tool_calls" not in jinja)):
            jinja = self.tool_jinja
        template = _compiled(jinja) if jinja is not None else None
        if template is None or (tools and "tools" not in template.variables):
            raise OptionError(
                f"tools: {whose} has no place for tools; leave them out or take a model that calls tools", param="tools"
            )
        if calls and "tool_calls" not in template.source:
            raise OptionError(
                f"tool_calls: {whose} has no place for calls of tools; write them as content", param="tool_calls"
            )
        if tools and self.tool_style is None:
            raise OptionError(
                f"tools: {whose} has calls written in a way that is not read here; leave tools out", param="tools"
            )
        return template

    def stop_ids(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        """Ids that end an answer in this format, of those that the tokenizer has."""
        found = (_id(tokenizer, token) for token in self.ends)
        return tuple(dict.fromkeys(id for id in found if id is not None))


def _fitting(tokenizer: Tokenizer) -> list[str]:
    return [name for name, row in FORMATS.items() if all(_id(tokenizer, token) is not None for token in row.needs)]


_STEP = "<step>"
_LLAMA2_MARKS = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")
_CODE_MARKS = (*_LLAMA2_MARKS, _STEP)


def _id(tokenizer: Tokenizer, token: str) -> int | None:
    """The id of a control token. `<step>` counts whatever its type in the file: Meta's code finds it by its piece, and
    messages that hold it are refused."""
    found = tokenizer.special_ids.get(token)
    return tokenizer.id_of(token) if found is None and token == _STEP else found


def _refuse_marks(messages: Sequence[Message], name: str, marks: tuple[str, ...]) -> None:
    """Marks that are ordinary text to the tokenizer would end a turn, so Meta's code refuses messages with them.

    Raises:
        OptionError: a message holds one.
    """
    for number, message in enumerate(messages, start=1):
        for mark in marks:
            if mark in message.content:
                raise OptionError(f"chat format {name!r}: message {number} holds {mark}, which marks turns; remove it")


def _alternating(messages: Sequence[Message], name: str) -> tuple[str | None, list[str]]:
    """The system text, if any, and the contents of user, assistant, user … in turn.

    Raises:
        OptionError: the roles come in another order.
    """
    system = messages[0].content if messages[0].role == "system" else None
    turns = messages[1:] if system is not None else messages
    wanted = ("user", "assistant")
    for place, message in enumerate(turns):
        if message.role != wanted[place % 2]:
            number = place + 1 + (system is not None)
            raise OptionError(
                f"chat format {name!r}: message {number} must be the {wanted[place % 2]}'s, got {message.role!r}; "
                "it goes system (if any), user, assistant, user …"
            )
    if len(turns) % 2 == 0:
        raise OptionError(f"chat format {name!r}: the last message must be the user's")
    return system, [message.content for message in turns]


def _check_roles(messages: Sequence[Message], name: str, roles: tuple[str, ...]) -> None:
    """Roles must be known, and the last turn must not be the assistant's.

    Raises:
        OptionError: they are not.
    """
    for number, message in enumerate(messages, start=1):
        if message.role not in roles:
            raise OptionError(f"chat format {name!r}: message {number}: role {message.role!r}; {_choices(roles)}")
    if messages[-1].role == "assistant":
        raise OptionError(f"chat format {name!r}: the last message is the assistant's; add one to answer")


def _choices(roles: tuple[str, ...]) -> str:
    return f"choices: {', '.join(roles)}"


def _llama2(
    tokenizer: Tokenizer, messages: Sequence[Message], name: str = "llama2", marks: tuple[str, ...] = _LLAMA2_MARKS
) -> Ids:
    """Llama 2 chat: BOS and EOS around every finished pair, the system text inside the first question."""
    system, turns = _alternating(messages, name)
    _refuse_marks(messages, name, marks)
    if system is not None:
        turns = [f"<<SYS>>\n{system}\n<</SYS>>\n\n{turns[0]}", *turns[1:]]
    bos, eos = tokenizer.special_ids["<s>"], tokenizer.special_ids["</s>"]
    ids: Ids = []
    for question, answer in zip(turns[:-1:2], turns[1::2], strict=True):
        ids += [bos, *tokenizer.encode(f"[INST] {question.strip()} [/INST] {answer.strip()} "), eos]
    return [*ids, bos, *tokenizer.encode(f"[INST] {turns[-1].strip()} [/INST]")]


def _codellama70b(tokenizer: Tokenizer, messages: Sequence[Message]) -> Ids:
    """Code Llama Instruct 70B: pieces are encoded one by one, as Meta's code does; joined, ids would differ."""
    system, turns = _alternating(messages, "codellama70b")
    _refuse_marks(messages, "codellama70b", _CODE_MARKS)
    bos, step = tokenizer.special_ids["<s>"], _id(tokenizer, _STEP)
    assert step is not None  # the format needs it
    ids: Ids = [bos]
    roles = ["system"] + ["user", "assistant"] * len(turns)
    for role, content in zip(roles, [system or "", *turns], strict=False):
        ids += tokenizer.encode(f" Source: {role}" + ("\nDestination: user" if role == "assistant" else ""))
        if content:
            ids += tokenizer.encode(f"\n\n {content.strip()}")
        ids.append(step)
    return [*ids, *tokenizer.encode(" Source: assistant\nDestination: user"), *tokenizer.encode("\n\n ")]


def _llama3(tokenizer: Tokenizer, messages: Sequence[Message], name: str = "llama3") -> Ids:
    """Llama 3: a header with the role, a blank line, the content, an end; tools answer as `ipython` (3.1 and later)."""
    tools = ("tool", "ipython") if name == "llama3.1" else ()
    _check_roles(messages, name, ("system", "user", "assistant", *tools))
    special = tokenizer.special_ids
    ids: Ids = [special["<|begin_of_text|>"]]
    for message in messages:
        role = "ipython" if message.role in tools else message.role
        content = tokenizer.encode_segment(message.content.strip())  # apart from the blank line, as Meta's code does
        ids += [*_llama3_header(tokenizer, role), *content, special["<|eot_id|>"]]
    return ids + _llama3_header(tokenizer, "assistant")


def _llama3_header(tokenizer: Tokenizer, role: str) -> Ids:
    special = tokenizer.special_ids
    opened = [special["<|start_header_id|>"], *tokenizer.encode_segment(role), special["<|end_header_id|>"]]
    return opened + tokenizer.encode_segment("\n\n")


def _chatml(tokenizer: Tokenizer, messages: Sequence[Message]) -> Ids:
    """ChatML: `<|im_start|>` role, line, content, `<|im_end|>`, line. No BOS before it."""
    _check_roles(messages, "chatml", ("system", "user", "assistant", "tool"))
    start, end = tokenizer.special_ids["<|im_start|>"], tokenizer.special_ids["<|im_end|>"]
    ids: Ids = []
    for message in messages:
        ids += [start, *tokenizer.encode_segment(f"{message.role}\n{message.content}"), end]
        ids += tokenizer.encode_segment("\n")
    return [*ids, start, *tokenizer.encode_segment("assistant\n")]


_LLAMA2_NEEDS, _LLAMA2_ENDS = ("<s>", "</s>"), ("</s>",)
_LLAMA3_NEEDS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_LLAMA3_ENDS = ("<|end_of_text|>", "<|eot_id|>")
_LLAMA31_NEEDS, _LLAMA31_ENDS = (*_LLAMA3_NEEDS, "<|eom_id|>"), (*_LLAMA3_ENDS, "<|eom_id|>")
_CHATML_NEEDS, _CHATML_ENDS = ("<|im_start|>", "<|im_end|>"), ("<|im_end|>",)

# Code Llama Instruct 7B, 13B and 34B speak as Llama 2 does, and refuse the 70B's mark as well.
_codellama = partial(_llama2, name="codellama", marks=_CODE_MARKS)
FORMATS: dict[str, ChatFormat] = {
    row.name: row
    for row in (
        ChatFormat("llama2", _llama2, _LLAMA2_ENDS, _LLAMA2_NEEDS, chat_jinja.LLAMA2),
        ChatFormat("codellama", _codellama, _LLAMA2_ENDS, _LLAMA2_NEEDS, chat_jinja.LLAMA2),
        ChatFormat("codellama70b", _codellama70b, (_STEP, "</s>"), ("<s>", _STEP)),
        ChatFormat("llama3", _llama3, _LLAMA3_ENDS, _LLAMA3_NEEDS, chat_jinja.LLAMA3),
        ChatFormat("llama3.1", partial(_llama3, name="llama3.1"), _LLAMA31_ENDS, _LLAMA31_NEEDS, chat_jinja.LLAMA31),
        ChatFormat("chatml", _chatml, _CHATML_ENDS, _CHATML_NEEDS, chat_jinja.CHATML),
        ChatFormat("guard1", partial(encode_guard, "guard1"), _LLAMA2_ENDS, _LLAMA2_NEEDS),
        ChatFormat("guard2", partial(encode_guard, "guard2"), _LLAMA3_ENDS, _LLAMA3_NEEDS[:1]),
        ChatFormat("guard3", partial(encode_guard, "guard3"), _LLAMA31_ENDS, _LLAMA3_NEEDS),
        ChatFormat("guard3-1b", partial(encode_guard, "guard3-1b"), _LLAMA31_ENDS, _LLAMA3_NEEDS),
    )
}


@lru_cache(maxsize=8)
def _compiled(template: str) -> Template:
    return Template(template)


def choose_format(
    tokenizer: Tokenizer, template: str | None, name: str | None, named: Mapping[str, str] | None = None
) -> ChatFormat:
    """The format named, else the model's own template. There is no default: a wrong format gives wrong answers.

    Args:
        tokenizer: the model's.
        template: the model's own, if it has one.
        name: a key of `FORMATS`, to be used instead.
        named: further templates of the model's; `tool_use` is used where there are tools, as in transformers.

    Raises:
        OptionError: no such format, or neither a name nor a template is given.
        FormatError: the template is not one.
    """
    if name is not None:
        if name not in FORMATS:
            raise OptionError(f"chat format: {name!r} is none; {one_of(name, FORMATS)}")
        return FORMATS[name]
    if template is None and TOOL_USE not in (named or {}):
        others = f" (it has templates named {', '.join(sorted(named))}, and no default)" if named else ""
        raise OptionError(
            f"chat format: this model brings no template{others}; if it was tuned to chat, name its format; "
            f"choices: {', '.join(FORMATS)}; its vocabulary fits: {', '.join(_fitting(tokenizer)) or 'none'}"
        )
    return template_format(tokenizer, template, (named or {}).get(TOOL_USE))


def template_format(tokenizer: Tokenizer, template: str | None, tool_use: str | None = None) -> ChatFormat:
    """A model's own Jinja template as a format, and the one that it has for conversations with tools.

    Raises:
        FormatError: it is not a template.
    """
    for one in (template, tool_use):
        if one is not None:
            _compiled(one)

    def render(tokenizer: Tokenizer, messages: Sequence[Message]) -> Ids:
        if template is None:
            raise OptionError("chat format: this model brings a template for tools only; name a chat format")
        return template_ids(_compiled(template), tokenizer, messages)

    ends = [token for token in TURN_ENDS if token in (template or "") + (tool_use or "")]
    eos = tokenizer.eos_id
    ends += [text for text, id in tokenizer.special_ids.items() if id == eos]
    return ChatFormat("template", render, tuple(ends), jinja=template, tool_jinja=tool_use)
