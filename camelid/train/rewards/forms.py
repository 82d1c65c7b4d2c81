"""Rewards for the form of an answer, each a row: 1 where it has it, else 0. `code:NAME`, or `code:NAME:WHAT`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from camelid.errors import OptionError, one_of
from camelid.train.run_stage import CodeReward

_SENTENCE_ENDS = tuple(".!?…。！？")
_CLOSING = "\"'”’»)]}*_`"


@dataclass(frozen=True)
class Form:
    """A check of an answer's text.

    Attributes:
        check: (answer, what was said behind the name) → whether it has the form.
        what: that must be said behind the name, as a person reads it; None: nothing.
        fits: whether something may be said so.
    """

    check: Callable[[str, str], bool]
    what: str | None = None
    fits: Callable[[str], bool] = bool


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(word: str) -> None:
    raise ValueError(word)


def _is_pattern(text: str) -> bool:
    try:
        return bool(re.compile(text))
    except (re.error, RecursionError, OverflowError):
        return False


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit()


FORMS: dict[str, Form] = {
    "contains": Form(lambda answer, what: what in answer, "the text"),
    "lacks": Form(lambda answer, what: what not in answer, "the text"),
    "regex": Form(lambda answer, what: re.search(what, answer) is not None, "the pattern", _is_pattern),
    "most-words": Form(lambda answer, what: len(answer.split()) <= int(what), "a number", _is_count),
    "least-words": Form(lambda answer, what: len(answer.split()) >= int(what), "a number", _is_count),
    "ends-well": Form(lambda answer, what: answer.rstrip().rstrip(_CLOSING).endswith(_SENTENCE_ENDS)),
    "json": Form(lambda answer, what: _is_json(answer)),
}


def form_reward(name: str) -> CodeReward:
    """The check that a name and what stands behind it mean, as `regex:^[0-9]+$`.

    Raises:
        OptionError: there is none of this name, or what it needs is missing or wrong.
    """
    kind, colon, what = name.partition(":")
    if kind not in FORMS:
        raise OptionError(f"reward: no check by code {kind!r}; {one_of(kind, FORMS)}", param="reward")
    form = FORMS[kind]
    if form.what is None and colon:
        raise OptionError(f"reward: code:{kind} needs nothing behind it, got {what!r}", param="reward")
    if form.what is not None and not form.fits(what):
        raise OptionError(f"reward: code:{kind} needs {form.what} behind it, got {what!r}", param="reward")

    def reward(answer: str, about: Mapping[str, Any]) -> float:
        return float(form.check(answer, what))

    return reward


class CodeRewards(Mapping[str, CodeReward]):
    """All rewards by code: those that are handed in, by name, and the forms, by name and what stands behind it.

    Iterating gives names, as a message lists them; a name with something behind it is found too.
    """

    def __init__(self, own: Mapping[str, CodeReward]) -> None:
        self._own = dict(own)

    def __getitem__(self, name: str) -> CodeReward:
        """The check.

        Raises:
            KeyError: there is none. OptionError: what stands behind the name is wrong.
        """
        if name in self._own:
            return self._own[name]
        if name.partition(":")[0] not in FORMS:
            raise KeyError(name)
        return form_reward(name)

    def __contains__(self, name: object) -> bool:
        return name in self._own or (isinstance(name, str) and name.partition(":")[0] in FORMS)

    def __iter__(self) -> Iterator[str]:
        return iter((*self._own, *FORMS))

    def __len__(self) -> int:
        return len(self._own) + len(FORMS)
