"""What SentencePiece does to text before it cuts it: its table of replacements for characters, and runs of spaces.

The table (`precompiled_charsmap`) is a double array as darts-clone writes it, then texts that end in a zero. At each
place the longest entry counts. Source: normalizer.cc of SentencePiece.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from camelid.errors import FormatError
from camelid.tokens.vocabulary import SPACE, Vocabulary

_TOP = 1 << 31


class SentencePieceText:
    """A text, and whether it begins the whole, to the text that is cut.

    Raises:
        FormatError: the vocabulary's table is damaged.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._prefix = SPACE if vocabulary.space_prefix else ""
        self._collapses = vocabulary.collapses
        self._units, self._texts = _table(vocabulary.source, vocabulary.charsmap)
        symbols = [text.encode() for text in vocabulary.symbols()]
        self._symbols = re.compile(b"|".join(map(re.escape, sorted(symbols, key=len, reverse=True))) or b"(?!)")

    def __call__(self, text: str, prefix: bool) -> str:
        """Normalised text, with ▁ for spaces; `prefix`: it begins the whole, so spaces there go and one comes."""
        out, after_space = [], self._collapses and prefix
        for part in self._parts(text.encode()):
            shown = part.lstrip(" ") if after_space else part
            if shown:
                out.append(shown)
                after_space = self._collapses and shown.endswith(" ")
        if not out:
            return ""
        whole = "".join(out).replace(" ", SPACE)
        whole = self._prefix + whole if prefix else whole
        return whole.rstrip(SPACE) if self._collapses else whole

    def _parts(self, data: bytes) -> Iterator[str]:
        """The text piece by piece, replaced; SentencePiece's own symbols stay as they are."""
        if not self._units:
            yield from re.findall(" |[^ ]+", data.decode())
            return
        at = 0
        while at < len(data):
            symbol = self._symbols.match(data, at)
            if symbol:
                yield symbol.group().decode()
                at = symbol.end()
                continue
            length, text = self._longest(data, at)
            if not length:
                lead = data[at]
                length = 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
                text = data[at : at + length].decode()
            yield text
            at += length

    def _longest(self, data: bytes, start: int) -> tuple[int, str]:
        """Bytes that the longest entry covers at a place, and what stands for them; 0 if there is none."""
        units, longest = self._units, (0, -1)
        unit = units[0]
        node = _offset(unit)
        for at in range(start, len(data)):
            node ^= data[at]
            if node >= len(units) or units[node] & (_TOP | 0xFF) != data[at]:
                break
            unit = units[node]
            node ^= _offset(unit)
            if unit >> 8 & 1 and node < len(units):
                longest = at + 1 - start, units[node] & (_TOP - 1)
        length, place = longest
        if not length:
            return 0, ""
        return length, self._texts[place : self._texts.find(b"\0", place)].decode("utf-8", "replace")


def _offset(unit: int) -> int:
    return (unit >> 10) << ((unit & 1 << 9) >> 6)


def _table(source: str, charsmap: bytes) -> tuple[list[int], bytes]:
    if not charsmap:
        return [], b""
    size = int.from_bytes(charsmap[:4], "little")
    if size % 4 or not 4 <= size <= len(charsmap) - 4 or not charsmap.endswith(b"\0"):
        raise FormatError(f"{source}: the table of replacements is damaged; fetch it again")
    return np.frombuffer(charsmap, "<u4", size // 4, 4).tolist(), charsmap[4 + size :]
