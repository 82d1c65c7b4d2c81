"""GGUF's `tokenizer.ggml.*` fields ↔ Vocabulary."""

from __future__ import annotations

import json
import logging
import re
import string
from collections.abc import Mapping
from typing import Any

from camelid.errors import FormatError, UnsupportedError, one_of
from camelid.tokens.files.sentencepiece_file import scores_of, sentencepiece_vocabulary
from camelid.tokens.pretokenizers import name_of, splitter_named
from camelid.tokens.vocabulary import BYTE, NORMAL, UNKNOWN, UNUSED, USER, Kind, Vocabulary, protected

log = logging.getLogger(__name__)

PREFIX = "tokenizer.ggml."
OWN = "tokenizer.camelid"  # what GGUF has no field for, as JSON; other programs do not read it
_KINDS: dict[str, Kind] = {"llama": "sentencepiece", "gpt2": "bpe", "t5": "sentencepiece"}
_ROLES = {"bos_id": "bos", "eos_id": "eos", "unk_id": "unknown", "pad_id": "padding"}
_EXTRA = ("eot", "eom", "seperator", "fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep", "fim_sep", "cls", "mask")
_ADVICE = "convert the model again"
_BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
_COMPOSING = frozenset("<>=" + string.ascii_letters)


def read_gguf_vocabulary(fields: Mapping[str, Any]) -> Vocabulary:
    """The vocabulary of a GGUF file from its key/values.

    Raises:
        FormatError: a field is missing or of the wrong kind.
        UnsupportedError: another kind of tokenizer, or a pre-tokenizer that is not known here.
    """
    model = fields.get(PREFIX + "model")
    if model not in _KINDS:
        raise UnsupportedError(f"{PREFIX}model: {model!r} is not supported; {one_of(str(model), _KINDS)}")
    kind = _KINDS[model]
    pieces = _column(fields, "tokens", str)
    roles = {name: _id(fields, key, len(pieces)) for name, key in _ROLES.items()}
    extra = {f"{key}_token_id": id for key in _EXTRA if (id := _id(fields, key, len(pieces))) is not None}
    types = _column(fields, "token_type", int, len(pieces)) if PREFIX + "token_type" in fields else None
    if types is None:
        types = [NORMAL] * len(pieces)
    if not set(types) <= set(range(NORMAL, BYTE + 1)):
        raise FormatError(f"{PREFIX}token_type: a type outside {NORMAL} to {BYTE}; {_ADVICE}")
    for id, piece in enumerate(pieces):  # what fills up an embedding; converters once called it user-defined
        if piece.startswith("[PAD") and piece == f"[PAD{id}]" and types[id] in (NORMAL, USER):
            types[id] = UNUSED
    n_pieces = _without_padding(pieces, types, [id for id in (*roles.values(), *extra.values()) if id is not None])
    pieces, types = pieces[:n_pieces], types[:n_pieces]
    shared: dict[str, Any] = {
        "extra": extra,
        **_read_own(fields, len(pieces)),
        "adds_eos": bool(fields.get(PREFIX + "add_eos_token", False)),
    }
    if kind == "sentencepiece":
        return _read_sentencepiece(fields, pieces, types, roles, shared)
    shared |= {"kind": kind, "source": PREFIX + "merges", "pieces": pieces, **roles}
    shared["types"] = protected(types, pieces, [*roles.values(), *extra.values()])
    pre = fields.get(PREFIX + "pre", "default")
    splitter = splitter_named(pre)
    adds_bos = bool(fields.get(PREFIX + "add_bos_token", splitter == splitter_named("llama-bpe")))
    return Vocabulary(merges=_merges(fields), splitter=splitter, adds_bos=adds_bos, **shared)


def padding_names(id: int) -> tuple[str, ...]:
    """What a row without a token is called: llama.cpp's name, and others where a token has it."""
    return f"[PAD{id}]", f"[UNUSED{id}]", f"[PAD{id}]_"


def _without_padding(pieces: list[str], types: list[int], used: list[int]) -> int:
    """How many pieces there are without those that only fill up the embedding's rows, as converters write them."""
    size, least = len(pieces), max(used, default=-1) + 1
    while size > least and types[size - 1] == UNUSED and pieces[size - 1] in padding_names(size - 1):
        size -= 1
    return size


def _read_sentencepiece(
    fields: Mapping[str, Any],
    pieces: list[str],
    types: list[int],
    roles: dict[str, int | None],
    shared: dict[str, Any],
) -> Vocabulary:
    """The `llama` kind; files that leave out ids or types mean Llama 2's."""
    for role, (id, piece) in {"unk_id": (0, "<unk>"), "bos_id": (1, "<s>"), "eos_id": (2, "</s>")}.items():
        if roles[role] is None and pieces[id : id + 1] == [piece]:
            roles[role] = id
    n_all = len(_column(fields, "tokens", str))
    if PREFIX + "token_type" not in fields:
        types = [BYTE if _BYTE_PIECE.fullmatch(piece) else NORMAL for piece in pieces]
    if roles["unk_id"] is not None and UNKNOWN not in types:
        types[roles["unk_id"]] = UNKNOWN
    return sentencepiece_vocabulary(
        PREFIX + "tokens",
        pieces,
        [float(score) for score in _column(fields, "scores", (float, int), n_all)[: len(pieces)]],
        types,
        byte_fallback=False,
        space_prefix=bool(fields.get(PREFIX + "add_space_prefix", True)),
        collapses=bool(fields.get(PREFIX + "remove_extra_whitespaces", False)),
        charsmap=_bytes(fields, "precompiled_charsmap"),
        unigram=fields[PREFIX + "model"] == "t5",
        adds_bos=bool(fields.get(PREFIX + "add_bos_token", True)),
        **roles,
        **shared,
    )


def write_gguf_vocabulary(vocabulary: Vocabulary) -> dict[str, Any]:
    """The fields that hold a vocabulary.

    Raises:
        UnsupportedError: GGUF has no name for how this tokenizer cuts text.
    """
    name = "gpt2" if vocabulary.kind == "bpe" else "t5" if vocabulary.unigram else "llama"
    fields: dict[str, Any] = {"model": name}
    if vocabulary.kind == "bpe":
        fields["pre"] = name_of(vocabulary.splitter)
        if fields["pre"] is None:
            raise UnsupportedError("tokenizer: GGUF has no name for the way it cuts text; keep its tokenizer.json")
        spaced = next((pair for pair in vocabulary.merges if " " in pair[0] + pair[1]), None)
        if spaced:
            raise UnsupportedError(f"tokenizer: GGUF cannot hold the merge {spaced!r}, with a space in it")
        fields["merges"] = [f"{left} {right}" for left, right in vocabulary.merges]
    else:
        if vocabulary.splitter.normalizer is not None or vocabulary.splitter.pre_tokenizer is not None:
            raise UnsupportedError("tokenizer: GGUF has no name for the way it cuts text; keep its tokenizer.json")
        fields["pre"] = "default"
        fields["scores"] = list(scores_of(vocabulary))
        if vocabulary.collapses or vocabulary.unigram:
            fields["remove_extra_whitespaces"] = vocabulary.collapses
        if vocabulary.charsmap:
            fields["precompiled_charsmap"] = vocabulary.charsmap
    fields["tokens"], fields["token_type"] = list(vocabulary.pieces), list(vocabulary.types)
    for name, key in _ROLES.items():
        if getattr(vocabulary, name) is not None:
            fields[f"{key}_token_id"] = getattr(vocabulary, name)
    fields |= vocabulary.extra
    fields["add_bos_token"], fields["add_space_prefix"] = vocabulary.adds_bos, vocabulary.space_prefix
    if vocabulary.adds_eos:
        fields["add_eos_token"] = True
    _refuse_flags(vocabulary)
    return {PREFIX + key: value for key, value in fields.items()} | _write_own(vocabulary)


def _write_own(vocabulary: Vocabulary) -> dict[str, str]:
    """A field of our own for what GGUF cannot say, and a line that other programs will not know it."""
    own: dict[str, Any] = {}
    flags = {id: sorted(rules) for id, rules in vocabulary.flags.items()}
    rules = {id: own for id, own in flags.items() if own}
    text = vocabulary.kind == "sentencepiece"
    users = [id for id, kind in enumerate(vocabulary.types) if text and kind == USER and id in flags]
    if rules or users:
        own["added_tokens"] = {str(id): flags[id] for id in sorted({*rules, *users})}
    made = {left + right for left, right in vocabulary.merges}
    loose = [
        id for id in sorted(vocabulary.outside) if len(vocabulary.pieces[id]) == 1 or vocabulary.pieces[id] in made
    ]
    if loose:
        own["outside"] = loose
    if text and vocabulary.space_prefix and not vocabulary.doubles_space:
        own["space"] = "first" if vocabulary.prefix_once else "always"
    changed = [vocabulary.pieces[id] for id, own in rules.items() if set(own) - {"normalized"}]
    if changed:
        log.warning(
            "GGUF has no field for the rules (lstrip, rstrip, single_word) of %s: camelid reads them, others do not",
            ", ".join(changed[:4]) + (f" and {len(changed) - 4} more" if len(changed) > 4 else ""),
        )
    if "space" in own:
        log.warning(
            "GGUF cannot say where spaces are put before text (%s): camelid reads it, others do not", own["space"]
        )
    if text and not vocabulary.unigram and (vocabulary.collapses or vocabulary.charsmap):
        log.warning("GGUF: this tokenizer changes text before cutting it: camelid does, other programs may not")
    return {OWN: json.dumps(own)} if own else {}


def _read_own(fields: Mapping[str, Any], size: int) -> dict[str, Any]:
    """The fields of a Vocabulary that stand in our own field.

    Raises:
        FormatError: it is damaged.
    """
    if OWN not in fields:
        return {}
    try:
        own = json.loads(fields[OWN])
        flags = {int(id): dict.fromkeys(rules, True) for id, rules in own.get("added_tokens", {}).items()}
        outside = frozenset(map(int, own.get("outside", ())))
        if any(not 0 <= id < size for id in (*flags, *outside)):
            raise ValueError("an id beyond the vocabulary")
        space = {"first": (False, True), "always": (False, False), None: (True, False)}[own.get("space")]
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise FormatError(f"{OWN}: damaged ({error}); {_ADVICE}") from None
    return {"flags": flags, "outside": outside, "doubles_space": space[0], "prefix_once": space[1]}


def _bytes(fields: Mapping[str, Any], key: str) -> bytes:
    values = fields.get(PREFIX + key)
    try:
        return bytes(value & 0xFF for value in values) if values else b""
    except TypeError:
        raise FormatError(f"{PREFIX}{key}: not a list of bytes; {_ADVICE}") from None


def _refuse_flags(vocabulary: Vocabulary) -> None:
    """Added tokens with rules about what is around them, which GGUF cannot say."""
    legacy = vocabulary.kind == "sentencepiece" and vocabulary.doubles_space
    composes = legacy or vocabulary.splitter.normalizer is not None
    for id, flags in vocabulary.flags.items():
        piece = vocabulary.pieces[id]
        # Where a normaliser runs first, only a last character that composes with a following one could differ.
        normal = flags.get("normalized") and composes and not (piece.isascii() and piece[-1:] not in _COMPOSING)
        if vocabulary.types[id] == USER and (normal or {"lstrip", "rstrip", "single_word"} & flags.keys()):
            raise UnsupportedError(
                f"tokenizer: GGUF cannot hold the rules of added token {piece!r}; keep tokenizer.json"
            )


def _merges(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    lines = _column(fields, "merges", str)
    words = " ".join(lines).split(" ")
    pairs = list(zip(words[::2], words[1::2], strict=False))
    if all(words) and [*map(" ".join, pairs)] == lines:  # as in nearly every file; several times faster than one by one
        return pairs
    merges = [_merge(line) if line[:1] == " " else line.partition(" ")[::2] for line in lines]
    if not all(map(all, merges)):
        line = next(line for line, merge in zip(lines, merges, strict=True) if not all(merge))
        raise FormatError(f"{PREFIX}merges: {line!r} is not two pieces; {_ADVICE}")
    return merges


def _merge(line: str) -> tuple[str, str]:
    """A line whose first piece begins with a space, in careless files: the cut is the first space after it."""
    return " ", line[1:].partition(" ")[2]


def _column(fields: Mapping[str, Any], key: str, kind: type | tuple[type, ...], length: int | None = None) -> list[Any]:
    values = fields.get(PREFIX + key)
    if not isinstance(values, list | tuple) or not all(issubclass(type_, kind) for type_ in set(map(type, values))):
        raise FormatError(f"{PREFIX}{key}: missing or of the wrong kind; {_ADVICE}")
    if length is not None and len(values) != length:
        raise FormatError(f"{PREFIX}{key}: {len(values)} values for {length} pieces; {_ADVICE}")
    return list(values)


def _id(fields: Mapping[str, Any], key: str, size: int) -> int | None:
    id = fields.get(f"{PREFIX}{key}_token_id")
    if id is None or id in (-1, 0xFFFFFFFF):
        return None
    if not isinstance(id, int) or not 0 <= id < size:
        raise FormatError(f"{PREFIX}{key}_token_id: {id!r} is not one of {size} pieces; {_ADVICE}")
    return id
