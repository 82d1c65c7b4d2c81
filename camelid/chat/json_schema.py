"""JSON schemas that become forms: what cannot be kept exactly is refused, with its place, before anything is written.

llguidance compiles them. Its numbers are float64 and its `oneOf` knows few kinds of disjoint choices, so numbers are
checked here, and a `oneOf` whose choices are disjoint becomes an `anyOf`. Keywords that only describe are dropped.
JSON Schema 2020-12 is meant; `jsonschema` is the test's oracle.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from math import lcm
from typing import Any

from camelid.chat.json_disjoint import Resolver, may_both_match
from camelid.errors import OptionError, one_of

TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
FORMATS = ("date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid")
MOST_DEPTH = 64
EXACT = 2**53  # whole numbers up to here are their own float64
MOST_INTEGER = 2**63 - 1  # what llguidance counts with
MOST_DIVISOR = 100_000  # an automaton has so many states
_PLAIN = re.compile(r"[A-Za-z_$][\w$-]*", re.ASCII)

SCHEMA, SCHEMAS, NAMED, WHOLE, NUMBER, OTHER = range(6)  # what a keyword holds
KEYWORDS = {
    "items": SCHEMA,  # a list of them before 2020-12
    "additionalItems": SCHEMA,
    "additionalProperties": SCHEMA,
    "anyOf": SCHEMAS,
    "oneOf": SCHEMAS,
    "allOf": SCHEMAS,
    "prefixItems": SCHEMAS,
    "properties": NAMED,
    "patternProperties": NAMED,
    "$defs": NAMED,
    "definitions": NAMED,
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), WHOLE),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), NUMBER),
    **dict.fromkeys(("type", "enum", "const", "required", "pattern", "format", "$ref"), OTHER),
}
REFUSED = (  # keywords that would change what is valid
    *("not", "if", "then", "else", "contains", "minContains", "maxContains", "uniqueItems", "propertyNames"),
    *("dependentRequired", "dependentSchemas", "dependencies", "unevaluatedItems", "unevaluatedProperties"),
    *("$dynamicRef", "$recursiveRef", "$id", "$anchor", "$dynamicAnchor"),
)


class SchemaError(OptionError):
    """A schema is wrong, or cannot be kept exactly."""


def checked_schema(text: str, place: str) -> dict[str, Any]:
    """A schema that llguidance keeps exactly, from its JSON.

    Args:
        place: what messages call the schema; the path inside follows it.

    Raises:
        SchemaError: it is not a schema, or not supported.
    """
    try:
        schema = json.loads(text, parse_float=lambda digits: _float(digits, place), parse_constant=_no_number)
    except SchemaError:
        raise
    except RecursionError:
        raise SchemaError(f"{place}: is nested too deep; flatten it", param=place) from None
    except ValueError as error:
        raise SchemaError(f"{place}: not JSON: {error}", param=place) from None
    if not isinstance(schema, dict):
        raise SchemaError(f"{place}: must be a JSON object, got {_kind(schema)}", param=place)
    try:
        json.dumps(schema, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise SchemaError(f"{place}: holds half a character (a lone surrogate); take it out", param=place) from None
    return _Check(schema, place).run()


def _float(digits: str, place: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")) or Decimal(digits) != Decimal(repr(value)):
        raise SchemaError(
            f"{place}: the number {digits[:40]} has more digits than are kept; write a shorter one", param=place
        )
    return value


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is not a number of JSON")


class _Check:
    """One pass over a schema, which makes a copy."""

    def __init__(self, root: dict[str, Any], place: str) -> None:
        self._root, self._place, self._resolver = root, place, Resolver(root)
        self._divisors: dict[Fraction, str] = {}  # of `multipleOf`, and where

    def run(self) -> dict[str, Any]:
        made = self._schema(self._root, self._place, 0)
        assert isinstance(made, dict)
        self._check_divisors()
        return made

    def _schema(self, given: Any, at: str, depth: int) -> dict[str, Any] | bool:
        if isinstance(given, bool):
            return given
        if not isinstance(given, dict):
            raise SchemaError(f"{at}: must be a schema, got {_kind(given)}", param=at)
        if depth > MOST_DEPTH:
            raise SchemaError(f"{self._place}: is nested more than {MOST_DEPTH} deep; flatten it", param=self._place)
        made: dict[str, Any] = {}
        for key, value in given.items():
            if key in REFUSED:
                if (key == "uniqueItems" and value is False) or (key == "$id" and depth == 0):
                    continue
                raise SchemaError(f"{_inside(at, key)}: is not supported; leave it out", param=_inside(at, key))
            if key in KEYWORDS:
                made[key] = self._keyword(key, value, _inside(at, key), depth)
        self._check_type(made, at)
        self._check_together(made, at)
        if isinstance(made.get("items"), list):  # as drafts before 2020-12 have it
            made["prefixItems"], made["items"] = made["items"], made.pop("additionalItems", True)
        return self._as_any_of(made, given, at)

    def _keyword(self, key: str, value: Any, at: str, depth: int) -> Any:
        holds = KEYWORDS[key]
        if key == "items" and isinstance(value, list) and value:
            holds = SCHEMAS
        if holds == SCHEMA:
            return self._schema(value, at, depth + 1)
        if holds == SCHEMAS:
            if not isinstance(value, list) or not value:
                raise SchemaError(f"{at}: must be a list with at least one schema", param=at)
            return [self._schema(item, f"{at}[{index}]", depth + 1) for index, item in enumerate(value)]
        if holds == NAMED:
            if not isinstance(value, dict):
                raise SchemaError(f"{at}: must be an object of schemas, got {_kind(value)}", param=at)
            return {name: self._schema(member, _inside(at, name), depth + 1) for name, member in value.items()}
        if holds == WHOLE:
            return _whole(value, at)
        if holds == NUMBER:
            return self._number(key, value, at)
        check: Mapping[str, Callable[[Any, str], Any]] = {
            "type": _type,
            "enum": _enum,
            "const": _value,
            "required": _names,
            "pattern": _text,
            "format": _text,
            "$ref": self._reference,
        }
        return check[key](value, at)

    def _number(self, key: str, value: Any, at: str) -> int | float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise SchemaError(f"{at}: must be a number, got {_kind(value)}", param=at)
        if key == "multipleOf":
            if value <= 0:
                raise SchemaError(f"{at}: must be above 0, got {value}", param=at)
            self._divisors[_fraction(value)] = at
        return value

    def _reference(self, value: Any, at: str) -> str:
        if not isinstance(value, str) or not value.startswith("#"):
            raise SchemaError(f"{at}: only places inside the schema can be referred to, such as #/$defs/name", param=at)
        if self._resolver.find(value) is None:
            raise SchemaError(f"{at}: there is nothing at {value[:80]}", param=at)
        if not self._resolver.is_schema(value):
            raise SchemaError(f"{at}: {value[:80]} is not the place of a schema; put it under $defs", param=at)
        return value

    def _check_type(self, made: dict[str, Any], at: str) -> None:
        types = made.get("type")
        types = [types] if isinstance(types, str) else types
        if made.get("format") is not None:
            if types is not None and "string" not in types:
                del made["format"]  # formats are of texts
            elif made["format"] not in FORMATS:
                choices = one_of(made["format"], FORMATS)
                raise SchemaError(f"{at}.format: unknown format {made['format']!r}; {choices}", param=f"{at}.format")
        only_integers = types is not None and "number" not in types
        for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
            if key in made:
                _check_bound(made[key], only_integers and not key.startswith("exclusive"), f"{at}.{key}")

    def _check_together(self, made: dict[str, Any], at: str) -> None:
        least = made.get("minProperties", 0)
        if least > 1 and len(set(made.get("required", ()))) < least:  # a name that comes twice would count twice
            message = "is not supported above 1; name the properties in required"
            raise SchemaError(f"{at}.minProperties: {message}", param=f"{at}.minProperties")
        if least > 1:
            del made["minProperties"]

    def _as_any_of(self, made: dict[str, Any], given: dict[str, Any], at: str) -> dict[str, Any]:
        """`oneOf` as `anyOf`, where no value can match two of its choices."""
        if "oneOf" not in made:
            return made
        for first, choice in enumerate(given["oneOf"]):
            for second in range(first + 1, len(given["oneOf"])):
                if may_both_match(choice, given["oneOf"][second], self._resolver):
                    raise SchemaError(
                        f"{at}.oneOf: a value might match both choice {first} and choice {second}; use anyOf, or "
                        "let a required property tell them apart by its const",
                        param=f"{at}.oneOf",
                    )
        choices = made.pop("oneOf")
        if "anyOf" in made:
            made.setdefault("allOf", []).append({"anyOf": choices})
        else:
            made["anyOf"] = choices
        return made

    def _check_divisors(self) -> None:
        """Divisors that one number may meet together count by their least common multiple, as in llguidance."""
        common, scale = 1, 1
        for divisor in self._divisors:
            scale = lcm(scale, _power_of_ten(divisor))
        for divisor, at in self._divisors.items():
            factor = int(divisor * scale)
            if lcm(common, factor) > MOST_DIVISOR or not _keeps(divisor):
                raise SchemaError(
                    f"{at}: is not supported beyond {MOST_DIVISOR}, digits after the point included", param=at
                )
            common = lcm(common, factor)


def _check_bound(value: int | float, is_integer: bool, at: str) -> None:
    most = MOST_INTEGER if is_integer else EXACT
    exact = isinstance(value, float) or value == MOST_INTEGER or int(float(value)) == value
    if abs(value) > most or (is_integer and not exact):
        raise SchemaError(f"{at}: {value} cannot be kept exactly; bounds are exact up to {EXACT}", param=at)


def _value(value: Any, at: str) -> Any:
    """A constant; its numbers must survive as float64."""
    if isinstance(value, dict):
        for name, member in value.items():
            _value(member, _inside(at, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _value(item, f"{at}[{index}]")
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) > EXACT:
        raise SchemaError(
            f"{at}: {value} cannot be kept exactly; whole numbers are exact up to {EXACT}, or as texts", param=at
        )
    return value


def _enum(value: Any, at: str) -> Any:
    if not isinstance(value, list) or not value:
        raise SchemaError(f"{at}: must be a list with at least one value", param=at)
    return _value(value, at)


def _type(value: Any, at: str) -> Any:
    for name in value if isinstance(value, list) and value else [value]:
        if not isinstance(name, str) or name not in TYPES:
            raise SchemaError(f"{at}: unknown type {str(name)[:40]!r}; {one_of(str(name)[:40], TYPES)}", param=at)
    return value


def _names(value: Any, at: str) -> Any:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise SchemaError(f"{at}: must be a list of names", param=at)
    return value


def _text(value: Any, at: str) -> str:
    if not isinstance(value, str):
        raise SchemaError(f"{at}: must be a text, got {_kind(value)}", param=at)
    return value


def _whole(value: Any, at: str) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise SchemaError(f"{at}: must be a whole number from 0 to {2**31 - 1}, got {str(value)[:40]}", param=at)
    return value


def _fraction(value: int | float) -> Fraction:
    return Fraction(Decimal(repr(value)))


def _power_of_ten(value: Fraction) -> int:
    power = 1
    while (value * power).denominator != 1:
        power *= 10
    return power


def _keeps(divisor: Fraction) -> bool:
    """Whether llguidance finds the decimal digits of a divisor: it multiplies a float64 by ten until it is whole."""
    number, power = float(divisor), 1
    while not number.is_integer() and power < 10**20:
        number, power = number * 10, power * 10
    return Fraction(int(number), power) == divisor


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _inside(at: str, name: str) -> str:
    return f"{at}.{name}" if _PLAIN.fullmatch(name) else f"{at}[{json.dumps(name[:40])}]"
