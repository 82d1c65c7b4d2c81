"""tokenizer.json (with the tokenizer_config.json beside it) ↔ Vocabulary."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from camelid.errors import FormatError, MissingError, UnsupportedError
from camelid.tokens.tokenizer_parts import is_byte_level, read_prefix, read_template, write_parts
from camelid.tokens.vocabulary import (
    BYTE,
    CONTROL,
    NORMAL,
    SPACE,
    UNKNOWN,
    UNUSED,
    USER,
    Splitter,
    Vocabulary,
    protected,
)

_ADVICE = "fetch it again"
_ROLES = ("bos", "eos", "unk", "pad")
_FLAGS = ("lstrip", "rstrip", "single_word", "normalized")
_BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
# The roles of a file that stands alone, by the names that Llamas use.
_USUAL = {
    "bos": ("<s>", "<|begin_of_text|>"),
    "eos": ("</s>", "<|end_of_text|>", "<|endoftext|>"),
    "unk": ("<unk>",),
    "pad": ("<pad>",),
}


def read_json_vocabulary(path: Path) -> Vocabulary:
    """The vocabulary of a tokenizer.json; roles (BOS…) come from tokenizer_config.json, if that lies beside it.

    Raises:
        FormatError: damaged.
        UnsupportedError: not BPE, or it changes text in a way that is not done here.
    """
    values = _load(path)
    try:
        return _Reader(path, values, _config_beside(path)).vocabulary()
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path}: damaged ({type(error).__name__}: {error}); {_ADVICE}") from None


def write_json_vocabulary(vocabulary: Vocabulary) -> str:
    """The content of a tokenizer.json for a vocabulary.

    Raises:
        UnsupportedError: a user-defined piece spans a space of SentencePiece's, which the format cannot say.
    """
    pieces, types = vocabulary.pieces, vocabulary.types
    added = []
    for id, kind in enumerate(types):
        if kind in (CONTROL, UNKNOWN, USER):
            flags = {flag: bool(vocabulary.flags.get(id, {}).get(flag)) for flag in _FLAGS}
            added.append({"id": id, "content": pieces[id], **flags, "special": kind != USER})
    sentencepiece = vocabulary.kind == "sentencepiece"
    spaced = next((pieces[id] for id, kind in enumerate(types) if kind == USER and {" ", SPACE} & {*pieces[id]}), None)
    if sentencepiece and spaced is not None:
        raise UnsupportedError(f"tokenizer.json cannot hold the user-defined piece {spaced!r}; keep tokenizer.model")
    if sentencepiece and UNUSED in types:
        arising = {left + right for left, right in vocabulary.merges}
        lost = next((pieces[id] for id, kind in enumerate(types) if kind == UNUSED and pieces[id] in arising), None)
        if lost is not None:
            raise UnsupportedError(f"tokenizer.json cannot hold the unused piece {lost!r}; keep tokenizer.model")
    has_bytes = sentencepiece and types.count(BYTE) == 256
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": pieces[vocabulary.unk_id] if sentencepiece and vocabulary.unk_id is not None else None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": sentencepiece,
        "byte_fallback": has_bytes,
        "ignore_merges": vocabulary.splitter.ignore_merges,
        "vocab": {piece: id for id, piece in enumerate(pieces)},
        "merges": [list(pair) for pair in vocabulary.merges],
    }
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        **write_parts(vocabulary),
        "model": model,
    }
    return json.dumps(whole, ensure_ascii=False)


class _Reader:
    """One file being read; the checks that only stop nonsense are left to the caller's net of exceptions."""

    def __init__(self, path: Path, values: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        self.path, self.values, self.config = path, values, config
        self.model: Mapping[str, Any] = values["model"]
        self.refuse_other_models()

    def refuse_other_models(self) -> None:
        kind = self.model.get("type", "BPE")
        if kind != "BPE":
            raise UnsupportedError(f"{self.path}: a {kind} tokenizer; Llamas have BPE, and only that is done")
        for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
            if self.model.get(key):
                raise UnsupportedError(f"{self.path}: model.{key} is {self.model[key]!r}; that is not done")

    def vocabulary(self) -> Vocabulary:
        vocab: dict[str, int] = self.model["vocab"]
        added = self.added_tokens(vocab)
        pieces = self.pieces(vocab, added)
        byte_level = is_byte_level(self.values)
        types = self.types(pieces, vocab, added, byte_level)
        if not byte_level:  # there user-defined pieces are looked for where spaces are ▁ already
            pieces = [p.replace(" ", SPACE) if kind == USER else p for p, kind in zip(pieces, types, strict=True)]
        bos, eos, adds_bos, adds_eos = self.template(pieces)
        ids = {piece: id for id, piece in enumerate(pieces)}
        roles = {name: self.role(name, ids, types) for name in _ROLES}
        roles["bos"] = bos if roles["bos"] is None else roles["bos"]
        roles["eos"] = eos if roles["eos"] is None else roles["eos"]
        ignore = bool(self.model.get("ignore_merges"))
        splitter = Splitter(None, None, ignore)
        if byte_level:
            splitter = Splitter(self.values.get("normalizer"), self.values.get("pre_tokenizer"), ignore)
        prefix, doubles = (False, True) if byte_level else read_prefix(self.path, self.values)
        flags = {token["id"]: {flag: True for flag in _FLAGS if token.get(flag)} for token in added}
        return Vocabulary(
            kind="bpe" if byte_level else "sentencepiece",
            pieces=pieces,
            types=protected(types, pieces, [*roles.values()]),
            merges=self.merges(),
            splitter=splitter,
            space_prefix=prefix,
            doubles_space=doubles,
            adds_bos=adds_bos,
            source=str(self.path),
            adds_eos=adds_eos,
            flags={id: flag for id, flag in flags.items() if flag},
            bos_id=roles["bos"],
            eos_id=roles["eos"],
            unk_id=roles["unk"],
            pad_id=roles["pad"],
        )

    def added_tokens(self, vocab: Mapping[str, int]) -> list[dict[str, Any]]:
        """The added tokens, each with the id it has: the model's, if the model knows its text."""
        return [
            {**token, "id": vocab.get(token["content"], token["id"])} for token in self.values.get("added_tokens") or []
        ]

    def pieces(self, vocab: Mapping[str, int], added: list[dict[str, Any]]) -> list[str]:
        wanted = [*vocab.items(), *((token["content"], token["id"]) for token in added)]
        if not wanted or not all(isinstance(id, int) and 0 <= id < 1 << 24 for _, id in wanted):
            raise FormatError(f"{self.path}: no vocabulary, or ids that are no small whole numbers; {_ADVICE}")
        pieces: list[str | None] = [None] * (max(id for _, id in wanted) + 1)
        for piece, id in wanted:
            if pieces[id] not in (None, piece):
                raise FormatError(f"{self.path}: id {id} is {pieces[id]!r} and {piece!r}; {_ADVICE}")
            pieces[id] = piece
        return [f"[PAD{id}]" if piece is None else piece for id, piece in enumerate(pieces)]

    def types(
        self, pieces: list[str], vocab: Mapping[str, int], added: list[dict[str, Any]], byte_level: bool
    ) -> list[int]:
        types = [UNUSED] * len(pieces)
        for piece, id in vocab.items():
            types[id] = BYTE if not byte_level and _BYTE_PIECE.fullmatch(piece) else NORMAL
        for token in added:
            types[token["id"]] = CONTROL if token.get("special") else USER
        unknown = self.model.get("unk_token")
        if unknown is not None and unknown in vocab:
            types[vocab[unknown]] = CONTROL if byte_level else UNKNOWN
        return types

    def merges(self) -> list[tuple[str, str]]:
        pairs = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in self.model["merges"]]
        wrong = next((pair for pair in pairs if len(pair) != 2), None)
        if wrong is not None:
            raise FormatError(f"{self.path}: merge {' '.join(wrong)!r} is not two pieces; {_ADVICE}")
        return [(left, right) for left, right in pairs]

    def template(self, pieces: list[str]) -> tuple[int | None, int | None, bool, bool]:
        before, after = read_template(self.values.get("post_processor"))
        known = {piece: id for id, piece in enumerate(pieces)}
        bos, eos = known.get(before or ""), known.get(after or "")
        adds_bos = bool(self.config.get("add_bos_token", bos is not None))
        adds_eos = bool(self.config.get("add_eos_token", eos is not None))
        return bos, eos, adds_bos, adds_eos

    def role(self, name: str, ids: Mapping[str, int], types: list[int]) -> int | None:
        given = self.config.get(f"{name}_token")
        text = given.get("content") if isinstance(given, dict) else given
        if text is not None:
            return ids.get(text)
        if name == "unk" and self.model.get("unk_token") in ids:
            return ids[self.model["unk_token"]]
        if self.config:
            return None
        usual = (ids[word] for word in _USUAL[name] if word in ids and types[ids[word]] in (CONTROL, UNKNOWN))
        return next(usual, None)


def _load(path: Path) -> Mapping[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise MissingError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None
    except (ValueError, RecursionError):
        raise FormatError(f"{path}: not JSON; {_ADVICE}") from None
    if not isinstance(values, dict) or not isinstance(values.get("model"), dict):
        raise FormatError(f"{path}: not a tokenizer.json; {_ADVICE}")
    return values


def _config_beside(path: Path) -> Mapping[str, Any]:
    """tokenizer_config.json, over special_tokens_map.json; nothing if they are not there."""
    found: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        beside = path.with_name(name)
        if beside.is_file():
            try:
                values = json.loads(beside.read_bytes())
            except (ValueError, RecursionError):
                raise FormatError(f"{beside}: not JSON; {_ADVICE}") from None
            found |= {key: value for key, value in values.items() if value is not None} if values else {}
    return found
