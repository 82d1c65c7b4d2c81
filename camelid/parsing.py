"""JSON and TOML that anybody may have written, with bounds on memory, depth and the length of numbers.

The parsers of Python's library have none: 30,000 dotted parts of a key take 3.5 GB, a number of a million digits cannot
be printed, and what is nested deeply breaks whoever walks through it later.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Callable
from typing import Any

MAX_VALUES = 300_000  # of a JSON text; each takes about a hundred bytes of memory
MAX_JSON = 1 << 24  # bytes or characters
MAX_DEPTH = 64
MAX_TOML = 1 << 18  # characters
_MAX_DIGITS = 300  # a float holds no more; tokenizers' files hold 10^30
_MAX_KEY_PARTS = 32
# Longer parts than these: too few fit into MAX_TOML.
_PART = r"""(?:[A-Za-z0-9_-]{1,80}+|"(?:[^"\\\n]|\\.){0,80}+"|'[^'\n]{0,80}+')"""
_LONG_KEY = re.compile(rf"(?<![\w-]){_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{_MAX_KEY_PARTS}}}")


def parse_json(text: bytes | str, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """The value that a JSON text holds; `pairs` makes an object of its members, where a dict will not do.

    Raises:
        ValueError: not JSON, or beyond the bounds; the message says which.
    """
    if len(text) > MAX_JSON:
        raise ValueError(f"{len(text):,} bytes; at most {MAX_JSON:,} are read")
    opened = _count(text, "[") + _count(text, "{")
    if opened + _count(text, ",") > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES:,} values")
    try:
        value = json.loads(text, parse_int=_whole_number, object_pairs_hook=pairs)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if opened > MAX_DEPTH:
        _check(value)
    return value


def once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `parse_json`: an object in which no key stands twice.

    Raises:
        ValueError: one does.
    """
    values = dict(members)
    if len(values) < len(members):
        twice = Counter(name for name, _ in members).most_common(1)[0][0]
        raise ValueError(f"{twice[:80]!r} stands twice")
    return values


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text.

    Raises:
        ValueError: not TOML, or beyond the bounds; the message says which.
    """
    if len(text) > MAX_TOML:
        raise ValueError(f"{len(text):,} characters; at most {MAX_TOML:,} are read")
    if _LONG_KEY.search(text):
        raise ValueError(f"a dotted key of more than {_MAX_KEY_PARTS} parts")
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # of Python's own limit on digits
        raise ValueError(_NOT_64_BITS) from None
    _check(values, bits=64)
    return values


_TOO_DEEP = f"nested more than {MAX_DEPTH} deep"
_NOT_64_BITS = "a whole number of more than 64 bits"


def _count(text: bytes | str, char: str) -> int:
    return text.count(char) if isinstance(text, str) else text.count(char.encode())


def _whole_number(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a whole number of {len(digits):,} digits")
    return int(digits)


def _check(value: Any, bits: int | None = None) -> None:
    """Refuse what lies too deep, and whole numbers of more than `bits` bits with a sign."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
            elif bits and type(item) is int and item.bit_length() >= bits:
                raise ValueError(_NOT_64_BITS)
        level = inner
    if level:
        raise ValueError(_TOO_DEEP)
