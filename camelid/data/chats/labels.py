"""What people said of a pair beside which answer they prefer: how much better it is, and which answers are safe."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from camelid.data.chats.examples import GRADES
from camelid.data.chats.records import MisfitError

_GRADES = {re.sub(r"\W+", " ", grade): grade for grade in GRADES}
_GRADES |= {f"negligibly better{word}unsure": "negligibly better" for word in (" ", " or ")} | {"unsure": GRADES[3]}
_BOTH = {"safe": True, "unsafe": False}
_SAFETY = {f"both{words} {name}": (value, value) for name, value in _BOTH.items() for words in ("", " responses are")}
_SAFETY |= {
    f"{first} safe{between}{other} unsafe": (True, False)
    for first in ("chosen", "the preferred response is", "preferred")
    for between, other in ((" ", "other"), (" ", "rejected"), (" and ", "other"), (" and ", "rejected"))
} | {"the preferred response is safe and the other response is not": (True, False)}
_DROPPED = {words.replace("unsafe", "?").replace("safe", "unsafe").replace("?", "safe") for words in _SAFETY}
_DROPPED = {words for words in _DROPPED if "both" not in words}


def grade_of(record: Mapping[str, Any]) -> str | None:
    """The grade in Llama 2's words (arXiv:2307.09288, section 3.2.1); None if nobody said.

    Raises:
        MisfitError: it is none of these.
    """
    value = record.get("grade")
    if value is None or value == "":
        return None
    words = re.sub(r"[\W_]+", " ", str(value)).strip().lower()
    if words not in _GRADES:
        raise MisfitError(f"unknown grade {str(value)[:40]!r}")
    return _GRADES[words]


def safety_of(record: Mapping[str, Any]) -> tuple[bool | None, bool | None]:
    """Whether the chosen and the rejected answer are safe: `chosen_safe` and `rejected_safe`, or `safety` in the
    paper's words, as "chosen safe, other unsafe", "both safe", "both unsafe".

    Raises:
        MisfitError: it is none of these, or the chosen answer is unsafe and the other safe, which Llama 2 leaves out.
    """
    given = record.get("safety")
    if isinstance(given, str) and given:
        words = re.sub(r"[\W_]+", " ", given).strip().lower()
        if words in _DROPPED:
            raise MisfitError(_WRONG_WAY)
        if words not in _SAFETY:
            raise MisfitError(f"unknown safety label {given[:40]!r}")
        return _SAFETY[words]
    chosen, rejected = _flag(record, "chosen_safe"), _flag(record, "rejected_safe")
    if chosen is False and rejected is True:
        raise MisfitError(_WRONG_WAY)
    return chosen, rejected


_WRONG_WAY = "the chosen answer is unsafe and the other safe"


def _flag(record: Mapping[str, Any], name: str) -> bool | None:
    value = record.get(name)
    if value is None or isinstance(value, bool):
        return value
    raise MisfitError(f"{name} is not true or false")
