"""The parts of a tokenizer.json around its model: normaliser, pre-tokenizer, post-processor, decoder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from camelid.errors import UnsupportedError
from camelid.tokens.vocabulary import SPACE, Splitter, Vocabulary


def is_byte_level(values: Mapping[str, Any]) -> bool:
    """Does the file spell bytes, as GPT-2 does? Otherwise it must be SentencePiece's kind."""
    return any(part.get("type") == "ByteLevel" for part in members(values.get("pre_tokenizer"), "pretokenizers"))


def take_symbols(
    cutter: Mapping[str, Any] | None, vocab: Mapping[str, int]
) -> tuple[Mapping[str, Any] | None, list[int]]:
    """SentencePiece's own symbols, which stand as the alternatives of a last Split: the ids, and the pre-tokenizer
    without it."""
    parts = list(members(cutter, "pretokenizers"))
    last = parts[-1] if parts else {}
    if last.get("type") != "Split" or last.get("behavior") != "Isolated" or last.get("invert"):
        return cutter, []
    texts = _alternatives(last["pattern"].get("Regex") or "")
    if not texts or not all(text in vocab for text in texts) or sorted(texts, key=len, reverse=True) != texts:
        return cutter, []
    rest = {"type": "Sequence", "pretokenizers": parts[:-1]} if len(parts) > 1 else None
    return rest, [vocab[text] for text in texts]


def _alternatives(expression: str) -> list[str]:
    """The texts of an expression that is nothing but texts; none of any other."""
    words = [""]
    characters = iter(expression)
    for character in characters:
        if character == "|":
            words.append("")
        elif character == "\\":
            escaped = next(characters, "a")
            if escaped.isalnum():
                return []
            words[-1] += escaped
        elif character in ".^$*+?{}[]()":
            return []
        else:
            words[-1] += character
    return words if all(words) else []


def read_spaces(
    path: Path, normalizer: Mapping[str, Any] | None, cutter: Mapping[str, Any] | None, added: Iterable[str]
) -> dict[str, Any]:
    """How a file of SentencePiece's kind treats spaces, as fields of a Vocabulary.

    What Llamas' files say is told in switches; anything else stays as it is in `splitter`, for the library to do.

    Args:
        path: for messages.
        normalizer, cutter: of the file.
        added: the texts of its added tokens.

    Raises:
        UnsupportedError: spaces do not become ▁, so the file is of another kind.
    """
    normalizers = list(members(normalizer, "normalizers"))
    cutters = list(members(cutter, "pretokenizers"))
    prepends = [part for part in normalizers if part.get("type") == "Prepend" and part.get("prepend") == SPACE]
    escapes = [part for part in normalizers if part.get("type") == "Replace" and _escapes(part)]
    metaspaces = [part for part in cutters if part.get("type") == "Metaspace" and part.get("replacement") == SPACE]
    if not escapes and not metaspaces:
        odd = [part for part in normalizers if part not in prepends] + cutters
        if odd:
            raise UnsupportedError(f"{path}: {odd[0].get('type')!r} is not supported for a vocabulary with {SPACE}")
        raise UnsupportedError(f"{path}: neither byte-level nor SentencePiece's kind of BPE; no other is supported")
    scheme = _scheme(metaspaces[0]) if metaspaces else "never"
    fields: dict[str, Any] = {
        "space_prefix": bool(prepends) or scheme != "never",
        "doubles_space": not metaspaces,
        "prefix_once": scheme == "first" and not prepends,
    }
    legacy = not cutters and normalizers in ([*prepends, *escapes], escapes)
    whole = metaspaces == cutters and len(cutters) == 1 and not metaspaces[0].get("split", True)
    harmless = not normalizers or (normalizers == escapes and not any({" ", SPACE} & {*text} for text in added))
    if not legacy and not (whole and harmless):
        fields["splitter"] = Splitter(normalizer, cutter)
    return fields


def _escapes(part: Mapping[str, Any]) -> bool:
    return part.get("pattern") == {"String": " "} and part.get("content") == SPACE


def _scheme(metaspace: Mapping[str, Any]) -> str:
    return str(metaspace.get("prepend_scheme", "always" if metaspace.get("add_prefix_space", True) else "never"))


def with_prefix(cutter: Mapping[str, Any] | None, prefix: bool) -> Mapping[str, Any] | None:
    """A pre-tokenizer for text before which SentencePiece's space belongs, or does not, wherever the text stands."""
    if cutter is None:
        return None
    if cutter.get("type") == "Sequence":
        return {**cutter, "pretokenizers": [with_prefix(part, prefix) for part in cutter["pretokenizers"]]}
    if cutter.get("type") != "Metaspace":
        return cutter
    scheme = "always" if prefix and _scheme(cutter) != "never" else "never"
    return {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": cutter.get("split", True)}


def read_template(processor: Mapping[str, Any] | None) -> tuple[str | None, str | None]:
    """The special tokens that a post-processor puts before and after one text; None where it puts none."""
    for part in members(processor, "processors"):
        if part.get("type") != "TemplateProcessing":
            continue
        names = [item["SpecialToken"]["id"] if "SpecialToken" in item else None for item in part["single"]]
        at = names.index(None)
        return (names[0] if at else None), (names[-1] if at < len(names) - 1 else None)
    return None, None


def write_parts(vocabulary: Vocabulary) -> dict[str, Any]:
    """normalizer, pre_tokenizer, post_processor and decoder for a vocabulary."""
    template = _template(vocabulary)
    if vocabulary.kind == "bpe":
        spelled = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
        return {
            "normalizer": vocabulary.splitter.normalizer,
            "pre_tokenizer": vocabulary.splitter.pre_tokenizer,
            "post_processor": template,
            "decoder": spelled,
        }
    spaces, symbols = _spaces(vocabulary), sorted(vocabulary.symbols(), key=len, reverse=True)
    if symbols:
        split = {"type": "Split", "pattern": {"Regex": "|".join(map(re.escape, symbols))}, "behavior": "Isolated"}
        parts = [*members(spaces["pre_tokenizer"], "pretokenizers"), {**split, "invert": False}]
        spaces["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": parts}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if vocabulary.space_prefix else []
    return {
        **spaces,
        "post_processor": template,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                *strip,
            ],
        },
    }


def _spaces(vocabulary: Vocabulary) -> dict[str, Any]:
    """normalizer and pre_tokenizer for SentencePiece's kind."""
    splitter = vocabulary.splitter
    if splitter.normalizer is not None or splitter.pre_tokenizer is not None:
        return {"normalizer": splitter.normalizer, "pre_tokenizer": splitter.pre_tokenizer}
    collapse = [({"Regex": r"\A +| +\z"}, ""), ({"Regex": " {2,}"}, " ")] if vocabulary.collapses else []
    replaced = [
        {"type": "Replace", "pattern": pattern, "content": content}
        for pattern, content in (*collapse, ({"String": " "}, SPACE))
    ]
    if vocabulary.doubles_space:
        # Prepend, not Metaspace's prepending, which leaves out the space before a text that starts with one.
        prepend = [{"type": "Prepend", "prepend": SPACE}] if vocabulary.space_prefix else []
        return {
            "normalizer": {"type": "Sequence", "normalizers": [*replaced[:-1], *prepend, replaced[-1]]},
            "pre_tokenizer": None,
        }
    scheme = "never" if not vocabulary.space_prefix else "first" if vocabulary.prefix_once else "always"
    metaspace = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": False}
    normalizer = {"type": "Sequence", "normalizers": replaced[:-1]} if collapse else None
    return {"normalizer": normalizer, "pre_tokenizer": metaspace}


def _template(vocabulary: Vocabulary) -> dict[str, Any] | None:
    """A post-processor that adds BOS and EOS where the vocabulary says so."""
    before = [vocabulary.bos_id] if vocabulary.adds_bos and vocabulary.bos_id is not None else []
    after = [vocabulary.eos_id] if vocabulary.adds_eos and vocabulary.eos_id is not None else []
    if not before and not after:
        return None

    def items(sequence: str, kind: int) -> list[dict[str, Any]]:
        def special(id: int) -> dict[str, Any]:
            return {"SpecialToken": {"id": vocabulary.pieces[id], "type_id": kind}}

        middle = {"Sequence": {"id": sequence, "type_id": kind}}
        return [*map(special, before), middle, *map(special, after)]

    tokens = {
        vocabulary.pieces[id]: {"id": vocabulary.pieces[id], "ids": [id], "tokens": [vocabulary.pieces[id]]}
        for id in {*before, *after}
    }
    return {
        "type": "TemplateProcessing",
        "single": items("A", 0),
        "pair": [*items("A", 0), *items("B", 1)],
        "special_tokens": tokens,
    }


def members(part: Mapping[str, Any] | None, name: str) -> Iterator[Mapping[str, Any]]:
    """The members of nested sequences, in order."""
    if part is not None and part.get("type") == "Sequence":
        for member in part[name]:
            yield from members(member, name)
    elif part is not None:
        yield part
