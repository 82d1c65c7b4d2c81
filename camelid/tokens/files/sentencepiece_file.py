"""SentencePiece's model file, `tokenizer.model` of Llama 1 and 2 and Code Llama ↔ Vocabulary.

The file is a protocol buffer (sentencepiece_model.proto); only the fields that matter to a BPE or unigram model are
known here.
"""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from camelid.errors import FormatError, UnsupportedError
from camelid.tokens.merges import merges_by_score, order_of
from camelid.tokens.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER, Vocabulary, protected

log = logging.getLogger(__name__)

_UNIGRAM, _BPE = 1, 2
_MODEL_TYPES = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}
_ADVICE = "fetch it again"
# Field numbers of the messages.
_PIECE, _TRAINER, _NORMALIZER, _DENORMALIZER = 1, 2, 3, 5
_TEXT, _SCORE, _TYPE = 1, 2, 3
_MODEL_TYPE, _VOCAB_SIZE, _AS_SUFFIX, _BYTE_FALLBACK = 3, 4, 24, 35
_ROLE_IDS = {"unk": 40, "bos": 41, "eos": 42, "pad": 43}
_ROLE_PIECES = {"unk": (45, "<unk>"), "bos": (46, "<s>"), "eos": (47, "</s>"), "pad": (48, "<pad>")}
_NAME, _CHARSMAP, _PREFIX, _REMOVE_SPACES, _ESCAPE_SPACES = 1, 2, 3, 4, 5

Value = int | bytes


def read_sentencepiece(path: Path, data: bytes) -> Vocabulary:
    """The vocabulary of a BPE or unigram model.

    Raises:
        FormatError: damaged.
        UnsupportedError: a model of another type, or one that puts spaces at the end of pieces.
    """
    try:
        return _read(path, data)
    except (struct.error, IndexError, UnicodeDecodeError, TypeError, AttributeError):
        raise FormatError(f"{path}: damaged, or not a SentencePiece model; {_ADVICE}") from None


def _read(path: Path, data: bytes) -> Vocabulary:
    pieces, scores, types = [], [], []
    trainer: dict[int, Value] = {}
    normalizer: dict[int, Value] = {}
    for number, value in _fields(data):
        if number == _PIECE:
            entry = dict(_fields(value))
            pieces.append(entry[_TEXT].decode() if _TEXT in entry else "")  # type: ignore[union-attr]
            scores.append(struct.unpack("<f", entry[_SCORE])[0] if _SCORE in entry else 0.0)  # type: ignore[arg-type]
            types.append(entry.get(_TYPE, NORMAL))
        elif number == _TRAINER:
            trainer |= dict(_fields(value))
        elif number == _NORMALIZER:
            normalizer |= dict(_fields(value))
        elif number == _DENORMALIZER and dict(_fields(value)).get(_CHARSMAP):
            raise UnsupportedError(f"{path}: changes text when decoding, which is not supported")
    _refuse(path, trainer, normalizer)
    bad = next((kind for kind in types if not isinstance(kind, int) or not NORMAL <= kind <= BYTE), None)
    if not pieces or bad is not None:
        raise FormatError(f"{path}: no pieces, or one of type {bad!r}; {_ADVICE}")
    roles: dict[str, int | None] = {}
    for role, (number, usual) in _ROLE_PIECES.items():
        named = trainer.get(number, usual.encode())
        text = named.decode() if isinstance(named, bytes) else usual
        roles[role] = next((id for id, piece in enumerate(pieces) if piece == text and types[id] in (2, 3)), None)
    return sentencepiece_vocabulary(
        str(path),
        pieces,
        scores,
        [int(kind) for kind in types],
        byte_fallback=bool(trainer.get(_BYTE_FALLBACK)),
        space_prefix=bool(normalizer.get(_PREFIX, True)),
        collapses=bool(normalizer.get(_REMOVE_SPACES, 1)),
        charsmap=bytes(normalizer.get(_CHARSMAP) or b""),
        unigram=trainer.get(_MODEL_TYPE, _UNIGRAM) == _UNIGRAM,
        adds_bos=True,
        **{f"{role}_id": id for role, id in roles.items()},
    )


def sentencepiece_vocabulary(
    where: str,
    pieces: Sequence[str],
    scores: Sequence[float],
    types: Sequence[int],
    byte_fallback: bool,
    **rest: Any,
) -> Vocabulary:
    """A checked Vocabulary from SentencePiece's columns.

    Raises:
        FormatError: a piece twice, a score that is no number, or bytes missing.
        UnsupportedError: the order of merging is ambiguous, or begins with characters that are not pieces.
    """
    if not all(map(math.isfinite, scores)):
        raise FormatError(f"{where}: a score is not a number; {_ADVICE}")
    texts = {piece for piece, kind in zip(pieces, types, strict=True) if kind != UNUSED}
    if types.count(UNKNOWN) > 1 or len(texts) != len(pieces) - types.count(UNUSED) or "" in texts:
        raise FormatError(f"{where}: a piece twice, an empty one, or more than one for the unknown; {_ADVICE}")
    bytes_there = {piece for piece, kind in zip(pieces, types, strict=True) if kind == BYTE}
    if (byte_fallback or bytes_there) and bytes_there != {f"<0x{byte:02X}>" for byte in range(256)}:
        raise FormatError(f"{where}: {len(bytes_there)} of the 256 byte pieces; {_ADVICE}")
    if rest.get("unigram"):
        merges: list[tuple[str, str]] = []
    else:
        merges = _merges(where, pieces, scores, types)
    extra = rest.get("extra", {})
    ids = [rest.get("bos_id"), rest.get("eos_id"), rest.get("pad_id"), *extra.values()]
    return Vocabulary(
        kind="sentencepiece",
        pieces=pieces,
        types=protected(types, pieces, ids),
        merges=merges,
        scores=scores,
        source=where,
        **rest,
    )


def _merges(where: str, pieces: Sequence[str], scores: Sequence[float], types: Sequence[int]) -> list[tuple[str, str]]:
    scored = [
        (piece, score) for piece, score, kind in zip(pieces, scores, types, strict=True) if kind in (NORMAL, UNUSED)
    ]
    merges = merges_by_score(scored, where)
    known = {piece for piece, _ in scored}
    strange = next((pair for pair in merges if not known.issuperset(pair)), None)
    if strange is not None:
        raise UnsupportedError(f"{where}: piece {''.join(strange)!r} has a character that is no piece; train it again")
    return merges


def scores_of(vocabulary: Vocabulary) -> Sequence[float]:
    """The scores of a SentencePiece vocabulary; from the order of its merges if the file had none.

    Raises:
        UnsupportedError: no scores give these merges.
    """
    if vocabulary.scores is not None:
        return vocabulary.scores
    order = order_of(vocabulary.merges)
    if order is None:
        raise UnsupportedError("tokenizer: no scores of pieces give the order of these merges; keep its tokenizer.json")
    ranks = {piece: rank for rank, piece in enumerate(order)}
    lowest = len(order)
    return [
        -float(ranks.get(piece, lowest)) if kind in (NORMAL, UNUSED) else 0.0
        for piece, kind in zip(vocabulary.pieces, vocabulary.types, strict=True)
    ]


def write_sentencepiece(vocabulary: Vocabulary) -> bytes:
    """A model file with a vocabulary's pieces, scores, types and switches.

    Raises:
        UnsupportedError: the file cannot hold this tokenizer.
    """
    types = list(vocabulary.types)
    if not vocabulary.doubles_space and vocabulary.space_prefix:
        if vocabulary.scores is None:
            raise UnsupportedError(
                "tokenizer.model: a text that starts with a space gets no second one, which only tokenizer.json can say"
            )
        log.warning(
            "tokenizer.model alone puts a space before every text; what tokenizer_config.json says is not in it"
        )
    ruled = next(
        (vocabulary.pieces[id] for id, kind in enumerate(types) if kind == USER and vocabulary.flags.get(id)), None
    )
    if ruled is not None:
        raise UnsupportedError(f"tokenizer.model cannot hold the rules of added token {ruled!r}; keep tokenizer.json")
    if types.count(UNKNOWN) != 1:
        raise UnsupportedError("tokenizer.model: needs one piece for the unknown, as <unk>; keep its tokenizer.json")
    out = bytearray()
    for piece, score, kind in zip(vocabulary.pieces, scores_of(vocabulary), types, strict=True):
        entry = _bytes_field(_TEXT, piece.encode()) + _key(_SCORE, 5) + struct.pack("<f", score)
        out += _bytes_field(_PIECE, entry + (b"" if kind == NORMAL else _int_field(_TYPE, kind)))
    trainer = _int_field(_MODEL_TYPE, _UNIGRAM if vocabulary.unigram else _BPE) + _int_field(_VOCAB_SIZE, len(types))
    trainer += _int_field(_BYTE_FALLBACK, int(BYTE in types))
    roles = {
        "unk": types.index(UNKNOWN),
        "bos": vocabulary.bos_id,
        "eos": vocabulary.eos_id,
        "pad": vocabulary.pad_id,
    }
    for role, id in roles.items():
        trainer += _int_field(_ROLE_IDS[role], -1 if id is None else id)
        if id is not None and types[id] in (CONTROL, UNKNOWN):
            trainer += _bytes_field(_ROLE_PIECES[role][0], vocabulary.pieces[id].encode())
    normalizer = _bytes_field(_NAME, b"identity") + _int_field(_PREFIX, int(vocabulary.space_prefix))
    normalizer += _bytes_field(_CHARSMAP, vocabulary.charsmap) if vocabulary.charsmap else b""
    normalizer += _int_field(_REMOVE_SPACES, int(vocabulary.collapses)) + _int_field(_ESCAPE_SPACES, 1)
    return bytes(out + _bytes_field(_TRAINER, trainer) + _bytes_field(_NORMALIZER, normalizer))


def _refuse(path: Path, trainer: dict[int, Value], normalizer: dict[int, Value]) -> None:
    """Models that do more than a Llama's."""
    model = trainer.get(_MODEL_TYPE, _UNIGRAM)
    if model not in (_BPE, _UNIGRAM):
        name = _MODEL_TYPES.get(model, model) if isinstance(model, int) else "unknown"
        raise UnsupportedError(
            f"{path}: a SentencePiece model of type {name} is not supported; Llamas have bpe or unigram"
        )
    if not normalizer.get(_ESCAPE_SPACES, 1):
        raise UnsupportedError(f"{path}: keeps spaces as they are, which is not supported")
    if trainer.get(_AS_SUFFIX):
        raise UnsupportedError(f"{path}: puts spaces at the end of pieces, which is not supported")


def _fields(data: Value) -> Iterator[tuple[int, Value]]:
    """The fields of a message: number and value; varints are ints, all else bytes.

    Raises IndexError or TypeError where the bytes end too early or are no message.
    """
    if isinstance(data, int):
        raise TypeError("a message was expected")
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        size = 4
        if wire == 2:
            size, at = _varint(data, at)
        elif wire == 1:
            size = 8
        elif wire != 5:
            raise TypeError("no such wire type")
        if at + size > end:
            raise IndexError("cut off")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise TypeError("a number is too long")


def _spell_varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _key(number: int, wire: int) -> bytes:
    return _spell_varint(number << 3 | wire)


def _int_field(number: int, value: int) -> bytes:
    return _key(number, 0) + _spell_varint(value)


def _bytes_field(number: int, value: bytes) -> bytes:
    return _key(number, 2) + _spell_varint(len(value)) + value
