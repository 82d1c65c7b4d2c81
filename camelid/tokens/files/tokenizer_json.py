"""tokenizer.json (with the tokenizer_config.json beside it) ↔ Vocabulary."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from camelid.errors import FormatError, MissingError, UnsupportedError
from camelid.tokens.files.tokenizer_config import LONGEST, MOST_HOLES, ROLES, RULES, Beside, placed, read_beside
from camelid.tokens.files.tokenizer_parts import (
    is_byte_level,
    members,
    read_spaces,
    read_template,
    take_symbols,
    write_parts,
)
from camelid.tokens.vocabulary import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER,
    Splitter,
    Vocabulary,
    protected,
)

log = logging.getLogger(__name__)

_ADVICE = "fetch it again"
_BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
# The roles of a file that stands alone, by the names that Llamas use.
_USUAL = {
    "bos": ("<s>", "<|begin_of_text|>"),
    "eos": ("</s>", "<|end_of_text|>", "<|endoftext|>"),
    "unk": ("<unk>",),
    "pad": ("<pad>",),
}


def read_json_vocabulary(path: Path, rows: int | None = None) -> Vocabulary:
    """The vocabulary of a tokenizer.json; roles (BOS…) and tokens that it lacks come from the files beside it.

    Args:
        path: the file.
        rows: of the model's embedding, if there is one; added tokens beyond them, that only lie beside, are left out.

    Raises:
        FormatError: damaged.
        UnsupportedError: not BPE, or it changes text in a way that is not supported.
    """
    values = _load(path)
    try:
        return _Reader(path, values, read_beside(path), rows).vocabulary()
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
    sentencepiece = vocabulary.kind == "sentencepiece"
    symbols = set(vocabulary.symbols().values())
    added = []
    for id, kind in enumerate(types):
        if kind in (CONTROL, UNKNOWN, USER) and id not in symbols:
            flags = {flag: bool(vocabulary.flags.get(id, {}).get(flag)) for flag in RULES}
            added.append({"id": id, "content": pieces[id], **flags, "special": kind != USER})
    spaced = next((pieces[id] for id in symbols if " " in pieces[id]), None)
    if spaced is not None:
        raise UnsupportedError(f"tokenizer.json cannot hold the user-defined piece {spaced!r}; keep tokenizer.model")
    if sentencepiece and UNUSED in types:
        arising = {left + right for left, right in vocabulary.merges}
        lost = next((pieces[id] for id, kind in enumerate(types) if kind == UNUSED and pieces[id] in arising), None)
        if lost is not None:
            raise UnsupportedError(f"tokenizer.json cannot hold the unused piece {lost!r}; keep tokenizer.model")
    if vocabulary.charsmap:
        raise UnsupportedError("tokenizer.json cannot hold SentencePiece's table of replacements; keep tokenizer.model")
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        **write_parts(vocabulary),
        "model": _unigram(vocabulary) if vocabulary.unigram else _bpe(vocabulary, bool(symbols)),
    }
    return json.dumps(whole, ensure_ascii=False)


def _unigram(vocabulary: Vocabulary) -> dict[str, Any]:
    if vocabulary.symbols():
        raise UnsupportedError(
            "tokenizer.json cannot hold user-defined pieces of a unigram model; keep tokenizer.model"
        )
    rows = list(zip(vocabulary.pieces, vocabulary.scores or (), strict=True))
    return {
        "type": "Unigram",
        "unk_id": vocabulary.unk_id,
        "vocab": [list(row) for id, row in enumerate(rows) if id not in vocabulary.outside],
        "byte_fallback": list(vocabulary.types).count(BYTE) == 256,
    }


def _bpe(vocabulary: Vocabulary, has_symbols: bool) -> dict[str, Any]:
    pieces, sentencepiece = vocabulary.pieces, vocabulary.kind == "sentencepiece"
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": pieces[vocabulary.unk_id] if sentencepiece and vocabulary.unk_id is not None else None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": sentencepiece,
        "byte_fallback": sentencepiece and list(vocabulary.types).count(BYTE) == 256,
        "ignore_merges": vocabulary.splitter.ignore_merges or has_symbols,
        "vocab": {piece: id for id, piece in enumerate(pieces) if id not in vocabulary.outside},
        "merges": [list(pair) for pair in vocabulary.merges],
    }


class _Reader:
    """One file being read; the checks that only stop nonsense are left to the caller's net of exceptions."""

    def __init__(self, path: Path, values: Mapping[str, Any], beside: Beside, rows: int | None) -> None:
        self.path, self.values, self.beside, self.rows = path, values, beside, rows
        self.model: Mapping[str, Any] = values["model"]
        self.refuse_other_models()

    def refuse_other_models(self) -> None:
        kind = self.model.get("type", "BPE")
        if kind not in ("BPE", "Unigram") or (kind == "Unigram" and is_byte_level(self.values)):
            raise UnsupportedError(f"{self.path}: a {kind} tokenizer is not supported; Llamas have BPE or Unigram")
        for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
            if self.model.get(key):
                raise UnsupportedError(f"{self.path}: model.{key} is {self.model[key]!r}, which is not supported")

    def vocabulary(self) -> Vocabulary:
        vocab, scores = self.columns()
        added = self.added_tokens(vocab)
        pieces = self.pieces(vocab, added)
        byte_level = is_byte_level(self.values)
        types = self.types(pieces, vocab, added, byte_level)
        rest = self.cutting(types, vocab, added, byte_level)
        bos, eos, adds_bos, adds_eos = self.template(pieces)
        ids = {piece: id for id, piece in enumerate(pieces)}
        roles = {name: self.role(name, ids, types) for name in ROLES}
        roles["bos"] = bos if roles["bos"] is None else roles["bos"]
        roles["eos"] = eos if roles["eos"] is None else roles["eos"]
        return Vocabulary(
            kind="bpe" if byte_level else "sentencepiece",
            pieces=pieces,
            types=protected(types, pieces, [*roles.values()]),
            merges=[] if scores else self.merges(),
            scores=[*scores, *[0.0] * (len(pieces) - len(scores))] if scores else None,
            unigram=bool(scores),
            adds_bos=adds_bos,
            source=str(self.path),
            adds_eos=adds_eos,
            outside=frozenset(token["id"] for token in added if token["content"] not in vocab),
            flags={token["id"]: {flag: True for flag in RULES if token.get(flag)} for token in added},
            bos_id=roles["bos"],
            eos_id=roles["eos"],
            unk_id=roles["unk"],
            pad_id=roles["pad"],
            **rest,
        )

    def columns(self) -> tuple[dict[str, int], list[float]]:
        """Piece → id, and the scores of a Unigram model; none of BPE."""
        vocab = self.model["vocab"]
        if self.model.get("type") != "Unigram":
            return dict(vocab), []
        if len({piece for piece, _ in vocab}) < len(vocab):
            raise FormatError(f"{self.path}: a piece twice; {_ADVICE}")
        scores = [float(score) for _, score in vocab]
        if not all(map(math.isfinite, scores)):
            raise FormatError(f"{self.path}: a score is not a number; {_ADVICE}")
        return {piece: id for id, (piece, _) in enumerate(vocab)}, scores

    def cutting(
        self, types: list[int], vocab: Mapping[str, int], added: list[dict[str, Any]], byte_level: bool
    ) -> dict[str, Any]:
        """How text is changed and cut, as fields of a Vocabulary; SentencePiece's own symbols are noted in `types`."""
        normalizer, cutter = self.values.get("normalizer"), self.values.get("pre_tokenizer")
        list(members(normalizer, "normalizers"))  # damaged ones end here
        ignore = bool(self.model.get("ignore_merges"))
        if byte_level:
            return {"splitter": Splitter(normalizer, cutter, ignore)}
        cutter, symbols = take_symbols(cutter, vocab) if ignore else (cutter, [])
        for id in symbols:
            types[id] = USER
        rest = read_spaces(self.path, normalizer, cutter, [token["content"] for token in added])
        rest["splitter"] = replace(rest.get("splitter", Splitter(None, None)), ignore_merges=ignore and not symbols)
        return rest

    def added_tokens(self, vocab: Mapping[str, int]) -> list[dict[str, Any]]:
        """The added tokens, each with the id it has: the model's, if the model knows its text; then those beside."""
        own = [
            {**token, "id": vocab.get(token["content"], token["id"])} for token in self.values.get("added_tokens") or []
        ]
        known, texts = self.pieces(vocab, own), {token["content"] for token in own}
        longest = max(map(len, texts), default=0)
        if longest > LONGEST:
            raise FormatError(f"{self.path}: an added token of {longest} characters, at most {LONGEST}; {_ADVICE}")
        for id, token in placed(self.beside, known, self.rows):
            if token.text in texts:
                continue
            if id < len(known) and known[id] != token.text:
                log.warning(
                    "%s: id %d is %r, not %r as %s says", self.path, id, known[id], token.text, self.beside.path
                )
                continue
            own.append({"id": id, "content": token.text, "special": token.special, **token.rules})
        return own

    def pieces(self, vocab: Mapping[str, int], added: list[dict[str, Any]]) -> list[str]:
        wanted = [*vocab.items(), *((token["content"], token["id"]) for token in added)]
        most = len(wanted) + MOST_HOLES
        if not wanted or not all(type(id) is int and 0 <= id < most for _, id in wanted):
            raise FormatError(f"{self.path}: no vocabulary, or ids that are no whole numbers below {most}; {_ADVICE}")
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
        if self.model.get("unk_id") in range(len(pieces)):
            types[self.model["unk_id"]] = UNKNOWN
        if unknown is not None and unknown in vocab:
            types[vocab[unknown]] = CONTROL if byte_level else UNKNOWN
        return types

    def merges(self) -> list[tuple[str, str]]:
        pairs = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in self.model["merges"]]
        wrong = next((pair for pair in pairs if len(pair) != 2 or not set(map(type, pair)) <= {str}), None)
        if wrong is not None:
            shown = " ".join(map(str, wrong))[:60]
            raise FormatError(f"{self.path}: merge {shown!r} is not two pieces; {_ADVICE}")
        return [(left, right) for left, right in pairs]

    def template(self, pieces: list[str]) -> tuple[int | None, int | None, bool, bool]:
        before, after = read_template(self.values.get("post_processor"))
        known = {piece: id for id, piece in enumerate(pieces)}
        bos, eos = known.get(before or ""), known.get(after or "")
        adds_bos = self.beside.switch("add_bos_token", bos is not None)
        adds_eos = self.beside.switch("add_eos_token", eos is not None)
        return bos, eos, adds_bos, adds_eos

    def role(self, name: str, ids: Mapping[str, int], types: list[int]) -> int | None:
        text = self.beside.text(name)
        if text is not None:
            return ids.get(text)
        if name == "unk" and self.model.get("unk_token") in ids:
            return ids[self.model["unk_token"]]
        if name == "unk" and self.model.get("unk_id") is not None:
            return int(self.model["unk_id"])
        if self.beside.values:
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
