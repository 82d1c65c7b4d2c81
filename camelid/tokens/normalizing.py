"""What a vocabulary does to text before it is cut: the normaliser of a tokenizer.json, SentencePiece's, or nothing.

A normaliser of a file runs member by member, and what each may add is bounded: a file must not turn a sentence into
gigabytes.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Callable, Mapping
from typing import Any

import tokenizers

from camelid.errors import FormatError
from camelid.tokens.files.tokenizer_parts import members
from camelid.tokens.vocabulary import SPACE, Vocabulary

Normalize = Callable[[str, bool], str]

_MOST_MEMBERS = 64
_LONGEST_CONTENT = 64  # characters that one Replace or Prepend may put in
_MOST_GROWTH, _FREE = 32, 1 << 16  # a text may become so many times as long, or this long
_STDERR = threading.Lock()
_EMPTY = {"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}


def build_normalize(vocabulary: Vocabulary) -> Normalize | None:
    """A function of a text, and whether SentencePiece's space belongs before it, to the text that is cut; None if
    nothing is changed.

    Raises:
        FormatError: the normaliser is damaged, or puts in more than any model's does.
    """
    normalizer = vocabulary.splitter.normalizer
    if normalizer is not None:
        return _from_json(vocabulary.source, normalizer)
    if vocabulary.kind == "bpe":
        return None
    if vocabulary.charsmap or vocabulary.collapses:
        from camelid.tokens.sentencepiece_text import SentencePieceText

        return SentencePieceText(vocabulary)
    if not vocabulary.doubles_space:
        return None
    return _escape if vocabulary.space_prefix else _escape_only


def library_part(part: str, values: Mapping[str, Any] | None, source: str) -> Any:
    """The library's object for a part of a tokenizer.json, `normalizer` or `pre_tokenizer`; None for none.

    Raises:
        FormatError: the library does not know it.
    """
    if values is None:
        return None
    try:
        return getattr(tokenizers.Tokenizer.from_str(json.dumps({**_EMPTY, part: values})), part)
    except Exception as error:  # the library has no class of its own for this
        raise FormatError(f"{source}: normalizer or pre_tokenizer: {error}; fetch it again") from None


def asked(call: Callable[[], Any], source: str) -> Any:
    """What the library answers.

    Raises:
        FormatError: it panics, which it does with a `BaseException` where an expression of the file leads nowhere.
    """
    try:
        return call()
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise FormatError(f"{source}: normalizer or pre_tokenizer: {error}; correct its expressions") from None


def asked_quietly(call: Callable[[], Any], source: str) -> Any:
    """The same for files with expressions of their own: what the library writes to standard error as it panics goes
    nowhere; what others write meanwhile comes after."""
    with _STDERR, tempfile.TemporaryFile() as held:
        try:
            real = os.dup(2)
        except OSError:  # there is none
            return asked(call, source)
        panics = True
        os.dup2(held.fileno(), 2)
        try:
            answer = asked(call, source)
            panics = False
            return answer
        finally:
            os.dup2(real, 2)
            os.close(real)
            held.seek(0)
            if not panics and (written := held.read()):
                os.write(2, written)


def _escape(text: str, prefix: bool) -> str:
    return (SPACE if prefix and text else "") + text.replace(" ", SPACE)


def _escape_only(text: str, prefix: bool) -> str:
    return text.replace(" ", SPACE)


def _from_json(source: str, normalizer: Mapping[str, Any]) -> Normalize:
    parts = list(members(normalizer, "normalizers"))
    if len(parts) > _MOST_MEMBERS:
        raise FormatError(f"{source}: normalizer: {len(parts)} members, at most {_MOST_MEMBERS}; fetch it again")
    for part in parts:
        content = part.get("content", part.get("prepend", ""))
        if isinstance(content, str) and len(content) > _LONGEST_CONTENT:
            raise FormatError(f"{source}: normalizer: puts in {len(content)} characters at once; fetch it again")
    steps = [(part.get("prepend") == SPACE, library_part("normalizer", part, source)) for part in parts]
    own = any("Regex" in part.get("pattern", ()) for part in parts)
    ask = asked_quietly if own else asked
    only_nfc = [part.get("type") for part in parts] == ["NFC"]

    def normalize(text: str, prefix: bool) -> str:
        if only_nfc and text.isascii():
            return text
        most = max(_FREE, _MOST_GROWTH * len(text))
        for prepends, step in steps:
            if prepends and not prefix:
                continue
            text = ask(lambda step=step, text=text: step.normalize_str(text), source)  # type: ignore[misc]
            if len(text) > most:
                raise FormatError(f"{source}: normalizer: makes more than {most} characters of a text; fetch it again")
        return text

    return normalize
