r"""Makes `camelid/tokens/csrc/unicode_table.h`: classes of code points, as the `tokenizers` library sees them.

    python -m tests.tokens.unicode_table > camelid/tokens/csrc/unicode_table.h

The library is asked about every code point, so that our cutting agrees with it and not with another version of Unicode.
A test does the same and compares. Its expressions (`\p{L}`) and its `Digits` know different versions of Unicode.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
from tokenizers import Regex, normalizers, pre_tokenizers

# The bits of a class; `csrc/text.h` has the same.
BITS = {
    r"\p{L}": 1,
    r"\p{N}": 2,
    r"\s": 4,
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]": 8,
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]": 16,
    r"\p{P}": 32,
    r"[\r\n]": 128,
}
DIGITS = 64
ALL = [code for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF]


def classes() -> bytes:
    """The class of each code point; surrogates have none."""
    found = np.zeros(sys.maxunicode + 1, np.uint8)
    everything = "".join(map(chr, ALL))
    for expression, bit in BITS.items():
        unmatched = normalizers.Replace(Regex(f"{expression}+"), "").normalize_str(everything)
        found[_codes(everything)] |= bit
        found[_codes(unmatched)] &= 255 - bit
    alone = {part for part, _ in _digits_apart(everything) if len(part) == 1}
    for part, _ in _digits_apart("a".join(["", *alone, ""])):
        if part in alone:
            found[ord(part)] |= DIGITS
    return bytes(found)


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), "<u4")


def _digits_apart(text: str) -> list[tuple[str, tuple[int, int]]]:
    return pre_tokenizers.Digits(individual_digits=True).pre_tokenize_str(text)


def header() -> str:
    """The file's text: where each run of equal classes begins, and its class."""
    lines = [
        "// Made by tests/tokens/unicode_table.py; do not edit. First code point << 8 | class, for each run.",
        "#pragma once",
        "#include <cstdint>",
        "",
        "namespace camelid {",
        "inline constexpr uint32_t CLASS_RUNS[] = {",
        *_rows(classes()),
        "};",
        "}  // namespace camelid",
    ]
    return "\n".join(lines) + "\n"


def _rows(found: bytes) -> Iterator[str]:
    starts = [code for code in range(len(found)) if code == 0 or found[code] != found[code - 1]]
    words = [f"0x{code << 8 | found[code]:x}," for code in starts]
    row = ""
    for word in words:
        if len(row) + len(word) > 118:
            yield row
            row = ""
        row += word
    yield row


if __name__ == "__main__":
    sys.stdout.write(header())
