"""Conversations become ids. Control tokens are placed as ids, so what a person typed can never become one.

`FORMATS` holds the formats of the family, for files that bring no template; `template_format` runs a model's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from camelid.errors import OptionError, one_of
from camelid.tokens.guard_format import encode_guard
from camelid.tokens.jinja_template import Template
from camelid.tokens.message import Message
from camelid.tokens.tokenizer import Tokenizer

__all__ = ["FORMATS", "ChatFormat", "Message", "choose_format", "template_format"]

Ids = list[int]


@dataclass(frozen=True)
class ChatFormat:
    """How a conversation becomes ids that end where the assistant's answer begins.

    Attributes:
        name: key of `FORMATS`, or `template`.
        render: tokenizer and messages to ids.
        ends: control tokens that end an answer.
        needs: control tokens without which the format cannot be written.
        jinja: the same format as a template, for files that other programs open; None where there is none.
    """

    name: str
    render: Callable[[Tokenizer, Sequence[Message]], Ids]
    ends: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    jinja: str | None = None

    def encode(self, tokenizer: Tokenizer, messages: Sequence[Message]) -> Ids:
        """The ids of a conversation, up to the opening of the assistant's turn.

        Raises:
            OptionError: the tokenizer lacks the format's control tokens, or the conversation does not fit the format.
        """
        if not messages:
            raise OptionError("messages: there are none; give at least one")
        for token in self.needs:
            if token not in tokenizer.special_ids:
                fitting = [name for name, row in FORMATS.items() if all(n in tokenizer.special_ids for n in row.needs)]
                raise OptionError(
                    f"chat format {self.name!r} needs the token {token}, which this model does not have; "
                    f"its vocabulary fits: {', '.join(fitting) or 'none'}"
                )
        return self.render(tokenizer, messages)

    def stop_ids(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        """Ids that end an answer in this format, of those that the tokenizer has."""
        found = [tokenizer.special_ids[token] for token in self.ends if token in tokenizer.special_ids]
        if self.ends == _SENTENCEPIECE_END and tokenizer.eos_id is not None:
            found.append(tokenizer.eos_id)
        return tuple(dict.fromkeys(found))


_SENTENCEPIECE_END = ("</s>",)
_LLAMA2_MARKS = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")


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
            raise OptionError(
                f"chat format {name!r}: message {place + 1} must be the {wanted[place % 2]}'s, got {message.role!r}; "
                "it goes system (if any), user, assistant, user …"
            )
    if len(turns) % 2 == 0:
        raise OptionError(f"chat format {name!r}: the last message must be the user's")
    return system, [message.content for message in turns]


def _need_bos(tokenizer: Tokenizer, name: str) -> int:
    if tokenizer.bos_id is None:
        raise OptionError(f"chat format {name!r} needs a token that begins a text, which this model does not have")
    return tokenizer.bos_id


def _llama2(tokenizer: Tokenizer, messages: Sequence[Message]) -> Ids:
    """Llama 2 chat: BOS and EOS around every finished pair, the system text inside the first question."""
    system, turns = _alternating(messages, "llama2")
    for message in messages:
        for mark in _LLAMA2_MARKS:
            if mark in message.content:
                raise OptionError(f"chat format 'llama2': a message holds {mark}, which would break out; take it out")
    if system is not None:
        turns = [f"<<SYS>>\n{system}\n<</SYS>>\n\n{turns[0]}", *turns[1:]]
    bos, eos = _need_bos(tokenizer, "llama2"), tokenizer.eos_id
    if eos is None:
        raise OptionError("chat format 'llama2' needs a token that ends a text, which this model does not have")
    ids: Ids = []
    for question, answer in zip(turns[:-1:2], turns[1::2], strict=True):
        ids += [bos, *tokenizer.encode(f"[INST] {question.strip()} [/INST] {answer.strip()} "), eos]
    return [*ids, bos, *tokenizer.encode(f"[INST] {turns[-1].strip()} [/INST]")]


def _codellama70b(tokenizer: Tokenizer, messages: Sequence[Message]) -> Ids:
    """Code Llama Instruct 70B: pieces are encoded one by one, as Meta's code does; joined, ids would differ."""
    system, turns = _alternating(messages, "codellama70b")
    step = tokenizer.special_ids["<step>"]
    ids: Ids = [_need_bos(tokenizer, "codellama70b")]
    roles = ["system"] + ["user", "assistant"] * len(turns)
    for role, content in zip(roles, [system or "", *turns], strict=False):
        ids += tokenizer.encode(f" Source: {role}" + ("\nDestination: user" if role == "assistant" else ""))
        if content:
            ids += tokenizer.encode(f"\n\n {content.strip()}")
        ids.append(step)
    return [*ids, *tokenizer.encode(" Source: assistant\nDestination: user"), *tokenizer.encode("\n\n ")]


def _llama3(tokenizer: Tokenizer, messages: Sequence[Message]) -> Ids:
    """Llama 3: a header with the role, a blank line, the content, an end; tools answer as `ipython`."""
    special = tokenizer.special_ids
    ids: Ids = [special["<|begin_of_text|>"]]

    def header(role: str) -> Ids:
        name = "ipython" if role == "tool" else role
        opened = [special["<|start_header_id|>"], *tokenizer.encode_segment(name), special["<|end_header_id|>"]]
        return [*opened, *tokenizer.encode_segment("\n\n")]

    for message in messages:
        # Meta's code encodes the blank line with the content's beginning apart; so do we.
        ids += [*header(message.role), *tokenizer.encode_segment(message.content.strip()), special["<|eot_id|>"]]
    return ids + header("assistant")


def _chatml(tokenizer: Tokenizer, messages: Sequence[Message]) -> Ids:
    """ChatML: `<|im_start|>` role, line, content, `<|im_end|>`, line."""
    start, end = tokenizer.special_ids["<|im_start|>"], tokenizer.special_ids["<|im_end|>"]
    ids: Ids = []
    for message in messages:
        ids += [start, *tokenizer.encode_segment(f"{message.role}\n{message.content}"), end]
        ids += tokenizer.encode_segment("\n")
    return [*ids, start, *tokenizer.encode_segment("assistant\n")]


_LLAMA3_NEEDS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_LLAMA3_ENDS = ("<|end_of_text|>", "<|eot_id|>")
_CHATML_NEEDS = ("<|im_start|>", "<|im_end|>")

_LLAMA3_JINJA = (
    "{{ bos_token }}{% for message in messages %}"
    "{% set role = 'ipython' if message['role'] == 'tool' else message['role'] %}"
    "{{ '<|start_header_id|>' + role + '<|end_header_id|>\\n\\n'"
    " + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
_CHATML_JINJA = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_LLAMA2_JINJA = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must go user, assistant, user …') }}{% endif %}"
    "{% set content = system + message['content'] if loop.first else message['content'] %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + content | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)


def _guard(generation: str) -> Callable[[Tokenizer, Sequence[Message]], Ids]:
    return partial(encode_guard, generation)


FORMATS: dict[str, ChatFormat] = {
    row.name: row
    for row in (
        ChatFormat("llama2", _llama2, _SENTENCEPIECE_END, jinja=_LLAMA2_JINJA),
        ChatFormat("codellama", _llama2, _SENTENCEPIECE_END, jinja=_LLAMA2_JINJA),
        ChatFormat("codellama70b", _codellama70b, ("<step>",), ("<step>",)),
        ChatFormat("llama3", _llama3, _LLAMA3_ENDS, _LLAMA3_NEEDS, _LLAMA3_JINJA),
        ChatFormat("llama3.1", _llama3, (*_LLAMA3_ENDS, "<|eom_id|>"), (*_LLAMA3_NEEDS, "<|eom_id|>"), _LLAMA3_JINJA),
        ChatFormat("chatml", _chatml, ("<|im_end|>",), _CHATML_NEEDS, _CHATML_JINJA),
        ChatFormat("guard1", _guard("guard1"), _SENTENCEPIECE_END),
        ChatFormat("guard2", _guard("guard2"), _LLAMA3_ENDS, _LLAMA3_NEEDS),
        ChatFormat("guard3", _guard("guard3"), (*_LLAMA3_ENDS, "<|eom_id|>"), _LLAMA3_NEEDS),
        ChatFormat("guard3-1b", _guard("guard3-1b"), (*_LLAMA3_ENDS, "<|eom_id|>"), _LLAMA3_NEEDS),
    )
}


def choose_format(tokenizer: Tokenizer, template: str | None, name: str | None) -> ChatFormat:
    """The format named, else the model's own template.

    Raises:
        OptionError: no such format, or neither a name nor a template is given.
        FormatError: the template is not one.
    """
    if name is not None:
        if name not in FORMATS:
            raise OptionError(f"chat format: {name!r} is none; {one_of(name, FORMATS)}")
        return FORMATS[name]
    if template is None:
        raise OptionError(
            f"chat format: this model brings no template; if it was tuned to chat, name its format with --chat-format: "
            f"{', '.join(FORMATS)}"
        )
    return template_format(tokenizer, template)


def template_format(tokenizer: Tokenizer, template: str) -> ChatFormat:
    """A model's own Jinja template as a format.

    Raises:
        FormatError: it is not a template.
    """
    compiled = Template(template)

    def render(tokenizer: Tokenizer, messages: Sequence[Message]) -> Ids:
        return _render_template(compiled, tokenizer, messages)

    ends = tuple(token for token in ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<step>") if token in template)
    if tokenizer.eos_id is not None:
        ends = (*ends, tokenizer.piece(tokenizer.eos_id))
    return ChatFormat("template", render, ends, jinja=template)


# Noncharacters of Unicode: never in real text, and never in a control token.
_MARKS = [chr(code) for code in range(0xFDD0, 0xFDF0)]


def _render_template(template: Template, tokenizer: Tokenizer, messages: Sequence[Message]) -> Ids:
    """Render to text, then cut at control tokens; what looks like one in a message is broken by a mark meanwhile."""
    special = sorted(tokenizer.special_ids, key=len, reverse=True)
    control = re.compile("|".join(re.escape(text) for text in special) or "(?!)")
    written = "".join(message.role + message.content for message in messages)
    mark = next((mark for mark in _MARKS if mark not in written), None)
    if mark is None:
        raise OptionError("messages: hold every noncharacter of Unicode; take one of U+FDD0 to U+FDEF out")

    def broken(text: str) -> str:
        return control.sub(lambda found: found[0][0] + mark + found[0][1:], text)

    names = {
        role: _piece(tokenizer, id) for role, id in (("bos_token", tokenizer.bos_id), ("eos_token", tokenizer.eos_id))
    }
    rows = [{"role": broken(message.role), "content": broken(message.content)} for message in messages]
    text = template.render(rows, **names)
    ids: Ids = []
    at = 0
    for found in [*control.finditer(text), None]:
        segment = text[at : found.start() if found else len(text)].replace(mark, "")
        if segment:
            ids += tokenizer.encode_segment(segment) if ids else tokenizer.encode(segment)
        if found:
            ids.append(tokenizer.special_ids[found[0]])
            at = found.end()
    if len(ids) > 1 and ids[0] == ids[1] == tokenizer.bos_id:
        raise OptionError(
            "chat template: begins the text twice; the model's files are wrong, name a chat format instead"
        )
    return ids


def _piece(tokenizer: Tokenizer, id: int | None) -> str:
    return "" if id is None else tokenizer.piece(id)
