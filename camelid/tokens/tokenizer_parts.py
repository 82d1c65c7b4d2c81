"""The parts of a tokenizer.json around its model: normaliser, pre-tokenizer, post-processor, decoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from camelid.errors import UnsupportedError
from camelid.tokens.vocabulary import SPACE, Vocabulary


def is_byte_level(values: Mapping[str, Any]) -> bool:
    """Does the file spell bytes, as GPT-2 does? Otherwise it must be SentencePiece's kind."""
    return any(part.get("type") == "ByteLevel" for part in _members(values.get("pre_tokenizer"), "pretokenizers"))


def read_prefix(path: Path, values: Mapping[str, Any]) -> tuple[bool, bool]:
    """Does a file of SentencePiece's kind begin each text with a space, and one that has a space already?

    Raises:
        UnsupportedError: the file changes text otherwise than SentencePiece does for Llamas.
    """
    prefix, doubles, spaces = False, True, False
    for part in _members(values.get("normalizer"), "normalizers"):
        kind = part.get("type")
        if kind == "Prepend" and part.get("prepend") == SPACE:
            prefix = True
        elif kind == "Replace" and part.get("pattern") == {"String": " "} and part.get("content") == SPACE:
            spaces = True
        else:
            raise UnsupportedError(f"{path}: normalizer {kind!r} is not done for a vocabulary with {SPACE}")
    for part in _members(values.get("pre_tokenizer"), "pretokenizers"):
        if part.get("type") != "Metaspace" or part.get("replacement") != SPACE or part.get("split", True):
            raise UnsupportedError(
                f"{path}: pre_tokenizer {part.get('type')!r} is not done for a vocabulary with {SPACE}"
            )
        scheme = part.get("prepend_scheme", "always" if part.get("add_prefix_space", True) else "never")
        doubles = doubles and (prefix or scheme == "never")
        prefix, spaces = prefix or scheme != "never", True
    if not spaces:
        raise UnsupportedError(f"{path}: neither byte-level nor SentencePiece's kind of BPE; only those are done")
    return prefix, doubles


def read_template(processor: Mapping[str, Any] | None) -> tuple[str | None, str | None]:
    """The special tokens that a post-processor puts before and after one text; None where it puts none."""
    for part in _members(processor, "processors"):
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
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if vocabulary.space_prefix else []
    # Prepend, not Metaspace's prepending, which leaves out the space before a text that starts with one.
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prepend = [{"type": "Prepend", "prepend": SPACE}] if vocabulary.space_prefix and vocabulary.doubles_space else []
    scheme = "first" if vocabulary.space_prefix else "never"
    metaspace = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": False}
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*prepend, spaces]} if vocabulary.doubles_space else None,
        "pre_tokenizer": None if vocabulary.doubles_space else metaspace,
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


def _members(part: Mapping[str, Any] | None, name: str) -> Iterator[Mapping[str, Any]]:
    """The members of nested sequences, in order."""
    if part is not None and part.get("type") == "Sequence":
        for member in part[name]:
            yield from _members(member, name)
    elif part is not None:
        yield part
