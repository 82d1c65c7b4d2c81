"""A rendered template becomes ids, while what a person typed stays text.

A template gives one text, in which control tokens are written out. So before rendering, whatever looks like the start
of a control token in a message or a tool is broken by a mark, a noncharacter of Unicode that occurs nowhere; after
rendering, the text is cut at the control tokens that are whole, and the marks are taken out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from camelid.errors import OptionError
from camelid.tokens.templates.jinja_template import Template
from camelid.tokens.templates.message import Message
from camelid.tokens.tokenizer import Tokenizer

# What ends a turn in the templates of the family.
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|eot|>", "<step>", "<end_of_turn>")
_MARKS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
_ROLES = ("bos", "eos", "unk", "pad")
_MOST_LOOKED_FOR = 8  # a template is rendered for each


def template_ids(
    template: Template,
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] = (),
    continues: bool = False,
) -> list[int]:
    """The ids of a conversation by a model's own template; BOS only where the template writes it.

    Args:
        template: compiled.
        tokenizer: the model's.
        messages: the conversation; arguments of calls that are JSON objects reach the template as such.
        tools: what the model may call, as OpenAI's API describes functions.
        continues: end inside the last message, where its content ends; else behind the opening of an answer.

    Raises:
        OptionError: the last message cannot be continued, the template refuses the conversation, begins it with BOS
            twice, makes a control token of what was typed, or looks into words that had to be broken.
        FormatError: the template runs too long or makes too much text.
    """
    special = tokenizer.special_ids
    control = tuple(sorted(filter(None, special), key=len, reverse=True))
    whole, starts, firsts = _patterns(control, ())
    end = _free_mark(template.source, _plain(messages, tools)) if continues else ""
    plain = _plain(_open_ended(messages, end) if continues else messages, tools)
    names: dict[str, Any] = {f"{role}_token": _text(tokenizer, getattr(tokenizer, f"{role}_id")) for role in _ROLES}
    names["add_generation_prompt"] = not continues
    try:
        mark = _free_mark(template.source, plain)
        marked, careful = (_broken(plain, found, mark) for found in (starts, firsts))
        text = template.render(**marked, **names)
        if marked != plain and text.replace(mark, "") != (unmarked := template.render(**plain, **names)):
            # It counts, cuts, searches or escapes such words, so with marks in them it says something else.
            shown = [text for text in control if tokenizer.token_bytes(special[text])]
            kept = _looked_for(template, plain, marked, mark, control, shown, names)
            marked, careful = (
                _with_answers(one, plain, found, mark)
                for one, found in zip((marked, careful), _patterns(control, kept)[1:], strict=True)
            )
            text = template.render(**marked, **names)
            if text.replace(mark, "") != unmarked:
                raise OptionError(
                    "chat template: looks into words of a message that read like a control token; "
                    "change their angle brackets"
                )
    except RecursionError:
        raise OptionError("tools: a description or a call is nested too deep; flatten it", param="tools") from None
    if careful != marked:
        # A template can take words out of a message; what is left then must not have become a control token.
        made = whole.findall(text)
        if made != whole.findall(template.render(**careful, **names)):
            raise OptionError("chat template: makes a control token of a part of a message; remove its angle brackets")
    if continues:
        text = _up_to(text, end, mark, messages[-1].content)
    ids = tokenizer.encode_marked(text, mark)
    if tokenizer.bos_id is not None and ids[:2] == [tokenizer.bos_id] * 2:
        raise OptionError("chat template: begins with BOS twice; the model's files are wrong, name a chat format")
    return ids


@lru_cache(maxsize=8)
def _patterns(
    control: tuple[str, ...], kept: tuple[str, ...]
) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """What finds, in this order: whole control tokens (longest first); in a message, where one could begin, by its
    first two characters, or by the first at the end; and by the first character alone. The last two find whole tokens
    of `kept` too, in a group of this name."""
    pairs = sorted({token[:2] for token in control}, key=len, reverse=True)
    singles = sorted({token[0] for token in control})
    starts = [*map(re.escape, pairs), *(re.escape(one) + r"(?=\s*\Z)" for one in singles)]
    left = f"(?P<kept>{'|'.join(map(re.escape, kept)) or '(?!)'})"
    ways = ([*map(re.escape, control)], [left, *starts], [left, *map(re.escape, singles)])
    whole, begins, firsts = (re.compile("|".join(way) or "(?!)") for way in ways)
    return whole, begins, firsts


def _plain(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Messages and tools as templates expect them, which is how transformers takes them."""
    return {"messages": [_row(message) for message in messages], "tools": list(tools) or None}


def _row(message: Message) -> dict[str, Any]:
    row: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        row["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": _parsed(call.arguments)}}
            for call in message.tool_calls
        ]
    named = {"tool_call_id": message.tool_call_id, "name": message.name}
    return row | {key: value for key, value in named.items() if value is not None}


def _parsed(arguments: str) -> Any:
    """Arguments as the object that they are, else as the text."""
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments


def _broken(value: Any, starts: re.Pattern[str], mark: str) -> Any:
    """The same, with the mark in every text, however deep, where a control token could begin."""
    if isinstance(value, str):
        return starts.sub(lambda found: found["kept"] or found[0][0] + mark + found[0][1:], value)
    if isinstance(value, Mapping):
        return {_broken(key, starts, mark): _broken(inner, starts, mark) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_broken(inner, starts, mark) for inner in value]
    return value


def _looked_for(
    template: Template,
    plain: dict[str, Any],
    marked: dict[str, Any],
    mark: str,
    control: tuple[str, ...],
    shown: Sequence[str],
    names: Mapping[str, Any],
) -> tuple[str, ...]:
    """Tokens that the file calls text (`shown`) and that the template searches answers for, as it does for `</think>`.

    An answer holds them by right, and the template takes them out or writes them; all others stay broken.
    """
    answers = [message["content"] for message in plain["messages"] if message["role"] == "assistant"]
    there = [token for token in shown if any(token in answer for answer in answers)]
    if len(there) > _MOST_LOOKED_FOR:
        return ()
    without = template.render(**marked, **names).replace(mark, "")
    found = []
    for token in there:
        kept = _with_answers(marked, plain, _patterns(control, (token,))[1], mark)
        if template.render(**kept, **names).replace(mark, "") != without:
            found.append(token)
    return tuple(found)


def _with_answers(broken: dict[str, Any], plain: dict[str, Any], starts: re.Pattern[str], mark: str) -> dict[str, Any]:
    """The same, with the assistant's messages broken by another pattern."""
    pairs = zip(broken["messages"], plain["messages"], strict=True)
    rows = [_broken(as_is, starts, mark) if as_is["role"] == "assistant" else row for row, as_is in pairs]
    return {**broken, "messages": rows}


def _open_ended(messages: Sequence[Message], end: str) -> list[Message]:
    """The conversation, with a sign behind the last content and a space that shows whether the template trims."""
    if messages[-1].tool_calls:
        raise OptionError(
            "messages: the last one calls tools, so it cannot be continued; add the tools' answers", param="messages"
        )
    return [*messages[:-1], replace(messages[-1], content=f"{messages[-1].content}{end} ")]


def _up_to(text: str, end: str, mark: str, content: str) -> str:
    """What was rendered up to the sign; where the template trims, the content's last blanks go, as in transformers."""
    before, found, behind = text.rpartition(end)
    before = before if behind.startswith(" ") else before.rstrip()
    if not found or not before.replace(mark, "").rstrip().endswith(content.strip()):
        raise OptionError(
            "messages: the last one cannot be continued, the chat template changes it or leaves it out; "
            "end with a message of the user",
            param="messages",
        )
    return before


def _free_mark(source: str, plain: dict[str, Any]) -> str:
    written = {*source, *json.dumps(plain, ensure_ascii=False)}
    for mark in _MARKS:
        if mark not in written:
            return mark
    raise OptionError("messages: hold every noncharacter from U+FDD0 to U+FDEF; take one out", param="messages")


def _text(tokenizer: Tokenizer, id: int | None) -> str:
    return "" if id is None else tokenizer.piece(id)
