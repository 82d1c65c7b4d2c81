"""Plain data, the only thing that crosses between a program and its test: no object, no code, no pickle.

Numbers, texts, bytes, None, and lists, tuples, sets and dicts of them go by value, what derives from these as what it
derives from. Anything else stays where it is and goes as a number in a table, `{"o": n}`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

MOST_BYTES = 16 << 20  # of one message
_SMALL = 1 << 62

Keep = Callable[[object], Any]


def dumps(value: object, keep: Keep) -> bytes:
    """JSON of `value`; `keep` gives the JSON of what is not plain.

    Raises:
        RecursionError: nested too deeply, or in a circle.
    """
    return json.dumps(_encoded(value, keep), separators=(",", ":")).encode()


def loads(data: bytes, find: Callable[[Any], object]) -> Any:
    """The value of `dumps`; `find` gives what stands for `{"o": …}`.

    Raises:
        ValueError, TypeError, RecursionError: not what `dumps` writes.
    """
    return _decoded(json.loads(data), find)


def _encoded(value: Any, keep: Keep) -> Any:
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        whole = int.__index__(value)
        return whole if -_SMALL < whole < _SMALL else {"i": hex(whole)}
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, list):
        return [_encoded(item, keep) for item in list.__iter__(value)]
    if isinstance(value, dict):
        return {"d": [[_encoded(key, keep), _encoded(item, keep)] for key, item in dict.items(value)]}
    if isinstance(value, tuple):
        return {"t": [_encoded(item, keep) for item in tuple.__iter__(value)]}
    if isinstance(value, set):
        return {"s": [_encoded(item, keep) for item in set.__iter__(value)]}
    if isinstance(value, frozenset):
        return {"z": [_encoded(item, keep) for item in frozenset.__iter__(value)]}
    if isinstance(value, bytes):
        return {"b": bytes.hex(value)}
    if isinstance(value, complex):
        return {"c": [value.real, value.imag]}
    if isinstance(value, Fraction):
        return {"q": [hex(value.numerator), hex(value.denominator)]}
    if isinstance(value, Decimal):
        return {"m": str(value)}
    return keep(value)


def _decoded(value: Any, find: Callable[[Any], object]) -> Any:
    if isinstance(value, list):
        return [_decoded(item, find) for item in value]
    if not isinstance(value, dict):
        return value
    ((tag, inside),) = value.items()
    if tag == "d":
        return {_decoded(key, find): _decoded(item, find) for key, item in inside}
    if tag in "tsz":
        return {"t": tuple, "s": set, "z": frozenset}[tag](_decoded(item, find) for item in inside)
    if tag == "i":
        return int(inside, 16)
    if tag == "b":
        return bytes.fromhex(inside)
    if tag == "c":
        return complex(*inside)
    if tag == "q":
        return Fraction(*(int(part, 16) for part in inside))
    if tag == "m":
        return Decimal(inside)
    if tag == "o":
        return find(inside)
    raise ValueError(f"tag {tag!r}")
