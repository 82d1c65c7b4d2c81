"""What an answer looks like, counted: its length and its Markdown, for style control."""

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
    answers = [message["content"] for message in conversation if message["role"] == "assistant"]
    return (
        np.sum([count_style(each) for each in answers], axis=0, dtype=np.float64) if answers else np.zeros(len(STYLE))
    )


def has_style(battles: Battles) -> bool:
    """The log has the columns that style control needs."""
    return all(name in battles.numbers for name in STYLE)


def add_style(battles: Battles, texts: Iterable[Texts]) -> Battles:
    """Battles with the columns of `STYLE`, (N, 2) each, counted from their texts, which are found by the battles' ids.

    Raises:
        OptionError: battles without ids, or without a text.
    """
    if len(battles.ids) != len(battles):
        raise OptionError("style: battles of this log have no ids, so their texts cannot be found", param="style")
    places = {str(name): place for place, name in enumerate(battles.ids)}
    counted = np.full((len(battles), 2, len(STYLE)), np.nan)
    known: dict[Any, NDArray[np.float64]] = {}
    for each in texts:
        if (place := places.get(each.id)) is not None:
            for side, conversation in enumerate((each.conversation_a, each.conversation_b)):
                key = tuple((message["role"], message["content"]) for message in conversation)
                if key not in known:
                    known[key] = style_of(conversation)
                counted[place, side] = known[key]
    if missing := int(np.isnan(counted[:, 0, 0]).sum()):
        raise OptionError(f"style: {missing} of {len(battles)} battles have no text in this log", param="style")
    columns = {name: np.ascontiguousarray(counted[:, :, k]) for k, name in enumerate(STYLE)}
    return replace(battles, numbers={**battles.numbers, **columns})
