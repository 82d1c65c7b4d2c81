"""Personal details in a text: e-mail addresses, telephone numbers, IP addresses; marked, masked, or a reason to drop.

Patterns, masks and the limit of five are Dolma's (Soldaini and others 2024, https://arxiv.org/abs/2402.00159); that
private addresses count for nothing is datatrove's rule, and what is no telephone number WIMBD's (Elazar and others
2024, https://arxiv.org/abs/2310.20707).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from camelid.data.document import Document
from camelid.data.stage_stats import StageStats
from camelid.data.word_hashes import Words
from camelid.options import Options

Kind = Literal["email", "phone", "ip"]

MASKS: dict[Kind, str] = {
    "email": "|||EMAIL_ADDRESS|||",
    "phone": "|||PHONE_NUMBER|||",
    "ip": "|||IP_ADDRESS|||",
}
# Parts have limits and begin where no such character stands before, so that time is linear on any text.
_EMAIL = re.compile(
    r"(?<![\w.%+-])[A-Za-z0-9_.%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w@])", re.ASCII
)
_PHONE = re.compile(r"(?<![\w.+/-])(?:\+?1[-. ]?)?(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-. ]\d{4}(?![\w-]|\.\d)", re.ASCII)
_IP = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)", re.ASCII)
# Quick looks that rule most texts out: a pattern that begins with a character is searched for much faster.
_LIKE_PHONE, _LIKE_IP = (
    re.compile(r"[0-9]{3}\)? ?[-. ]?[0-9]{3}[-. ][0-9]{4}"),
    re.compile(r"\.[0-9]{1,3}\.[0-9]{1,3}\."),
)
_NO_PHONE = re.compile(r"isbn|issn|doi|#|https?:|www\.", re.IGNORECASE)
_BEFORE = 50  # characters in which a word such as ISBN tells that a number is no telephone's


@dataclass(frozen=True, slots=True)
class Detail:
    """A personal detail at text[start:end]."""

    kind: Kind
    start: int
    end: int


class Pii(Options):
    """Personal details."""

    action: Literal["mark", "mask"] = Field("mask", description="Note places in the metadata, or write masks instead.")
    kinds: tuple[Kind, ...] = Field(("email", "phone", "ip"), description="What to look for.")
    most: int | None = Field(5, ge=0, description="Documents with more are dropped.")


def find_pii(text: str, kinds: tuple[Kind, ...] = ("email", "phone", "ip")) -> list[Detail]:
    """Personal details in their order; none overlaps another."""
    details = sorted((detail for kind in kinds for detail in _FINDERS[kind](text)), key=lambda detail: detail.start)
    return [detail for i, detail in enumerate(details) if not i or details[i - 1].end <= detail.start]


def pii(document: Document, words: Words, options: Pii, stats: StageStats) -> Document | str:
    """Mark or mask personal details; drop a document with many."""
    details = find_pii(document.text, options.kinds)
    if options.most is not None and len(details) > options.most:
        return f"more than {options.most} personal details"
    if not details:
        return document
    for detail in details:
        stats.change(f"{detail.kind} {options.action}ed")
    if options.action == "mark":
        return document.with_meta(pii=[[detail.kind, detail.start, detail.end] for detail in details])
    return document.with_text(mask(document.text, details))


def mask(text: str, details: list[Detail]) -> str:
    """The text with `MASKS` for details, which do not overlap."""
    parts, at = [], 0
    for detail in details:
        parts += [text[at : detail.start], MASKS[detail.kind]]
        at = detail.end
    return "".join([*parts, text[at:]])


def _emails(text: str) -> Iterator[Detail]:
    if "@" in text:
        for match in _EMAIL.finditer(text):
            yield Detail("email", match.start(), match.end())


def _phones(text: str) -> Iterator[Detail]:
    if not _LIKE_PHONE.search(text):
        return
    for match in _PHONE.finditer(text):
        if not _NO_PHONE.search(text, max(0, match.start() - _BEFORE), match.start()):
            yield Detail("phone", match.start(), match.end())


def _ips(text: str) -> Iterator[Detail]:
    if not _LIKE_IP.search(text):
        return
    for match in _IP.finditer(text):
        if _is_public(match.group()):
            yield Detail("ip", match.start(), match.end())


def _is_public(address: str) -> bool:
    """Not 127.0.0.1, 192.168.…, a netmask or a version number with a 0 before a digit."""
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


_FINDERS = {"email": _emails, "phone": _phones, "ip": _ips}
