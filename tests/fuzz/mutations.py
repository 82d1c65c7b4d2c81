"""Changes that turn a good file into a damaged or a hostile one."""

from __future__ import annotations

import re
import struct
from random import Random

_SCALAR = re.compile(rb'-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|"(?:[^"\\\n]|\\.)*"|true|false|null')
_WORDS = [
    b"1e999", b"-1e999", b"NaN", b"Infinity", b"inf", b"nan", b"1e-320", b"0", b"-1", b"0.5", b"1e308", b"2147483648",
    b"18446744073709551616", b"9" * 50, b"9" * 310, b"9" * 5000, b"0x" + b"f" * 6000, b"1" + b"0" * 12, b"null",
    b"true", b"[]", b"{}", b"[[]]", b"[1, 1]", b'{"a": {"a": 1}}', b'""', b'"a"', b'"\\ud800"', b'"\\u0000"',
    b'"' + b"a" * 300 + b'"', b'"../../etc/passwd"', b'"' + "\u202e\x1b]52;c;aGk=\x07".encode() + b'"', b'"1e9"',
    b"[" * 500 + b"]" * 500, b"[" * 100_000, b'{"a":' * 3000 + b"1" + b"}" * 3000, b".".join([b"a"] * 3000),
    b"[" + b"0," * 3000 + b"0]", b"-0.0", b"1970-01-01", b"1_0",
]  # fmt: skip
_WIDE = [0, 1, 2, 255, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1]


def mutated(data: bytes, chance: Random) -> bytes:
    """`data` changed once to four times."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        data = chance.choice(_TEXT if _is_text(data) else _BINARY)(data, chance)
    return data


def _is_text(data: bytes) -> bool:
    return b"\0" not in data[:4096]


def _flip(data: bytes, chance: Random) -> bytes:
    """A few bytes, often near the beginning, where headers lie."""
    if not data:
        return bytes([chance.randrange(256)])
    changed, reach = bytearray(data), len(data) if chance.random() < 0.4 else min(len(data), 2000)
    for _ in range(chance.randint(1, 6)):
        changed[chance.randrange(reach)] = chance.choice((0, 1, 10, 34, 127, 128, 255, chance.randrange(256)))
    return bytes(changed)


def _span(data: bytes, chance: Random) -> tuple[int, int]:
    start = chance.randrange(len(data) + 1)
    return start, min(len(data), start + chance.choice((1, 2, 8, 40, 400, len(data))))


def _cut(data: bytes, chance: Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _remove(data: bytes, chance: Random) -> bytes:
    start, stop = _span(data, chance)
    return data[:start] + data[stop:]


def _repeat(data: bytes, chance: Random) -> bytes:
    start, stop = _span(data, chance)
    times = chance.choice((2, 3, 1 + 200_000 // (stop - start + 1)))
    return data[:start] + data[start:stop] * times + data[stop:]


def _move(data: bytes, chance: Random) -> bytes:
    start, stop = _span(data, chance)
    rest = data[:start] + data[stop:]
    at = chance.randrange(len(rest) + 1)
    return rest[:at] + data[start:stop] + rest[at:]


def _wide_number(data: bytes, chance: Random) -> bytes:
    """Four or eight bytes become a number at the end of its range."""
    layout = chance.choice(("<I", "<Q"))
    size = struct.calcsize(layout)
    if len(data) < size:
        return data
    at = chance.randrange(min(len(data), chance.choice((200, 4000, len(data)))) - size + 1 or 1)
    number = chance.choice(_WIDE) % 2 ** (8 * size)
    return data[:at] + struct.pack(layout, number) + data[at + size :]


def _scalar(data: bytes, chance: Random) -> bytes:
    """A number, a text or a word of JSON or TOML becomes another."""
    found = list(_SCALAR.finditer(data))
    if not found:
        return _word(data, chance)
    old = chance.choice(found)
    new = chance.choice(_WORDS) if chance.random() < 0.8 else chance.choice(found)[0]
    return data[: old.start()] + new + data[old.end() :]


def _word(data: bytes, chance: Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.choice(_WORDS) + data[at:]


def _line(data: bytes, chance: Random) -> bytes:
    """A line stands twice, or not at all."""
    lines = data.split(b"\n")
    at = chance.randrange(len(lines))
    lines[at : at + 1] = [lines[at]] * chance.choice((0, 2))
    return b"\n".join(lines)


_BINARY = (_flip, _flip, _cut, _remove, _repeat, _move, _wide_number, _wide_number)
_TEXT = (_scalar, _scalar, _scalar, _scalar, _flip, _cut, _remove, _repeat, _move, _word, _line)
