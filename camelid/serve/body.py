"""What bodies of requests have in common.

Before one is read: is it JSON, and small enough to be read beside other requests? Reading JSON takes the interpreter
for itself, and each value becomes an object, so eight megabytes of brackets would hold up everybody for a second.
Counting what stands outside strings takes a few milliseconds. Then: what is not known in one is refused by name, or
dropped and told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, model_validator
from pydantic_core import PydanticCustomError

from camelid.serve.errors import ApiError

IGNORED: ContextVar[list[str] | None] = ContextVar("ignored", default=None)
"""The unknown fields of this request that were dropped; None: they are refused."""

MOST_NAMES = 20  # of ignored fields that are told
MOST_VALUES = 2**18  # numbers, texts and so on; more than the tokens of any context
MOST_TEXTS, MOST_CONTAINERS = 2**16, 2**15  # keys count among the texts
MOST_DEPTH = 200
_LONG_NUMBER = re.compile(rb"[0-9]{400}")
_BRACKETS = re.compile(rb"[\[\]{}]")
_SPACE = b" \t\r\n"
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def check_json(body: bytes, headers: dict[bytes, bytes]) -> None:
    """Refuse what cannot be JSON of a bearable size. Whether it is JSON is seen when it is read.

    Raises:
        ApiError: 415 if it is packed or of another kind, 400 if it holds too much or is no JSON.
    """
    encoding = headers.get(b"content-encoding", b"identity").decode("latin-1").strip().lower()
    if encoding not in ("", "identity"):
        message = f"Content-Encoding: {encoding[:40]} is not supported; send the body as it is"
        raise ApiError(415, message, "unsupported_encoding")
    _check_kind(body, headers.get(b"content-type", b"").decode("latin-1").strip().lower())
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise ApiError(400, f"body: byte {error.start} is not UTF-8; send JSON in UTF-8", "invalid_json") from None
    if b"\0" in body:
        raise ApiError(400, f"body: byte {body.index(0)} is zero; send JSON in UTF-8", "invalid_json")
    _check_size(body)


def _check_kind(body: bytes, kind: str) -> None:
    """Without a kind, and with the one that curl gives by itself, JSON is meant if it looks like it. A page's form of
    that kind cannot look so; one of text/plain could."""
    name = kind.partition(";")[0].strip()
    subtype = name.rpartition("/")[2]
    if not name or subtype == "json" or subtype.endswith("+json"):
        return
    if name == "application/x-www-form-urlencoded" and body.lstrip(_SPACE)[:1] in (b"{", b"["):
        return
    raise ApiError(415, f"Content-Type: {name[:80]} is not supported; send application/json", "unsupported_type")


def _check_size(body: bytes) -> None:
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")  # now each quote begins or ends a text
    n_texts = plain.count(b'"') // 2
    _refuse_more(n_texts, MOST_TEXTS, "texts")
    outside = b"".join(plain.split(b'"')[::2])
    _refuse_more(outside.count(b"[") + outside.count(b"{"), MOST_CONTAINERS, "lists and objects")
    _refuse_more(outside.count(b",") + 1, MOST_VALUES, "values")
    if _LONG_NUMBER.search(outside):
        raise ApiError(400, "body: holds a number of 400 digits or more", "invalid_json")
    depth = deepest = 0
    for bracket in _BRACKETS.findall(outside):
        depth += 1 if bracket in (b"[", b"{") else -1
        deepest = max(deepest, depth)
    _refuse_more(deepest, MOST_DEPTH, "levels")


def _refuse_more(n: int, most: int, things: str) -> None:
    if n > most:
        raise ApiError(400, f"body: has {n} {things}, the limit is {most}; send less at once", "body_too_large")


class Body(BaseModel):
    """A JSON object. A field that is not known here is left out where it says nothing, else refused by its name.

    Null says nothing. In a message and what belongs to it nor do an empty text, list or object: clients send back all
    fields that some other server's answer once had.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    empty_says_nothing: ClassVar[bool] = False

    @model_validator(mode="wrap")
    @classmethod
    def _without_unknown(cls, given: Any, inner: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(given, dict):
            return inner(given)
        known = {field.alias or name for name, field in cls.model_fields.items()}
        made = inner({name: value for name, value in given.items() if name in known})
        ignored = IGNORED.get()
        for name in (name for name in given if name not in known):
            value = given[name]
            if value is None or (cls.empty_says_nothing and _says_nothing(value)):
                continue
            if ignored is None:
                shown = {"name": str(name).encode("ascii", "backslashreplace").decode()}
                raise PydanticCustomError("unknown_field", "is not supported here; leave it out", shown)
            ignored.append(name if _NAME.fullmatch(name) else "other")
        return made


def ignored_header(names: list[str]) -> str:
    """Names of dropped fields, each once, as a header has them."""
    return ", ".join(list(dict.fromkeys(names))[:MOST_NAMES])


def _says_nothing(value: object) -> bool:
    """Whether there is no number, no flag and no text in it."""
    if isinstance(value, Mapping):
        return all(map(_says_nothing, value.values()))
    if isinstance(value, list):
        return all(map(_says_nothing, value))
    return value is None or value == ""
