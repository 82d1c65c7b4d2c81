"""Tokenizer: text becomes ids and back; opens every file a Llama's vocabulary comes in."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camelid.errors import OptionError
from camelid.tokens.added_tokens import AddedTokens, Chunk
from camelid.tokens.backend import Encoder
from camelid.tokens.choose_backend import choose_backend, has_bpe, warn_slow
from camelid.tokens.files.tokenizer_files import read_vocabulary
from camelid.tokens.normalizing import build_normalize
from camelid.tokens.spans import Spans, overlapping
from camelid.tokens.spelling import absent_bytes, check_text, is_control, refuse_absent, spell
from camelid.tokens.templates.chat_templates import folder_templates, gguf_templates
from camelid.tokens.templates.template_tokens import as_in_file, reserved
from camelid.tokens.vocabulary import CONTROL, NORMAL, SPACE, UNKNOWN, UNUSED, Kind, Vocabulary

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
        self._backend: Encoder = choose_backend(vocabulary)
        self._normalize = build_normalize(vocabulary)
        self._added = AddedTokens(vocabulary, self._normalize or _same)
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
    def open(cls, path: Path | str, rows: int | None = None) -> Tokenizer:
        """The tokenizer of a file (tokenizer.json, SentencePiece model, tiktoken ranks, GGUF) or a folder with one, and
        of the tokenizer_config.json, special_tokens_map.json and added_tokens.json beside it.

        Args:
            path: the file or folder.
            rows: of the model's embedding, if there is one: tokens beyond them that only lie beside are left out.

        Raises:
            MissingError: there is no such file.
            FormatError: the file is damaged.
            UnsupportedError: another kind of tokenizer.
        """
        vocabulary = read_vocabulary(Path(path), rows)
        return cls(reserved(vocabulary, folder_templates(Path(vocabulary.source).parent).values()))

    @classmethod
    def from_gguf(cls, fields: Mapping[str, Any]) -> Tokenizer:
        """The tokenizer that a GGUF file's `tokenizer.ggml.*` fields hold.

        Raises:
            FormatError: a field is missing or damaged.
            UnsupportedError: another kind of tokenizer.
        """
        from camelid.tokens.files.gguf_vocab import read_gguf_vocabulary

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
        ids = self._encode(text, special=special)
        if bos:
            if self.bos_id is None:
                raise OptionError("bos: this tokenizer has no token that begins a text; leave it out", param="bos")
            if ids[:1] != [self.bos_id]:
                ids.insert(0, self.bos_id)
        return ids

    def encode_segment(self, text: str) -> list[int]:
        """The ids of a text that follows other ids: without SentencePiece's space at the beginning.

        Raises:
            OptionError: the text has a lone surrogate.
        """
        check_text(text)
        return self._encode(text, prefix=False)

    def encode_marked(self, text: str, mark: str) -> list[int]:
        """The ids of a text in which control tokens count, unless a mark stands inside them; marks are taken out.

        Raises:
            OptionError: the text has a lone surrogate, or the normaliser joins characters across a mark.
        """
        check_text(text)
        return self._encode(text, special=True, mark=mark)

    def encode_spans(
        self, text: str, spans: Spans, *, mark: str | None = None, segment: bool = False
    ) -> tuple[list[int], list[bool]]:
        """The ids of a text, and for each whether it holds a character of one of the spans.

        Args:
            text, mark, segment: as of `encode`, with a `mark` of `encode_marked`, a `segment` of `encode_segment`.
            spans: start and end of each, in order, counted in characters of the text without marks.

        Raises:
            OptionError: as these methods, or what the ids say has other characters than the text.
        """
        check_text(text)
        ids: list[int] = []
        mask: list[bool] = []
        parts = self._added.cut(text, special=mark is not None, prefix=not segment, mark=mark or "", spans=spans)
        for part, inside in parts:
            cut = [part] if isinstance(part, int) else self._encode_chunk(part)
            ids += cut
            if isinstance(part, int) or not inside:
                mask += [bool(inside)] * len(cut)
            else:
                space = SPACE if self.kind == "sentencepiece" else " "
                pieces = [self.token_bytes(id).replace(b" ", space.encode()) for id in cut]
                mask += overlapping(pieces, part.text.replace(" ", space), inside, space)
        return ids, mask

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.uint16 | np.uint32]]:
        """The ids of many texts, each as `encode` gives them: for preparing data. Control tokens never come from text.

        Python's lock is not held meanwhile, so several threads can do this at once.

        Returns:
            One array for each text, all of them parts of one: uint16 if every id of the vocabulary fits, else uint32.

        Raises:
            OptionError: a text has a lone surrogate.
        """
        if not has_bpe():
            warn_slow()
        texts = list(texts)
        for text in texts:
            check_text(text)
            refuse_absent(text, self._absent_bytes)
        small = self.vocab_size <= 1 << 16
        if self._added.in_plain_text or self._pieces_need_care:
            return [np.array(self._encode(text), np.uint16 if small else np.uint32) for text in texts]
        if self._normalize is not None:
            texts = [self._normalize(text, True) for text in texts]
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
                first = self._vocabulary.collapses and not data  # such a model drops every space at the beginning
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
            self._bytes[id] = spell(self._vocabulary, id)
        data = self._bytes[id]
        dropped = self._vocabulary.space_prefix or self._vocabulary.collapses
        if first and dropped and self._vocabulary.pieces[id].startswith(SPACE):
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
        from camelid.tokens.files.gguf_vocab import write_gguf_vocabulary

        return write_gguf_vocabulary(as_in_file(self._vocabulary))

    def to_meta(self) -> bytes:
        """The content of a `tokenizer.model`: SentencePiece's, or tiktoken's ranks as Llama 3 has them.

        Raises:
            UnsupportedError: the file cannot hold this tokenizer.
        """
        from camelid.tokens.files.sentencepiece_file import write_sentencepiece
        from camelid.tokens.files.tiktoken_file import write_tiktoken

        vocabulary = as_in_file(self._vocabulary)
        return write_tiktoken(vocabulary) if self.kind == "bpe" else write_sentencepiece(vocabulary)

    def to_json(self) -> str:
        """The content of a tokenizer.json.

        Raises:
            UnsupportedError: it cannot hold this tokenizer.
        """
        from camelid.tokens.files.tokenizer_json import write_json_vocabulary

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

    def _encode(self, text: str, *, special: bool = False, prefix: bool = True, mark: str = "") -> list[int]:
        whole = self._with_control if special and not mark else None
        ids: list[int] = []
        for part, _ in self._added.cut(text, special=special, prefix=prefix, mark=mark):
            ids += [part] if isinstance(part, int) else (whole or self)._encode_chunk(part)
        return ids

    @cached_property
    def _with_control(self) -> Tokenizer | None:
        """Where merging itself gives a control token (a letter, say), a tokenizer that lets it; else None."""
        vocabulary = self._vocabulary
        made = {left + right for left, right in vocabulary.merges}
        types = list(vocabulary.types)
        for id, kind in enumerate(types):
            piece, flags = vocabulary.pieces[id], vocabulary.flags.get(id, {})
            whole_word = vocabulary.splitter.ignore_merges and flags.get("single_word")
            if kind == CONTROL and id not in vocabulary.outside and (len(piece) == 1 or piece in made or whole_word):
                types[id] = NORMAL
        return Tokenizer(replace(vocabulary, types=types)) if types != list(vocabulary.types) else None

    def _encode_chunk(self, chunk: Chunk) -> list[int]:
        """The ids of normalised text without added tokens."""
        if self.kind == "bpe":
            refuse_absent(chunk.text, self._absent_bytes)
            return self._backend.encode(chunk.text)
        if self._prefix_backend is not None:
            return (self._prefix_backend if chunk.prefix else self._backend).encode(chunk.text)
        text = self._prefix(chunk.text, chunk.prefix) + chunk.text
        if not self._symbols or self._vocabulary.unigram:  # a unigram model weighs its symbols as it does pieces
            ids = self._backend.encode(text)
        else:
            ids = []
            for part in self._cut_symbols(text):
                ids += [part] if isinstance(part, int) else self._backend.encode(part)
        if self._unused:
            return [part for id in ids for part in self._unused.get(id, (id,))]
        return ids

    def _prefix(self, text: str, wanted: bool) -> str:
        """What a Llama's SentencePiece puts before normalised text, where the normaliser has not done it."""
        vocabulary = self._vocabulary
        if not (wanted and text and vocabulary.space_prefix) or vocabulary.doubles_space:
            return ""
        return "" if text.startswith((" ", SPACE)) else SPACE

    @cached_property
    def _prefix_backend(self) -> Encoder | None:
        """For a file with a pre-tokenizer of its own: the backend of text that gets a space before it."""
        if self.kind != "sentencepiece" or self._vocabulary.splitter.pre_tokenizer is None:
            return None
        from camelid.tokens.backend_library import LibraryBackend

        return LibraryBackend(self._vocabulary, prefix=True)

    @cached_property
    def _pieces_need_care(self) -> bool:
        """Whether a sentencepiece text is more than one call of the backend."""
        if self.kind != "sentencepiece":
            return False
        return self._prefix_backend is not None or bool(self._symbols) or bool(self._unused)

    def _cut_symbols(self, text: str) -> Iterator[str | int]:
        """Text with ▁ for spaces, and the ids of SentencePiece's own symbols, which are never part of a merge."""
        shown, at = text.replace(" ", SPACE), 0
        for match in self._symbol_pattern.finditer(shown):
            yield shown[at : match.start()]
            yield self._symbols[match.group()]
            at = match.end()
        yield shown[at:]

    @cached_property
    def _symbols(self) -> dict[str, int]:
        return self._vocabulary.symbols()

    @cached_property
    def _symbol_pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, sorted(self._symbols, key=len, reverse=True))))

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
        return absent_bytes(self._vocabulary)

    def _is_control(self, id: int) -> bool:
        self._check_id(id)
        return is_control(self._vocabulary, id)

    def _check_id(self, id: int) -> None:
        if not 0 <= id < self.vocab_size:
            raise OptionError(f"id {id}: the vocabulary has 0 to {self.vocab_size - 1}")


def _same(text: str, prefix: bool) -> str:
    return text
