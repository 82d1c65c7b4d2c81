"""Whether a value can match two JSON schemas: no where it is proved, else yes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TypeGuard
from urllib.parse import unquote

MOST_PAIRS = 20_000  # that are compared for one question; then the answer is yes
_ALL = frozenset({"array", "boolean", "null", "number", "object", "string"})
_HOLDS_SCHEMA = {"items", "additionalItems", "additionalProperties"}
_HOLDS_SCHEMAS = {"anyOf", "oneOf", "allOf", "prefixItems", "items"}
_HOLDS_NAMED = {"properties", "patternProperties", "$defs", "definitions"}


class Resolver:
    """Finds what the references of one document stand for."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root

    def find(self, reference: str) -> Any:
        """The value at a JSON pointer such as `#/$defs/name`; None if there is nothing."""
        at: Any = self._root
        for part in self._parts(reference):
            if isinstance(at, dict) and part in at:
                at = at[part]
            elif isinstance(at, list) and part.isdecimal() and int(part) < len(at):
                at = at[int(part)]
            else:
                return None
        return at

    def is_schema(self, reference: str) -> bool:
        """Whether the place is one where a schema stands, rather than a name or a constant."""
        parts = self._parts(reference)
        while parts:
            key, *parts = parts
            if key in _HOLDS_SCHEMA and not (key == "items" and parts and parts[0].isdecimal()):
                continue
            if key not in _HOLDS_NAMED | _HOLDS_SCHEMAS or not parts:
                return False
            parts = parts[1:]
        return True

    def _parts(self, reference: str) -> list[str]:
        pointer = unquote(reference.removeprefix("#"))
        parts = pointer.split("/")
        if parts[0]:
            return ["$anchor", pointer]  # a name, which nothing here has
        return [part.replace("~1", "/").replace("~0", "~") for part in parts[1:]]


def may_both_match(first: Any, second: Any, resolver: Resolver) -> bool:
    """Whether some value may match both schemas, as far as can be told."""
    return not _Proof(resolver).disjoint(first, second, frozenset())


class _Proof:
    def __init__(self, resolver: Resolver) -> None:
        self._resolver, self._n_pairs = resolver, 0

    def disjoint(self, first: Any, second: Any, seen: frozenset[tuple[int, int]]) -> bool:
        self._n_pairs += 1
        if (id(first), id(second)) in seen or self._n_pairs > MOST_PAIRS:
            return False
        seen |= {(id(first), id(second))}
        if first is False or second is False:
            return True
        if not isinstance(first, dict) or not isinstance(second, dict):
            return False
        for a, b in ((first, second), (second, first)):
            for choices in self._choices(a):
                if all(self.disjoint(choice, b, seen) for choice in choices):
                    return True
        kinds = _kinds(first) & _kinds(second)
        return all(self._disjoint_in(kind, first, second, seen) for kind in kinds)

    def _choices(self, schema: dict[str, Any]) -> Iterator[list[Any]]:
        """Lists of schemas: what matches `schema` matches one of each list."""
        if isinstance(schema.get("$ref"), str):
            yield [self._resolver.find(schema["$ref"])]
        for key in ("anyOf", "oneOf"):
            if isinstance(schema.get(key), list):
                yield schema[key]
        for part in schema.get("allOf") or ():
            yield [part]

    def _disjoint_in(self, kind: str, first: dict[str, Any], second: dict[str, Any], seen: Any) -> bool:
        """Whether no value of this kind matches both."""
        values = _values(first, kind), _values(second, kind)
        if values[0] is not None and values[1] is not None:
            return not values[0] & values[1]
        if kind == "number":
            return _above(first, second) or _above(second, first)
        if kind == "string":
            return _longer(first, second, "Length") or _longer(second, first, "Length")
        if kind == "array":
            return _longer(first, second, "Items") or _longer(second, first, "Items")
        if kind == "object":
            names = {
                name for schema in (first, second) for name in schema.get("required") or () if isinstance(name, str)
            }
            return any(self.disjoint(_property(first, name), _property(second, name), seen) for name in names)
        return False


def _property(schema: dict[str, Any], name: str) -> Any:
    """The schema of one property; True where several may count."""
    own = (schema.get("properties") or {}).get(name)
    if own is not None:
        return own
    return True if schema.get("patternProperties") else schema.get("additionalProperties", True)


def _kinds(schema: dict[str, Any]) -> frozenset[str]:
    """Kinds that values may have; whole numbers are numbers."""
    types = schema.get("type")
    kinds = _ALL
    if types is not None:
        kinds &= {"number" if name == "integer" else name for name in ([types] if isinstance(types, str) else types)}
    for values in (schema.get("enum"), [schema["const"]] if "const" in schema else None):
        if values is not None:
            kinds &= {_kind(value) for value in values}
    return kinds


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    names = {dict: "object", list: "array", str: "string", type(None): "null"}
    return names.get(type(value), "number")


def _values(schema: dict[str, Any], kind: str) -> set[str] | None:
    """All values of a kind, as canonical JSON, where they are listed."""
    if "const" in schema:
        values = [schema["const"]]
    elif "enum" in schema:
        values = schema["enum"]
    elif kind in ("boolean", "null"):
        values = [True, False] if kind == "boolean" else [None]
    else:
        return None
    return {json.dumps(_canonical(value), sort_keys=True) for value in values if _kind(value) == kind}


def _canonical(value: Any) -> Any:
    """1.0 is 1."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    if isinstance(value, dict):
        return {name: _canonical(member) for name, member in value.items()}
    return value


def _above(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether every number of `one` lies above every number of `other`."""
    for low, low_open in ((first.get("minimum"), False), (first.get("exclusiveMinimum"), True)):
        for high, high_open in ((second.get("maximum"), False), (second.get("exclusiveMaximum"), True)):
            if _is_number(low) and _is_number(high) and (low > high or (low == high and (low_open or high_open))):
                return True
    return False


def _longer(first: dict[str, Any], second: dict[str, Any], of: str) -> bool:
    least, most = first.get(f"min{of}"), second.get(f"max{of}")
    return _is_number(least) and _is_number(most) and least > most


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
