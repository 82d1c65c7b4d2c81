"""What texts look like, counted: an answer's length and Markdown for style control, and what categories ask for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from camelid.arena.battles import Battles
from camelid.arena.ratings.covariates import STYLE
from camelid.errors import OptionError

_CODE = re.compile(r"^(```|~~~).*?(^\1|\Z)", re.M | re.S)
_HEADER = re.compile(r"^ {0,3}#{1,6}(?=\s)", re.M)
_ITEM = re.compile(r"^[ \t]*(?:[-*+]|\d{1,9}[.)])(?=[ \t])", re.M)
_BOLD = re.compile(r"\*\*(?=\S).+?(?<=\S)\*\*|(?<!\w)__(?=\S).+?(?<=\S)__(?!\w)")
_ASKED = {"long-query": "prompt_tokens", "exclude-short": "prompt_tokens", "coding": "code"}
_TOKEN = re.compile(r"\w+|[^\w\s]")


class Texts(Protocol):
    """A battle's texts, as `camelid.arena.logs` reads them."""

    @property
    def id(self) -> str: ...
    @property
    def conversation_a(self) -> Sequence[Mapping[str, Any]]: ...
    @property
    def conversation_b(self) -> Sequence[Mapping[str, Any]]: ...


def count_style(text: str) -> tuple[int, int, int, int]:
    """Tokens, headers, list items and bold passages of a text; Markdown in blocks of code is none.

    Tokens are words and marks: no tokenizer is everyone's, and coefficients are of shares, which barely differ.
    """
    prose = _CODE.sub("", text)
    headers, items, bold = (len(kind.findall(prose)) for kind in (_HEADER, _ITEM, _BOLD))
    return len(_TOKEN.findall(text)), headers, items, bold


def style_of(conversation: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    """(4,) counts of `STYLE` over an assistant's messages."""
    return style_of_answers([message["content"] for message in conversation if message["role"] == "assistant"])


def style_of_answers(answers: Sequence[str]) -> NDArray[np.float64]:
    """(4,) counts of `STYLE` over texts."""
    return (
        np.sum([count_style(each) for each in answers], axis=0, dtype=np.float64) if answers else np.zeros(len(STYLE))
    )


def lacking(battles: Battles, style: bool, category: str | None) -> bool:
    """Whether texts must be read for style control, or for a category."""
    wanted = [*(STYLE if style else ()), *((_ASKED[category],) if category in _ASKED else ())]
    return any(name not in battles.numbers for name in wanted)


def add_columns(battles: Battles, texts: Iterable[Texts]) -> Battles:
    """Battles with columns counted from their texts, which are found by the battles' ids.

    The columns: those of `STYLE`, (N, 2); `prompt_tokens`, of the first question, and `code`, 1 where a message of
    either side has a block of code, (N,). Columns that the log has are kept.

    Raises:
        OptionError: battles without ids, or without a text.
    """
    if len(battles.ids) != len(battles):
        raise OptionError("texts: battles of this log have no ids, so their texts cannot be found", param="style")
    places = {str(name): place for place, name in enumerate(battles.ids)}
    counted = np.full((len(battles), 2, len(STYLE)), np.nan)
    asked, code = np.full(len(battles), np.nan), np.full(len(battles), np.nan)
    known: dict[Any, NDArray[np.float64]] = {}
    for each in texts:
        if (place := places.get(each.id)) is None:
            continue
        sides = (each.conversation_a, each.conversation_b)
        for side, conversation in enumerate(sides):
            key = tuple((message["role"], message["content"]) for message in conversation)
            if key not in known:
                known[key] = style_of(conversation)
            counted[place, side] = known[key]
        questions = [message["content"] for message in sides[0] if message["role"] == "user"]
        asked[place] = count_style(questions[0])[0] if questions else 0
        code[place] = any(_CODE.search(message["content"]) for side in sides for message in side)
    if missing := int(np.isnan(code).sum()):
        raise OptionError(f"texts: {missing} of {len(battles)} battles have no text in this log", param="style")
    columns = {name: np.ascontiguousarray(counted[:, :, k]) for k, name in enumerate(STYLE)}
    return replace(battles, numbers={**columns, "prompt_tokens": asked, "code": code, **battles.numbers})
