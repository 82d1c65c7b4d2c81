"""What lies beside a vocabulary: tokenizer_config.json, special_tokens_map.json and added_tokens.json.

Read as transformers 5 does: `added_tokens_decoder` of tokenizer_config.json, where it has one, else special_tokens_map
and added_tokens.json; tokens that are only named, without an id, follow the highest one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from camelid.errors import FormatError
from camelid.tokens.vocabulary import CONTROL, NORMAL, UNKNOWN, UNUSED, USER, Vocabulary, protected

log = logging.getLogger(__name__)

RULES = ("lstrip", "rstrip", "single_word", "normalized")
ROLES = ("bos", "eos", "unk", "pad")
LONGEST = 1024  # characters of an added token
MOST_HOLES = 1 << 16  # ids without a piece that a vocabulary may have
_NAMED = (*(f"{role}_token" for role in ROLES), "sep_token", "cls_token", "mask_token")
_LISTED = ("additional_special_tokens", "extra_special_tokens")
_ADVICE = "fetch it again"
# The classes of transformers that make a Llama's own way of cutting, whatever tokenizer.model says.
_LLAMAS = ("LlamaTokenizer", "CodeLlamaTokenizer")


@dataclass(frozen=True)
class Added:
    """An added token of a file beside the vocabulary: its text, its id if one is stated, and its rules."""

    text: str
    id: int | None
    special: bool
    rules: Mapping[str, bool]


@dataclass(frozen=True)
class Beside:
    """The files beside a vocabulary.

    Attributes:
        path: tokenizer_config.json, for messages.
        values: its values, over those of special_tokens_map.json; without nulls.
        added: added tokens, those with an id first, by id.
    """

    path: Path
    values: Mapping[str, Any]
    added: Sequence[Added]

    def text(self, role: str) -> str | None:
        """The text of a role's token; None if no file names it.

        Raises:
            FormatError: it is no text.
        """
        return _text(self.path, self.values.get(f"{role}_token"))

    def switch(self, key: str, default: bool) -> bool:
        """A yes or no.

        Raises:
            FormatError: it is something else.
        """
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise FormatError(f"{self.path}: {key} must be true or false, is {str(value)[:40]}; correct the file")
        return value


def read_beside(path: Path) -> Beside:
    """What lies beside a vocabulary's file; nothing where no such files are.

    Raises:
        FormatError: one of the files is damaged.
    """
    config_path = path.with_name("tokenizer_config.json")
    config = _object(config_path)
    decoder = config.get("added_tokens_decoder")
    values = {**_object(path.with_name("special_tokens_map.json")), **config}
    beside = Beside(config_path, values, ())
    if decoder is not None:
        stated = list(_from_decoder(config_path, decoder))
    else:
        names = set(_names(beside))
        stated = list(_from_encoder(path.with_name("added_tokens.json"), names))
    known = {token.text for token in stated}
    named = [Added(text, None, True, {}) for text in dict.fromkeys(_names(beside)) if text not in known]
    stated.sort(key=lambda token: token.id or 0)
    return replace(beside, added=(*stated, *named))


def with_beside(vocabulary: Vocabulary, beside: Beside, rows: int | None) -> Vocabulary:
    """A SentencePiece vocabulary with the added tokens, roles and switches that lie beside its file.

    Args:
        vocabulary: as the file alone has it.
        beside: the files beside it.
        rows: of the model's embedding; tokens beyond them are left out.

    Raises:
        FormatError: a file beside is damaged, or contradicts the vocabulary.
    """
    pieces, types = list(vocabulary.pieces), list(vocabulary.types)
    flags, outside = dict(vocabulary.flags), set(vocabulary.outside)
    for id, token in placed(beside, pieces, rows):
        if id >= len(pieces):
            holes = range(len(pieces), id)
            pieces += [*(f"[PAD{hole}]" for hole in holes), token.text]
            types += [*(UNUSED for _ in holes), NORMAL]
            outside.add(id)
        pieces[id] = token.text
        types[id] = types[id] if types[id] == UNKNOWN else CONTROL if token.special else USER
        flags[id] = {rule: True for rule in token.rules if rule != "normalized"}  # found before the space is put
    ids = {piece: id for id, piece in reversed(list(enumerate(pieces)))}
    roles: dict[str, Any] = {f"{role}_id": getattr(vocabulary, f"{role}_id") for role in ROLES}
    roles |= {f"{role}_id": ids.get(text) for role in ROLES if (text := beside.text(role)) is not None}
    scores = vocabulary.scores
    if scores is not None:
        scores = [*scores, *[0.0] * (len(pieces) - len(scores))]
    switches: dict[str, Any] = _switches(vocabulary, beside)
    if str(beside.values.get("tokenizer_class", "")).removesuffix("Fast") in _LLAMAS:
        # These classes make added tokens of SentencePiece's own symbols.
        flags |= {id: flags.get(id, {}) for id, kind in enumerate(types) if kind == USER}
    return replace(
        vocabulary,
        pieces=pieces,
        types=protected(types, pieces, [*roles.values()]),
        scores=scores,
        flags=flags,
        outside=frozenset(outside),
        **roles,
        **switches,
    )


def placed(beside: Beside, pieces: Sequence[str], rows: int | None) -> Iterator[tuple[int, Added]]:
    """Each added token with its id: that of its text, if the vocabulary has it, else the stated one, else the next.

    Raises:
        FormatError: an id lies far beyond all others.
    """
    known = {piece: id for id, piece in reversed(list(enumerate(pieces)))}
    end = len(pieces)
    for token in beside.added:
        id = known.get(token.text, end if token.id is None else token.id)
        if id >= end + MOST_HOLES:
            raise FormatError(f"{beside.path.parent}: id {id} of added token {token.text!r} is too high; {_ADVICE}")
        if rows is not None and id >= max(rows, len(pieces)):
            if token.id is not None:
                log.warning(
                    "%s: %r has id %d, the model only %d rows: left out", beside.path.parent, token.text, id, rows
                )
            continue
        end = max(end, id + 1)
        known.setdefault(token.text, id)
        yield id, token


def _switches(vocabulary: Vocabulary, beside: Beside) -> dict[str, bool]:
    """How spaces are treated and what stands around a text: by the class of transformers that the folder names."""
    kind = str(beside.values.get("tokenizer_class", "")).removesuffix("Fast")
    roles = {
        "adds_bos": beside.switch("add_bos_token", vocabulary.adds_bos),
        "adds_eos": beside.switch("add_eos_token", vocabulary.adds_eos),
    }
    if kind in _LLAMAS:
        once = kind == "CodeLlamaTokenizer" or not beside.switch("legacy", False)
        return roles | {
            "space_prefix": beside.switch("add_prefix_space", True),
            "doubles_space": False,
            "prefix_once": once,
        }
    legacy = beside.switch("legacy", True)
    return roles | {"doubles_space": legacy, "prefix_once": not legacy}


def _from_decoder(path: Path, decoder: Any) -> Iterator[Added]:
    if not isinstance(decoder, dict):
        raise FormatError(f"{path}: added_tokens_decoder must be an object; {_ADVICE}")
    for key, row in decoder.items():
        text = _text(path, row)
        if text is None or not isinstance(row, dict) or not (key.isascii() and key.isdigit() and len(key) < 10):
            raise FormatError(f"{path}: added_tokens_decoder: {key[:40]!r} is no id with a token; {_ADVICE}")
        rules = {rule: True for rule in RULES if row.get(rule, rule == "normalized" and not row.get("special"))}
        yield Added(text, int(key), bool(row.get("special")), rules)


def _from_encoder(path: Path, special: set[str]) -> Iterator[Added]:
    for text, id in _object(path).items():
        if type(id) is not int or id < 0:
            raise FormatError(f"{path}: {text[:40]!r} must have an id, has {str(id)[:40]}; correct the file")
        yield Added(text, id, text in special, {} if text in special else {"normalized": True})


def _names(beside: Beside) -> Iterator[str]:
    """The texts of special tokens that the files name, with an id or without."""
    for key in (*_NAMED, *_LISTED):
        value = beside.values.get(key, [] if key in _LISTED else None)
        if isinstance(value, dict) and key in _LISTED:
            value = list(value.values())
        for token in value if isinstance(value, list) and key in _LISTED else [value]:
            text = _text(beside.path, token)
            if text:
                yield text


def _text(path: Path, value: Any) -> str | None:
    text = value.get("content") if isinstance(value, dict) else value
    if not isinstance(text, str | None):
        raise FormatError(f"{path}: a token must be a text, is {str(value)[:40]}; correct the file")
    return text


def _object(path: Path) -> dict[str, Any]:
    """The object in a JSON file, without nulls; empty if there is no such file."""
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        raise FormatError(f"{path}: not JSON; {_ADVICE}") from None
    if not isinstance(values, dict):
        raise FormatError(f"{path}: not a JSON object; {_ADVICE}")
    return {key: value for key, value in values.items() if value is not None}
