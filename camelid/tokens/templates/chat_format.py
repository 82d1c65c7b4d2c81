"""Conversations become ids and a mask. Control tokens are placed as ids, so what a person typed can never become one.

`FORMATS` holds the formats of the family, for files that bring no template; `template_format` runs a model's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import zip_longest
from typing import Any

from camelid.errors import OptionError, one_of
from camelid.tokens.templates import chat_jinja
from camelid.tokens.templates.chat_templates import TOOL_USE
from camelid.tokens.templates.guard_format import write_guard
from camelid.tokens.templates.jinja_template import Template
from camelid.tokens.templates.message import Image, Message, Text, refuse_images
from camelid.tokens.templates.render import TURN_ENDS, render_template
from camelid.tokens.templates.rendered import Rendered, Writer, llama3_header
from camelid.tokens.templates.tool_styles import Style, style_of, tool_names
from camelid.tokens.tokenizer import Tokenizer

__all__ = ["FORMATS", "ChatFormat", "Image", "Message", "Rendered", "Text", "choose_format", "template_format"]

Write = Callable[[Tokenizer, Sequence[Message], bool], Rendered]


@dataclass(frozen=True)
class ChatFormat:
    """How a conversation becomes ids.

    Attributes:
        name: key of `FORMATS`, or `template`.
        write: tokenizer, messages, and whether the assistant's answer is opened behind them, to ids.
        ends: control tokens that end an answer; those that a tokenizer lacks do not count.
        needs: control tokens without which the format cannot be written.
        jinja: the same format as a template, for files that other programs open; None where there is none. Tools and
            calls of tools are written by it alone.
        tool_jinja: the template that is used instead where there are tools.
    """

    name: str
    write: Write
    ends: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    jinja: str | None = None
    tool_jinja: str | None = None

    def render(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> Rendered:
        """A conversation as ids, and which of them an assistant wrote.

        Args:
            tokenizer: the model's.
            messages: the conversation so far; for training, with the assistant's last answer.
            tools: functions that the model may call, as OpenAI's API describes them.
            add_generation_prompt: end behind the opening of the assistant's next turn, else behind the last message.
            continue_final_message: the last message is not finished: end with its content.

        Raises:
            OptionError: the tokenizer lacks the format's control tokens, the conversation does not fit the format, a
                message holds an image, a tool is not a function, or the format has no place for tools.
            FormatError: the model's own template runs too long or makes too much text.
        """
        if not messages:
            raise OptionError("messages: there are none; give at least one", param="messages")
        refuse_images(messages)
        missing = next((token for token in self.needs if _id(tokenizer, token) is None), None)
        if missing is not None:
            raise OptionError(
                f"chat format {self.name!r} needs the token {missing}, which this model does not have; "
                f"formats that fit its vocabulary: {', '.join(_fitting(tokenizer)) or 'none'}"
            )
        template, calls = None, any(message.tool_calls for message in messages)
        if tools or calls:
            tool_names(tools)
            template = self._with_tools(bool(tools), calls)
        elif continue_final_message:
            template = self._continuing(tokenizer, messages)
        if template is None:
            return self.write(tokenizer, messages, add_generation_prompt)
        return render_template(
            template,
            tokenizer,
            messages,
            tools,
            ends=self.ends,
            add_generation_prompt=add_generation_prompt,
            continues=continue_final_message,
        )

    def _continuing(self, tokenizer: Tokenizer, messages: Sequence[Message]) -> Template:
        if self.jinja is None:
            raise OptionError(f"chat format {self.name!r}: the last message cannot be continued; end with the user's")
        if self.name in FORMATS:  # what this format refuses, as if a question came next
            done = messages[-1].role == "assistant"
            self.write(tokenizer, [*messages, Message("user", "")] if done else messages, True)
        return _compiled(self.jinja)

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
        ids = (_id(tokenizer, token) for token in self.ends)
        return tuple(dict.fromkeys(id for id in ids if id is not None))


def _fitting(tokenizer: Tokenizer) -> list[str]:
    return [name for name, row in FORMATS.items() if all(_id(tokenizer, token) is not None for token in row.needs)]


_STEP = "<step>"
_LLAMA2_MARKS = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")
_CODE_MARKS = (*_LLAMA2_MARKS, _STEP)


def _id(tokenizer: Tokenizer, token: str) -> int | None:
    """The id of a control token. `<step>` counts whatever its type in the file: Meta's code finds it by its piece, and
    messages that hold it are refused."""
    id = tokenizer.special_ids.get(token)
    return tokenizer.id_of(token) if id is None and token == _STEP else id


def _refuse_marks(messages: Sequence[Message], name: str, marks: tuple[str, ...]) -> None:
    """Marks that are ordinary text to the tokenizer would end a turn, so Meta's code refuses messages with them.

    Raises:
        OptionError: a message holds one.
    """
    for number, message in enumerate(messages, start=1):
        for mark in marks:
            if mark in message.text:
                raise OptionError(f"chat format {name!r}: message {number} holds {mark}, which marks turns; remove it")


def _alternating(messages: Sequence[Message], name: str, opens: bool) -> tuple[str | None, list[str]]:
    """The system text, if any, and the contents of user, assistant, user … in turn.

    Raises:
        OptionError: the roles come in another order.
    """
    system = messages[0].text if messages[0].role == "system" else None
    turns = messages[1:] if system is not None else messages
    wanted = ("user", "assistant")
    for place, message in enumerate(turns):
        if message.role != wanted[place % 2]:
            number = place + 1 + (system is not None)
            raise OptionError(
                f"chat format {name!r}: message {number} must be the {wanted[place % 2]}'s, got {message.role!r}; "
                "it goes system (if any), user, assistant, user …"
            )
    if not turns or (opens and len(turns) % 2 == 0):
        raise OptionError(f"chat format {name!r}: the last message must be the user's")
    return system, [message.text for message in turns]


def _check_roles(messages: Sequence[Message], name: str, roles: tuple[str, ...], opens: bool) -> None:
    """Roles must be known, and where an answer is opened, the last turn must not be the assistant's.

    Raises:
        OptionError: they are not.
    """
    for number, message in enumerate(messages, start=1):
        if message.role not in roles:
            raise OptionError(
                f"chat format {name!r}: message {number}: role {message.role!r}; {one_of(message.role, roles)}"
            )
    if opens and messages[-1].role == "assistant":
        raise OptionError(f"chat format {name!r}: the last message is the assistant's; add one to answer")


def _llama2(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    opens: bool,
    name: str = "llama2",
    marks: tuple[str, ...] = _LLAMA2_MARKS,
) -> Rendered:
    """Llama 2 chat: BOS and EOS around every finished pair, the system text inside the first question."""
    system, turns = _alternating(messages, name, opens)
    _refuse_marks(messages, name, marks)
    if system is not None:
        turns = [f"<<SYS>>\n{system}\n<</SYS>>\n\n{turns[0]}", *turns[1:]]
    bos, eos = tokenizer.special_ids["<s>"], tokenizer.special_ids["</s>"]
    writer = Writer(tokenizer)
    for question, answer in zip_longest(turns[::2], turns[1::2]):
        writer.add([bos])
        writer.add_text(f"[INST] {question.strip()} [/INST]", "" if answer is None else f" {answer.strip()} ")
        if answer is not None:
            writer.add([eos], answer=True)
    return writer.done()


def _codellama70b(tokenizer: Tokenizer, messages: Sequence[Message], opens: bool) -> Rendered:
    """Code Llama Instruct 70B: pieces are encoded one by one, as Meta's code does; joined, ids would differ."""
    system, turns = _alternating(messages, "codellama70b", opens)
    _refuse_marks(messages, "codellama70b", _CODE_MARKS)
    bos, step = tokenizer.special_ids["<s>"], _id(tokenizer, _STEP)
    assert step is not None  # the format needs it
    writer = Writer(tokenizer)
    writer.add([bos])
    roles = ["system"] + ["user", "assistant"] * len(turns)
    for role, content in zip(roles, [system or "", *turns], strict=False):
        is_answer = role == "assistant"
        writer.add(tokenizer.encode(f" Source: {role}" + ("\nDestination: user" if is_answer else "")))
        if content:
            before, words = ("\n\n ", content.strip()) if is_answer else (f"\n\n {content.strip()}", "")
            writer.add_text(before, words)
        writer.add([step], is_answer)
    if opens:
        writer.add([*tokenizer.encode(" Source: assistant\nDestination: user"), *tokenizer.encode("\n\n ")])
    return writer.done()


def _llama3(tokenizer: Tokenizer, messages: Sequence[Message], opens: bool, name: str = "llama3") -> Rendered:
    """Llama 3: a header with the role, a blank line, the content, an end; tools answer as `ipython` (3.1 and later)."""
    tools = ("tool", "ipython") if name == "llama3.1" else ()
    _check_roles(messages, name, ("system", "user", "assistant", *tools), opens)
    special = tokenizer.special_ids
    writer = Writer(tokenizer)
    writer.add([special["<|begin_of_text|>"]])
    for message in messages:
        writer.add(llama3_header(tokenizer, "ipython" if message.role in tools else message.role))
        content = tokenizer.encode_segment(message.text.strip())  # apart from the blank line, as Meta's code does
        writer.add([*content, special["<|eot_id|>"]], message.role == "assistant")
    if opens:
        writer.add(llama3_header(tokenizer, "assistant"))
    return writer.done()


def _chatml(tokenizer: Tokenizer, messages: Sequence[Message], opens: bool) -> Rendered:
    """ChatML: `<|im_start|>` role, line, content, `<|im_end|>`, line. No BOS before it."""
    _check_roles(messages, "chatml", ("system", "user", "assistant", "tool"), opens)
    start, end = tokenizer.special_ids["<|im_start|>"], tokenizer.special_ids["<|im_end|>"]
    writer = Writer(tokenizer)
    for message in messages:
        is_answer = message.role == "assistant"
        before, said = (f"{message.role}\n", message.text) if is_answer else (f"{message.role}\n{message.text}", "")
        writer.add([start])
        writer.add_text(before, said, segment=True)
        writer.add([end], is_answer)
        writer.add(tokenizer.encode_segment("\n"))
    if opens:
        writer.add([start, *tokenizer.encode_segment("assistant\n")])
    return writer.done()


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
        ChatFormat("guard1", partial(write_guard, "guard1"), _LLAMA2_ENDS, _LLAMA2_NEEDS),
        ChatFormat("guard2", partial(write_guard, "guard2"), _LLAMA3_ENDS, _LLAMA3_NEEDS[:1]),
        ChatFormat("guard3", partial(write_guard, "guard3"), _LLAMA31_ENDS, _LLAMA3_NEEDS),
        ChatFormat("guard3-1b", partial(write_guard, "guard3-1b"), _LLAMA31_ENDS, _LLAMA3_NEEDS),
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
            raise OptionError(f"unknown chat format {name!r}; {one_of(name, FORMATS)}")
        return FORMATS[name]
    if template is None and TOOL_USE not in (named or {}):
        others = f" (it has templates named {', '.join(sorted(named))}, and no default)" if named else ""
        raise OptionError(
            f"chat format: this model brings no template{others}; if it was tuned to chat, name its format; "
            f"{one_of('', FORMATS)}; its vocabulary fits: {', '.join(_fitting(tokenizer)) or 'none'}"
        )
    return template_format(tokenizer, template, (named or {}).get(TOOL_USE))


def template_format(tokenizer: Tokenizer, template: str | None, tool_use: str | None = None) -> ChatFormat:
    """A model's own Jinja template as a format, and the one that it has for conversations with tools.

    Raises:
        FormatError: it is not a template.
    """
    for source in (template, tool_use):
        if source is not None:
            _compiled(source)

    def write(tokenizer: Tokenizer, messages: Sequence[Message], opens: bool) -> Rendered:
        if template is None:
            raise OptionError("chat format: this model brings a template for tools only; name a chat format")
        return render_template(_compiled(template), tokenizer, messages, ends=ends, add_generation_prompt=opens)

    ends = [token for token in TURN_ENDS if token in (template or "") + (tool_use or "")]
    eos = tokenizer.eos_id
    ends += [text for text, id in tokenizer.special_ids.items() if id == eos and text not in ends]
    return ChatFormat("template", write, tuple(ends), jinja=template, tool_jinja=tool_use)
