"""Vocabulary: what every tokenizer file holds, in one form; readers make it, writers and the backend take it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

Kind = Literal["sentencepiece", "bpe"]

# The types of a piece, numbered as in SentencePiece's model file and in GGUF.
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)

SPACE = "▁"  # how SentencePiece writes a space inside a piece
_INFILL = {"▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"}
_LOOKS_CONTROL = re.compile(r"<\|[^|\s]+\|>")


@dataclass(frozen=True)
class Splitter:
    """How a byte-level tokenizer changes and cuts text before merging: two parts of a tokenizer.json, and a switch.

    Attributes:
        normalizer: JSON of the normaliser, or None.
        pre_tokenizer: JSON of the pre-tokenizer.
        ignore_merges: a word that is itself in the vocabulary becomes that id, whatever the merges say.
    """

    normalizer: Mapping[str, Any] | None
    pre_tokenizer: Mapping[str, Any] | None
    ignore_merges: bool = False


@dataclass(frozen=True)
class Vocabulary:
    """Pieces by id with what is needed to use them.

    Attributes:
        kind: sentencepiece (pieces are text, ▁ for a space) or bpe (pieces are bytes in GPT-2's alphabet).
        pieces: by id; a hole is an `UNUSED` piece that no text gives.
        types: NORMAL … BYTE, by id.
        merges: pairs of pieces, best first.
        scores: by id, for SentencePiece; the higher, the earlier merged. None if the file has only merges.
        splitter: for bpe; for sentencepiece only where a tokenizer.json changes text otherwise than a Llama's does.
        space_prefix: for sentencepiece: a text starts with a space that decoding drops again.
        doubles_space: that space is put there even if the text starts with one, as SentencePiece does.
        prefix_once: only the beginning of a text gets that space; otherwise what follows an added token does too.
        collapses: for sentencepiece: runs of spaces become one, and those at the ends of a text none.
        charsmap: for sentencepiece: its compiled table of replacements for characters; empty for none.
        unigram: for sentencepiece: the likeliest cut by `scores` is looked for, nothing is merged.
        flags: added tokens: id → lstrip, rstrip, single_word, normalized where they are true. A `USER` piece of a
            sentencepiece vocabulary that is not here is one of SentencePiece's own symbols.
        outside: added tokens that are no pieces of the model, so that merging never gives them.
        shown: control tokens that a chat template writes and the file calls text: in answers they have their text.
        extra: further ids by GGUF's name, for example `eot_token_id`.
        source: the file, for messages.
    """

    kind: Kind
    pieces: Sequence[str]
    types: Sequence[int]
    merges: Sequence[tuple[str, str]]
    scores: Sequence[float] | None = None
    splitter: Splitter = Splitter(None, None)
    space_prefix: bool = False
    doubles_space: bool = True
    prefix_once: bool = False
    collapses: bool = False
    charsmap: bytes = b""
    unigram: bool = False
    bos_id: int | None = None
    eos_id: int | None = None
    unk_id: int | None = None
    pad_id: int | None = None
    adds_bos: bool = False
    adds_eos: bool = False
    flags: Mapping[int, Mapping[str, bool]] = field(default_factory=dict)
    shown: frozenset[int] = frozenset()
    outside: frozenset[int] = frozenset()
    extra: Mapping[str, int] = field(default_factory=dict)
    source: str = "tokenizer"

    def symbols(self) -> dict[str, int]:
        """SentencePiece's own user-defined symbols, text → id: it looks for them after the space at the beginning."""
        if self.kind == "bpe":
            return {}
        ids = [id for id, kind in enumerate(self.types) if kind == USER and id not in self.flags]
        return {self.pieces[id]: id for id in reversed(ids) if self.pieces[id]}


def protected(types: Sequence[int], pieces: Sequence[str], ids: Sequence[int | None]) -> list[int]:
    """`types` with more control pieces: `ids`, Code Llama's infill pieces, and user pieces that look like <|this|>.

    Files are careless about the type of such pieces, and text that a user types must never become one of them.
    """
    safe = list(types)
    users = [id for id, kind in enumerate(types) if kind == USER and _LOOKS_CONTROL.fullmatch(pieces[id])]
    infill = [id for id, piece in enumerate(pieces) if piece in _INFILL and types[id] in (NORMAL, USER)]
    for id in (*users, *infill):
        safe[id] = CONTROL
    for role in ids:
        if role is not None and safe[role] in (NORMAL, USER, UNUSED):
            safe[role] = CONTROL
    return safe


@cache
def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-in for each of the 256 bytes: character → byte.

    Bytes that are printable in Latin-1 stand for themselves; the others take the characters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    alphabet |= {chr(0x100 + n): byte for n, byte in enumerate(others)}
    return alphabet


@cache
def byte_characters() -> str:
    """The 256 characters of `byte_alphabet`, by byte."""
    return "".join(sorted(byte_alphabet(), key=byte_alphabet().__getitem__))


def spell_bytes(data: bytes) -> str:
    """Bytes in GPT-2's alphabet."""
    return data.decode("latin-1").translate(_latin_to_alphabet())


@cache
def _latin_to_alphabet() -> dict[int, str]:
    return dict(enumerate(byte_characters()))
