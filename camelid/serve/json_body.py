"""A request's body before anything is made of it: is it JSON, and small enough to be read beside other requests?

Reading JSON takes the interpreter for itself, and each value becomes an object, so eight megabytes of brackets would
hold up everybody for a second. Counting what stands outside strings takes a few milliseconds.
"""

from __future__ import annotations

import re

from camelid.serve.errors import ApiError

MOST_VALUES = 2**18  # numbers, texts and so on; more than the tokens of any context
MOST_TEXTS, MOST_CONTAINERS = 2**16, 2**15  # keys count among the texts
MOST_DEPTH = 200
_LONG_NUMBER = re.compile(rb"[0-9]{400}")
_BRACKETS = re.compile(rb"[\[\]{}]")
_SPACE = b" \t\r\n"


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
