"""TOML as recipes use it, written: tables, lists of tables, and plain values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def to_toml(values: Mapping[str, Any]) -> str:
    """Text that `tomllib` reads as the same values; what is None is left out, for TOML has no word for it."""
    return "\n".join(_lines(values, ())) + "\n"


def _lines(values: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    given = {name: value for name, value in values.items() if value is not None}
    tables = {name: value for name, value in given.items() if isinstance(value, Mapping) or _is_tables(value)}
    for name, value in given.items():
        if name not in tables:
            yield f"{_key(name)} = {_value(value)}"
    for name, value in tables.items():
        own = (*path, _key(name))
        for table in [value] if isinstance(value, Mapping) else value:
            yield ""
            yield f"[{'.'.join(own)}]" if isinstance(value, Mapping) else f"[[{'.'.join(own)}]]"
            yield from _lines(table, own)


def _is_tables(value: Any) -> bool:
    return isinstance(value, Sequence) and bool(value) and all(isinstance(one, Mapping) for one in value)


def _key(name: str) -> str:
    plain = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if plain else json.dumps(name, ensure_ascii=False)


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(one) for one in value)}]"
    if isinstance(value, float):
        return repr(value)  # inf and nan are TOML's words too
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
