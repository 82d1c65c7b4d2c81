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
from camelid.tokens.templates.answer_spans import TemplateText, answer_spans, free_marks
from camelid.tokens.templates.jinja_template import Template
from camelid.tokens.templates.message import Message, Text
from camelid.tokens.templates.rendered import Rendered
from camelid.tokens.tokenizer import Tokenizer

# What ends a turn in the templates of the family.
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|eot|>", "<step>", "<end_of_turn>")
_ROLES = ("bos", "eos", "unk", "pad")
_MOST_LOOKED_FOR = 8  # a template is rendered for each


def render_template(
    template: Template,
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] = (),
    *,
    ends: Sequence[str] = (),
    add_generation_prompt: bool = True,
    continues: bool = False,
) -> Rendered:
    """A conversation by a model's own template, as ids; BOS only where the template writes it.

    Args:
        template: compiled.
        tokenizer: the model's.
        messages: the conversation; arguments of calls that are JSON objects reach the template as such.
        tools: what the model may call, as OpenAI's API describes functions.
        ends: control tokens that end an answer, for the mask.
        add_generation_prompt: end behind the opening of an answer.
        continues: end inside the last message, where its content ends.

    Raises:
        OptionError: the last message cannot be continued, the template refuses the conversation, begins it with BOS
            twice, makes a control token of what was typed, or looks into words that had to be broken.
        FormatError: the template runs too long or makes too much text.
    """
    end = free_marks(template.source, _plain(template, messages, tools))[0] if continues else ""
    plain = _plain(template, _open_ended(messages, end) if continues else messages, tools)
    names: dict[str, Any] = {f"{role}_token": _text(tokenizer, getattr(tokenizer, f"{role}_id")) for role in _ROLES}
    names["add_generation_prompt"] = add_generation_prompt and not continues
    try:
        mark = free_marks(template.source, plain)[0]
        marked, text = _safe_text(template, tokenizer, plain, mark, names)
    except RecursionError:
        raise OptionError("tools: a description or a call is nested too deep; flatten it", param="tools") from None
    shown = _up_to(text, end, mark, _last_text(messages)) if continues else text
    ids = tokenizer.encode_marked(shown, mark)
    if tokenizer.bos_id is not None and ids[:2] == [tokenizer.bos_id] * 2:
        raise OptionError("chat template: begins with BOS twice; the model's files are wrong, name a chat format")

    def mask() -> list[bool]:
        there = tuple(token for token in ends if token in tokenizer.special_ids)
        whole = _patterns(_control(tokenizer), ())[0]
        conversation = TemplateText(
            template, marked, names, text, mark, re.compile(f"({whole.pattern})"), there, continues
        )
        return tokenizer.encode_spans(shown, answer_spans(conversation, len(shown.replace(mark, ""))), mark=mark)[1]

    return Rendered(ids, mask)


def _safe_text(
    template: Template, tokenizer: Tokenizer, plain: dict[str, Any], mark: str, names: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """Messages and tools with the mark in whatever could become a control token, and what the template makes of them.

    Raises:
        OptionError: the template says something else with marks than without, or makes a control token by itself.
    """
    special, control = tokenizer.special_ids, _control(tokenizer)
    whole, starts, firsts = _patterns(control, ())
    marked, careful = (_broken(plain, pattern, mark) for pattern in (starts, firsts))
    text = template.render(**marked, **names)
    if marked != plain and text.replace(mark, "") != (unmarked := template.render(**plain, **names)):
        # It counts, cuts, searches or escapes such words, so with marks in them it says something else.
        shown = [text for text in control if tokenizer.token_bytes(special[text])]
        kept = _looked_for(template, plain, marked, mark, control, shown, names)
        marked, careful = (
            _with_answers(broken, plain, pattern, mark)
            for broken, pattern in zip((marked, careful), _patterns(control, kept)[1:], strict=True)
        )
        text = template.render(**marked, **names)
        if text.replace(mark, "") != unmarked:
            raise OptionError(
                "chat template: looks into words of a message that read like a control token; "
                "change their angle brackets"
            )
    if careful != marked:
        # A template can take words out of a message; what is left then must not have become a control token.
        made = whole.findall(text)
        if made != whole.findall(template.render(**careful, **names)):
            raise OptionError("chat template: makes a control token of a part of a message; remove its angle brackets")
    return marked, text


def _control(tokenizer: Tokenizer) -> tuple[str, ...]:
    return tuple(sorted(filter(None, tokenizer.special_ids), key=len, reverse=True))


@lru_cache(maxsize=8)
def _patterns(
    control: tuple[str, ...], kept: tuple[str, ...]
) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """What finds, in this order: whole control tokens (longest first); in a message, where one could begin, by its
    first two characters, or by the first at the end; and by the first character alone. The last two find whole tokens
    of `kept` too, in a group of this name."""
    pairs = sorted({token[:2] for token in control}, key=len, reverse=True)
    singles = sorted({token[0] for token in control})
    starts = [*map(re.escape, pairs), *(re.escape(first) + r"(?=\s*\Z)" for first in singles)]
    left = f"(?P<kept>{'|'.join(map(re.escape, kept)) or '(?!)'})"
    ways = ([*map(re.escape, control)], [left, *starts], [left, *map(re.escape, singles)])
    whole, begins, firsts = (re.compile("|".join(way) or "(?!)") for way in ways)
    return whole, begins, firsts


def _plain(template: Template, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Messages and tools as templates expect them, which is how transformers takes them."""
    return {"messages": [_row(template, message) for message in messages], "tools": list(tools) or None}


def _row(template: Template, message: Message) -> dict[str, Any]:
    content: Any = message.text
    if not isinstance(message.content, str) and template.reads_parts:
        content = [{"type": "text", "text": part.text} for part in message.content if isinstance(part, Text)]
    row: dict[str, Any] = {"role": message.role, "content": content}
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
    answers = json.dumps([row["content"] for row in plain["messages"] if row["role"] == "assistant"])
    there = [token for token in shown if json.dumps(token)[1:-1] in answers]
    if len(there) > _MOST_LOOKED_FOR:
        return ()
    without = template.render(**marked, **names).replace(mark, "")
    searched = []
    for token in there:
        whole = _with_answers(marked, plain, _patterns(control, (token,))[1], mark)
        if template.render(**whole, **names).replace(mark, "") != without:
            searched.append(token)
    return tuple(searched)


def _with_answers(broken: dict[str, Any], plain: dict[str, Any], starts: re.Pattern[str], mark: str) -> dict[str, Any]:
    """The same, with the assistant's messages broken by another pattern."""
    pairs = zip(broken["messages"], plain["messages"], strict=True)
    rows = [_broken(as_is, starts, mark) if as_is["role"] == "assistant" else row for row, as_is in pairs]
    return {**broken, "messages": rows}


def _open_ended(messages: Sequence[Message], end: str) -> list[Message]:
    """The conversation, with a sign behind the last content and a space that shows whether the template trims."""
    last = messages[-1]
    if last.tool_calls:
        raise OptionError(
            "messages: the last one calls tools, so it cannot be continued; add the tools' answers", param="messages"
        )
    text = f"{_last_text(messages)}{end} "
    content = text if isinstance(last.content, str) else [*last.content[:-1], Text(text)]
    return [*messages[:-1], replace(last, content=content)]


def _last_text(messages: Sequence[Message]) -> str:
    """What a conversation ends with: the last content, or its last part."""
    content = messages[-1].content
    return messages[-1].text if isinstance(content, str) else Message("", content[-1:]).text


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


def _text(tokenizer: Tokenizer, id: int | None) -> str:
    return "" if id is None else tokenizer.piece(id)
