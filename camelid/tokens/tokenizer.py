"""Tokenizer: text becomes ids and back; opens every file a Llama's vocabulary comes in."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camelid.errors import MissingError, OptionError
from camelid.tokens.backend import Backend, build_backend, has_bpe, say_slow
from camelid.tokens.chat_templates import folder_templates, gguf_templates
from camelid.tokens.template_tokens import as_in_file, reserved
from camelid.tokens.vocabulary import BYTE, CONTROL, SPACE, UNKNOWN, UNUSED, USER, Kind, Vocabulary, byte_alphabet

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")
_RANK_LINE = re.compile(rb"[A-Za-z0-9+/]+=* [0-9]+\s")
_PROBE = (
    "Hello  world\n\n\t 1234567 The best thing about AI is its ability to\r\n    if x_1 != 0: # can't WE'LL Ünïcödé é "
    "日本語 한국어 العربية हिन्दी 👩‍🔬🏳️‍🌈 \x00\x7f ▁ <s>[INST] <|eot_id|></s> a" + " " * 40 + "end  "
)


class Tokenizer:
    """Text ↔ ids, the same for every kind of file.

    Attributes:
        kind: sentencepiece (Llama 1 and 2) or bpe (byte-level: Llama 3, SmolLM2, OLMo).
        vocab_size: the highest id and one.
        bos_id, eos_id, unk_id, pad_id: ids of these roles, or None.
        adds_bos: a plain text should start with `bos_id`.
        special_ids: control tokens, text → id. Text gives them only with `special=True`. Those that a chat template
            writes are among them; where the file calls them text, they have a text in answers.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._backend: Backend = build_backend(vocabulary)
        self._bytes: dict[int, bytes] = {}
        self.kind: Kind = vocabulary.kind
        self.vocab_size = len(vocabulary.pieces)
        self.bos_id, self.eos_id = vocabulary.bos_id, vocabulary.eos_id
        self.unk_id, self.pad_id = vocabulary.unk_id, vocabulary.pad_id
        self.adds_bos = vocabulary.adds_bos
        special = {vocabulary.pieces[id]: id for id, kind in enumerate(vocabulary.types) if kind in (CONTROL, UNKNOWN)}
        self.special_ids: Mapping[str, int] = MappingProxyType(special)

    def __reduce__(self) -> tuple[type[Tokenizer], tuple[Vocabulary]]:
        """Another process builds it anew."""
        return type(self), (self._vocabulary,)

    @classmethod
    def open(cls, path: Path | str) -> Tokenizer:
        """The tokenizer of a file (tokenizer.json, SentencePiece model, tiktoken ranks) or of a folder with one.

        Raises:
            MissingError: there is no such file.
            FormatError: the file is damaged.
            UnsupportedError: another kind of tokenizer.
        """
        vocabulary = _read_file(Path(path))
        return cls(reserved(vocabulary, folder_templates(Path(vocabulary.source).parent).values()))

    @classmethod
    def from_gguf(cls, fields: Mapping[str, Any]) -> Tokenizer:
        """The tokenizer that a GGUF file's `tokenizer.ggml.*` fields hold.

        Raises:
            FormatError: a field is missing or damaged.
            UnsupportedError: another kind of tokenizer.
        """
        from camelid.tokens.gguf_vocab import read_gguf_vocabulary

        return cls(reserved(read_gguf_vocabulary(fields), gguf_templates("GGUF", fields).values()))

    def encode(self, text: str, *, bos: bool = False, special: bool = False) -> list[int]:
        """The ids of a text from its beginning.

        Args:
            bos: start with `bos_id`, once, even if the text starts with it.
            special: control tokens written out in `text` become their ids; otherwise they are ordinary characters.

        Raises:
            OptionError: the text has a lone surrogate, or `bos` is asked for and there is none.
        """
        check_text(text)
        ids: list[int] = []
        for part in self._cut_special(text) if special else (text,):
            if isinstance(part, int):
                ids.append(part)
            else:
                ids += self._encode_part(part, all(self._is_control(id) for id in ids))
        if bos:
            if self.bos_id is None:
                raise OptionError("bos: this tokenizer has no token that begins a text; leave it out")
            if ids[:1] != [self.bos_id]:
                ids.insert(0, self.bos_id)
        return ids

    def encode_segment(self, text: str) -> list[int]:
        """The ids of a text that follows other ids: without SentencePiece's space at the beginning.

        Raises:
            OptionError: the text has a lone surrogate.
        """
        check_text(text)
        return self._encode_part(text, False)

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.uint16 | np.uint32]]:
        """The ids of many texts, each as `encode` gives them: for preparing data. Control tokens never come from text.

        Python's lock is not held meanwhile, so several threads can do this at once.

        Returns:
            One array for each text, all of them parts of one: uint16 if every id of the vocabulary fits, else uint32.

        Raises:
            OptionError: a text has a lone surrogate.
        """
        if not has_bpe():
            say_slow()
        texts = list(texts)
        for text in texts:
            check_text(text)
            if self._absent_bytes:
                self._refuse_absent(text)
        small = self.vocab_size <= 1 << 16
        if self.kind == "sentencepiece":
            if self._user_pattern is not None or self._unused:
                return [np.array(self._encode_part(text, True), np.uint16 if small else np.uint32) for text in texts]
            texts = [self._prefix(text, True) + text for text in texts]
        ids, starts = self._backend.encode_batch(texts, small)
        return [ids[start:end] for start, end in pairwise(starts)]

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """The text of ids; what is not UTF-8 becomes U+FFFD, and the space that `encode` put first is dropped.

        Args:
            special: write out control tokens, which are left out otherwise.

        Raises:
            OptionError: an id is not in the vocabulary.
        """
        data, first = bytearray(), True
        for id in ids:
            if self._is_control(id):
                data += self.piece(id).encode() if special else b""
            else:
                data += self.token_bytes(id, first=first)
                first = False
        return data.decode("utf-8", "replace")

    def token_bytes(self, id: int, *, first: bool = False) -> bytes:
        """The bytes that an id adds to a running text; none for control tokens.

        Args:
            first: the id is the first of the text, where SentencePiece's leading space is dropped.

        Raises:
            OptionError: the id is not in the vocabulary.
        """
        self._check_id(id)
        if id not in self._bytes:
            self._bytes[id] = self._spell(id)
        data = self._bytes[id]
        if first and self._vocabulary.space_prefix and self._vocabulary.pieces[id].startswith(SPACE):
            return data[1:]
        return data

    def piece(self, id: int) -> str:
        r"""An id as readable text, for tables: what it adds to a running text, with bytes that are no whole character
        as `\xNN`; control tokens by their name.

        Raises:
            OptionError: the id is not in the vocabulary.
        """
        if self._is_control(id):
            return self._vocabulary.pieces[id]
        return self.token_bytes(id).decode("utf-8", "backslashreplace")

    def id_of(self, piece: str) -> int | None:
        """The id of exactly this piece, control tokens included; None if there is none."""
        return self._ids.get(piece)

    def absent_ids(self, size: int) -> NDArray[np.int64]:
        """Ids below `size` that are no token: those beyond the vocabulary, and unused pieces in it, in order.

        Embeddings are padded to round numbers of rows, and files name the rows that are left over (`[PAD435]`).
        """
        types = np.asarray(self._vocabulary.types[:size])
        beyond = np.arange(len(types), size, dtype=np.int64)
        return np.concatenate([np.flatnonzero(types == UNUSED).astype(np.int64), beyond])

    def to_gguf(self) -> dict[str, Any]:
        """The `tokenizer.ggml.*` fields of a GGUF file.

        Raises:
            UnsupportedError: GGUF cannot hold this tokenizer.
        """
        from camelid.tokens.gguf_vocab import write_gguf_vocabulary

        return write_gguf_vocabulary(as_in_file(self._vocabulary))

    def to_meta(self) -> bytes:
        """The content of a `tokenizer.model`: SentencePiece's, or tiktoken's ranks as Llama 3 has them.

        Raises:
            UnsupportedError: the file cannot hold this tokenizer.
        """
        from camelid.tokens.sentencepiece_file import write_sentencepiece
        from camelid.tokens.tiktoken_file import write_tiktoken

        vocabulary = as_in_file(self._vocabulary)
        return write_tiktoken(vocabulary) if self.kind == "bpe" else write_sentencepiece(vocabulary)

    def to_json(self) -> str:
        """The content of a tokenizer.json.

        Raises:
            UnsupportedError: it cannot hold this tokenizer.
        """
        from camelid.tokens.tokenizer_json import write_json_vocabulary

        return write_json_vocabulary(as_in_file(self._vocabulary))

    def fingerprint(self) -> str:
        """SHA-256, in hex, of the ids of a fixed text full of difficulties: equal for tokenizers that cut alike."""
        ids = [
            *self.encode(_PROBE),
            -1,
            *self.encode_segment(_PROBE),
            -1,
            *sorted({*self.special_ids.values()} - self._vocabulary.shown),
        ]
        return hashlib.sha256(",".join(map(str, [self.vocab_size, *ids])).encode()).hexdigest()

    @cached_property
    def _ids(self) -> dict[str, int]:
        pieces = self._vocabulary.pieces
        return dict(zip(reversed(pieces), range(len(pieces) - 1, -1, -1), strict=True))

    @cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        """Finds control tokens, the longest first; with the space beside them that some of them swallow."""
        longest_first = sorted(filter(None, self.special_ids), key=len, reverse=True)
        flags = {text: self._vocabulary.flags.get(id, {}) for text, id in self.special_ids.items()}
        space = {True: r"\s*", False: ""}
        patterns = (
            space[flags[text].get("lstrip", False)] + re.escape(text) + space[flags[text].get("rstrip", False)]
            for text in longest_first
        )
        return re.compile("|".join(patterns) or r"(?!)")

    def _cut_special(self, text: str) -> Iterator[str | int]:
        at = 0
        for match in self._special_pattern.finditer(text):
            if match.start() > at:
                yield text[at : match.start()]
            found = match.group()
            yield self.special_ids[found if found in self.special_ids else found.strip()]
            at = match.end()
        if at < len(text):
            yield text[at:]

    def _encode_part(self, text: str, first: bool) -> list[int]:
        """The ids of text without control tokens; `first`: nothing that has text comes before it."""
        if self.kind == "sentencepiece":
            return self._encode_sentencepiece(text, first)
        if self._absent_bytes:
            self._refuse_absent(text)
        return self._backend.encode(text)

    def _prefix(self, text: str, first: bool) -> str:
        """What SentencePiece puts before a text; `first`: nothing that has text comes before it."""
        if not (first and text and self._vocabulary.space_prefix):
            return ""
        return "" if not self._vocabulary.doubles_space and text.startswith((" ", SPACE)) else SPACE

    def _encode_sentencepiece(self, text: str, first: bool) -> list[int]:
        text = self._prefix(text, first) + text
        if self._user_pattern is None:
            ids = self._backend.encode(text)
        else:
            ids = []
            for part in self._cut_user(text, self._user_pattern):
                ids += [part] if isinstance(part, int) else self._backend.encode(part)
        if self._unused:
            return [part for id in ids for part in self._unused.get(id, (id,))]
        return ids

    def _cut_user(self, text: str, pattern: re.Pattern[str]) -> Iterator[str | int]:
        """Text with ▁ for spaces, and the ids of user-defined pieces, which are never part of a merge."""
        shown = text.replace(" ", SPACE)
        at = 0
        for match in pattern.finditer(shown):
            yield shown[at : match.start()]
            yield self._ids[match.group()]
            at = match.end()
        yield shown[at:]

    @cached_property
    def _user_pattern(self) -> re.Pattern[str] | None:
        types = self._vocabulary.types
        pieces = [piece for piece, kind in zip(self._vocabulary.pieces, types, strict=True) if kind == USER and piece]
        longest_first = sorted(pieces, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first))) if pieces else None

    @cached_property
    def _unused(self) -> Mapping[int, tuple[int, ...]]:
        """SentencePiece's unused pieces help merging, but fall apart again in the end: id → the ids that are left."""
        types = self._vocabulary.types
        if UNUSED not in types:
            return {}
        pairs = {left + right: (left, right) for left, right in self._vocabulary.merges}

        def fall(piece: str) -> tuple[int, ...]:
            if types[self._ids[piece]] != UNUSED or piece not in pairs:
                return (self._ids[piece],)
            return tuple(id for part in pairs[piece] for id in fall(part))

        return {self._ids[piece]: fall(piece) for piece in pairs if types[self._ids[piece]] == UNUSED}

    @cached_property
    def _absent_bytes(self) -> bytes:
        """Bytes of UTF-8 that the vocabulary cannot spell, which some vocabularies lack."""
        if self.kind == "sentencepiece":
            return b""
        there = {piece for piece in self._vocabulary.pieces if len(piece) == 1}
        return bytes(byte for character, byte in byte_alphabet().items() if character not in there and byte < 0xF5)

    def _refuse_absent(self, text: str) -> None:
        data = text.encode()
        if len(data.translate(None, self._absent_bytes)) == len(data):
            return
        lost = next(one for one in text if not set(self._absent_bytes).isdisjoint(one.encode()))
        raise OptionError(f"text: this vocabulary has nothing for U+{ord(lost):04X}; remove it")

    def _is_control(self, id: int) -> bool:
        self._check_id(id)
        return self._vocabulary.types[id] in (CONTROL, UNKNOWN) and id not in self._vocabulary.shown

    def _check_id(self, id: int) -> None:
        if not 0 <= id < self.vocab_size:
            raise OptionError(f"id {id}: the vocabulary has 0 to {self.vocab_size - 1}")

    def _spell(self, id: int) -> bytes:
        piece, kind = self._vocabulary.pieces[id], self._vocabulary.types[id]
        if self._is_control(id):
            return b""
        if self.kind == "sentencepiece":
            return bytes([int(piece[3:5], 16)]) if kind == BYTE else piece.replace(SPACE, " ").encode()
        alphabet = byte_alphabet()
        if kind in (USER, CONTROL) or not all(character in alphabet for character in piece):
            return piece.encode()
        return bytes(alphabet[character] for character in piece)


def _read_file(path: Path) -> Vocabulary:
    """The vocabulary of a file, whatever its name, or of the first such file in a folder."""
    if path.is_dir():
        found = next((path / name for name in TOKENIZER_FILES if (path / name).is_file()), None)
        if found is None:
            raise MissingError(f"{path}: no tokenizer; fetch {' or '.join(TOKENIZER_FILES)} into the folder")
        path = found
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MissingError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None
    if data.lstrip()[:1] == b"{":
        from camelid.tokens.tokenizer_json import read_json_vocabulary

        return read_json_vocabulary(path)
    if _RANK_LINE.match(data):
        from camelid.tokens.tiktoken_file import read_tiktoken

        return read_tiktoken(path, data)
    from camelid.tokens.sentencepiece_file import read_sentencepiece

    return read_sentencepiece(path, data)


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
        raise OptionError(f"text: lone surrogate U+{code:04X} at character {error.start}; remove it") from None
