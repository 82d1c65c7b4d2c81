"""The bytes that pieces of a vocabulary stand for, and the bytes that no piece of it can spell."""

from __future__ import annotations

from camelid.errors import OptionError
from camelid.tokens.merges import mergeable_ids
from camelid.tokens.vocabulary import BYTE, CONTROL, SPACE, UNKNOWN, USER, Vocabulary, byte_alphabet


def is_control(vocabulary: Vocabulary, id: int) -> bool:
    """Whether an id has no text: a control token, unless answers show it."""
    return vocabulary.types[id] in (CONTROL, UNKNOWN) and id not in vocabulary.shown


def spell(vocabulary: Vocabulary, id: int) -> bytes:
    """The bytes that an id adds to a running text; none for control tokens."""
    piece, kind = vocabulary.pieces[id], vocabulary.types[id]
    if is_control(vocabulary, id):
        return b""
    if vocabulary.kind == "sentencepiece":
        return bytes([int(piece[3:5], 16)]) if kind == BYTE else piece.replace(SPACE, " ").encode()
    alphabet = byte_alphabet()
    if kind in (USER, CONTROL) or not all(character in alphabet for character in piece):
        return piece.encode()
    return bytes(alphabet[character] for character in piece)


def absent_bytes(vocabulary: Vocabulary) -> bytes:
    """Bytes of UTF-8 that a vocabulary of bytes cannot spell, which some lack; none for other kinds."""
    if vocabulary.kind == "sentencepiece":
        return b""
    there = {piece for piece in mergeable_ids(vocabulary) if len(piece) == 1}
    return bytes(byte for character, byte in byte_alphabet().items() if character not in there and byte < 0xF5)


def refuse_absent(text: str, absent: bytes) -> None:
    """Refuse a text with one of these bytes.

    Raises:
        OptionError: it has one.
    """
    data = text.encode()
    if not absent or len(data.translate(None, absent)) == len(data):
        return
    lost = next(character for character in text if not set(absent).isdisjoint(character.encode()))
    raise OptionError(f"text: this vocabulary has nothing for U+{ord(lost):04X}; remove it", param="text")


def check_text(text: str) -> None:
    """Refuse a text that has no UTF-8.

    Raises:
        OptionError: it has a lone surrogate.
    """
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise OptionError(
            f"text: lone surrogate U+{code:04X} at character {error.start}; remove it", param="text"
        ) from None
