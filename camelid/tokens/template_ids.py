"""A rendered template becomes ids, while what a person typed stays text.

A template gives one text, in which control tokens are written out. So before rendering, whatever looks like the start
of a control token in a message is broken by a mark, a noncharacter of Unicode that occurs nowhere; after rendering, the
text is cut at the control tokens that are whole, and the marks are taken out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from camelid.errors import OptionError
from camelid.tokens.jinja_template import Template
from camelid.tokens.message import Message
from camelid.tokens.tokenizer import Tokenizer

# What ends a turn in the templates of the family.
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|eot|>", "<step>", "<end_of_turn>")
_MARKS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
_ROLES = ("bos", "eos", "unk", "pad")


def template_ids(template: Template, tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """The ids of a conversation by a model's own template; BOS only where the template writes it.

    Raises:
        OptionError: the template refuses the conversation, begins it with BOS twice, makes a control token of what
            was typed, or looks into words that had to be broken.
        FormatError: the template runs too long or makes too much text.
    """
    control = tuple(sorted(filter(None, tokenizer.special_ids), key=len, reverse=True))
    whole, starts, firsts = _patterns(control)
    mark = _free_mark(template.source, messages)
    names = {f"{role}_token": _text(tokenizer, getattr(tokenizer, f"{role}_id")) for role in _ROLES}
    plain, marked, careful = (_broken(messages, found, mark) for found in (None, starts, firsts))
    text = template.render(marked, **names)
    if marked != plain and text.replace(mark, "") != template.render(plain, **names):
        # It counts, cuts, searches or escapes such words, so with marks in them it says something else than without.
        raise OptionError(
            "chat template: looks into words of a message that read like a control token; change their angle brackets"
        )
    if careful != marked:
        # A template can take words out of a message; what is left then must not have become a control token.
        made = whole.findall(text)
        if made != whole.findall(template.render(careful, **names)):
            raise OptionError("chat template: makes a control token of a part of a message; remove its angle brackets")
    ids = _cut(text, whole, mark, tokenizer)
    if tokenizer.bos_id is not None and ids[:2] == [tokenizer.bos_id] * 2:
        raise OptionError("chat template: begins with BOS twice; the model's files are wrong, name a chat format")
    return ids


@lru_cache(maxsize=8)
def _patterns(control: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """What finds, in this order: whole control tokens (longest first); in a message, where one could begin, by its
    first two characters, or by the first at the end; and by the first character alone."""
    pairs = sorted({token[:2] for token in control}, key=len, reverse=True)
    singles = sorted({token[0] for token in control})
    starts = [*map(re.escape, pairs), *(re.escape(one) + r"(?=\s*\Z)" for one in singles)]
    ways = ([*map(re.escape, control)], starts, [*map(re.escape, singles)])
    whole, begins, firsts = (re.compile("|".join(way) or "(?!)") for way in ways)
    return whole, begins, firsts


def _broken(messages: Sequence[Message], starts: re.Pattern[str] | None, mark: str) -> list[dict[str, str]]:
    def broken(text: str) -> str:
        return text if starts is None else starts.sub(lambda found: found[0][0] + mark + found[0][1:], text)

    return [{"role": broken(message.role), "content": broken(message.content)} for message in messages]


def _cut(text: str, whole: re.Pattern[str], mark: str, tokenizer: Tokenizer) -> list[int]:
    """Cut at control tokens; the text between is encoded as in the middle, or as a start where nothing precedes it."""
    ids: list[int] = []
    at = 0
    for found in [*whole.finditer(text), None]:
        segment = text[at : found.start() if found else len(text)].replace(mark, "")
        if segment:
            starts = not ids or ids[-1] == tokenizer.bos_id
            ids += tokenizer.encode(segment) if starts else tokenizer.encode_segment(segment)
        if found:
            ids.append(tokenizer.special_ids[found[0]])
            at = found.end()
    return ids


def _free_mark(source: str, messages: Sequence[Message]) -> str:
    written = {*source}.union(*({*message.role, *message.content} for message in messages))
    for mark in _MARKS:
        if mark not in written:
            return mark
    raise OptionError("messages: hold every noncharacter from U+FDD0 to U+FDEF; take one out")


def _text(tokenizer: Tokenizer, id: int | None) -> str:
    return "" if id is None else tokenizer.piece(id)
