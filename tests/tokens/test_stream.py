"""Streams of text, against decoding everything at once."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from camelid.errors import OptionError
from camelid.tokens.stream import TextStream
from camelid.tokens.tokenizer import Tokenizer
from camelid.tokens.vocabulary import byte_characters

_P = "tokenizer.ggml."


@cache
def _bytes_kind() -> Tokenizer:
    """256 bytes, a few longer pieces over the letters of the stop strings, and a control token."""
    tokens = [*byte_characters(), "ab", "ba", "aa", "aba", "bab", "<|end|>"]
    types = [1] * 261 + [3]
    merges = ["a b", "b a", "a a", "ab a", "b ab"]
    fields: dict[str, Any] = {"model": "gpt2", "pre": "gpt-2", "tokens": tokens, "token_type": types, "merges": merges}
    return Tokenizer.from_gguf({_P + key: value for key, value in {**fields, "eos_token_id": 261}.items()})


@cache
def _spaces_kind() -> Tokenizer:
    """SentencePiece's kind: bytes, and pieces with and without a space in front."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "ab", "é", "▁▁"]
    fields: dict[str, Any] = {
        "model": "llama",
        "tokens": tokens,
        "scores": [0.0] * 259 + [-9.0, -8.0, -7.0, -1.0, -2.0, -10.0, -3.0],
        "token_type": [2, 3, 3] + [6] * 256 + [1] * 7,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
    }
    return Tokenizer.from_gguf({_P + key: value for key, value in fields.items()})


_KINDS = {"bytes": _bytes_kind, "spaces": _spaces_kind}


def _ids(kind: str) -> st.SearchStrategy[list[int]]:
    """Any ids, and ids of text that holds whole characters."""
    tokenizer = _KINDS[kind]()
    texts = st.text("ab é日😀 ", max_size=12).map(tokenizer.encode_segment)
    anything = st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=12)
    return st.lists(texts | anything, max_size=4).map(lambda parts: [id for part in parts for id in part])


@pytest.mark.parametrize("kind", _KINDS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_the_pieces_joined_are_the_text(kind: str, data: st.DataObject) -> None:
    tokenizer, ids = _KINDS[kind](), data.draw(_ids(kind))
    stream = TextStream(tokenizer, starts_text=True)
    pieces = [stream.push(id) for id in ids]
    assert "".join(pieces) + stream.finish() == tokenizer.decode(ids)
    inside = TextStream(tokenizer)
    text = "".join([inside.push(id) for id in ids]) + inside.finish()
    assert text == b"".join(map(tokenizer.token_bytes, ids)).decode("utf-8", "replace")
    assert not stream.stopped
    assert stream.stop_string is None


@pytest.mark.parametrize("kind", _KINDS)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_half_a_character_never_leaves(kind: str, data: st.DataObject) -> None:
    tokenizer = _KINDS[kind]()
    text = data.draw(st.text("aé日😀", max_size=8))
    stream = TextStream(tokenizer)
    pieces = [stream.push(id) for byte in text.encode() for id in [_byte(tokenizer, byte)]]
    assert "\ufffd" not in "".join(pieces)
    assert "".join(pieces) == text
    assert stream.finish() == ""


def _byte(tokenizer: Tokenizer, byte: int) -> int:
    name = f"<0x{byte:02X}>" if tokenizer.kind == "sentencepiece" else byte_characters()[byte]
    id = tokenizer.id_of(name)
    assert id is not None
    return id


def _expected(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The definition: read character by character; the first moment at which the text ends in a stop string."""
    for end in range(len(text) + 1):
        met = [stop for stop in stops if text[:end].endswith(stop)]
        if met:
            stop = max(met, key=len)
            return text[: end - len(stop)], stop
    return text, None


@example(ids=[256, 256, 97], stops=["aba"])
@example(ids=[97, 98, 99, 100], stops=["abcd", "bc"])
@example(ids=[97, 97, 98], stops=["ab", "aab"])
@settings(max_examples=600, deadline=None)
@given(
    ids=st.lists(st.sampled_from([97, 98, 99, 256, 257, 258, 259, 260, 261, 0xC3, 0xA9]), max_size=14),
    stops=st.lists(st.text("abcé", min_size=1, max_size=5), max_size=3),
)
def test_the_first_stop_string_ends_the_text(ids: list[int], stops: list[str]) -> None:
    tokenizer = _bytes_kind()
    stream = TextStream(tokenizer, stops)
    shown, emitted = "", []
    whole, met = _expected(tokenizer.decode(ids), stops)
    for id in ids:
        emitted.append(stream.push(id))
        shown += emitted[-1]
        assert whole.startswith(shown)  # so no part of the stop string has leaked
        assert stream.stopped == (stream.stop_string is not None)
    assert (shown + stream.finish(), stream.stop_string) == (whole, met)


@settings(max_examples=300, deadline=None)
@given(text=st.text("ab", max_size=16), stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_what_cannot_become_a_stop_string_is_not_held_back(text: str, stops: list[str]) -> None:
    stream = TextStream(_bytes_kind(), stops)
    shown = "".join(stream.push(ord(letter)) for letter in text)
    if not stream.stopped:
        held = text[len(shown) :]
        assert held == "" or any(stop.startswith(held) for stop in stops)


def test_after_a_stop_string_nothing_comes() -> None:
    stream = TextStream(_bytes_kind(), ["b"])
    assert [stream.push(id) for id in (97, 98, 97)] == ["a", "", ""]
    assert (stream.finish(), stream.stop_string, stream.stopped) == ("", "b", True)


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(OptionError, match=r"^stop: "):
        TextStream(_bytes_kind(), ["a", ""])


def test_the_space_in_front_belongs_to_running_text_only() -> None:
    tokenizer = _spaces_kind()
    ids = tokenizer.encode("a a")
    running, beginning = TextStream(tokenizer), TextStream(tokenizer, starts_text=True)
    assert "".join(map(running.push, [1, *ids])) == " a a"
    assert "".join(map(beginning.push, [1, *ids])) == "a a" == tokenizer.decode([1, *ids])


def test_control_tokens_that_are_shown_come_in_their_place() -> None:
    """Behind what was held back as the beginning of a stop string, and as part of one."""
    stream = TextStream(_bytes_kind(), ["ab", "<|end|>!"], shown={261: "<|end|>"})
    assert [stream.push(id) for id in (97, 261, 97, 98)] == ["", "a", "<|end|>", ""]
    assert (stream.finish(), stream.stop_string) == ("", "ab")
    other = TextStream(_bytes_kind(), ["<|end|>!"], shown={261: "<|end|>"})
    assert [other.push(id) for id in (0xC3, 261, 33)] == ["", "\ufffd", ""]
    assert other.stopped


@pytest.mark.parametrize(
    ("stops", "ids", "text", "met"),
    [
        (["<|end|>"], [97, 261, 98], "a", "<|end|>"),
        (["<|end|>"], [97, *b"<|end|>", 98], "a", "<|end|>"),
        (["b<|end|>a"], [97, 98, 261, 97, 98], "a", "b<|end|>a"),
        (["b<|end|>a"], [97, 98, 261, 98, 97], "abba", None),
        (["<|end|><|end|>"], [97, 261, 98, 261, 261, 98], "ab", "<|end|><|end|>"),
        (["<|end|>b", "ba"], [97, 261, 97, 98, 97], "aa", "ba"),
        (["<|end|>", "ab"], [97, 98, 261], "", "ab"),
        (["<|end"], [97, 261, 98], "ab", None),
    ],
)
def test_a_stop_string_with_a_control_token(stops: list[str], ids: list[int], text: str, met: str | None) -> None:
    """Control tokens have no text, but they are found, as tokens and as characters."""
    stream = TextStream(_bytes_kind(), stops)
    assert "".join(map(stream.push, ids)) + stream.finish() == text
    assert stream.stop_string == met


def _vllm(pieces: list[str], stops: list[str], min_tokens: int) -> str:
    """vLLM's loop (v1/engine/detokenizer.py): text of the first tokens is not looked at, but may begin a match."""
    text, looked = "", 0
    for n, piece in enumerate(pieces, start=1):
        text += piece
        if n <= min_tokens:
            looked = len(text)
            continue
        ends = [(at + len(stop), at) for stop in stops if (at := text.find(stop, max(0, looked + 1 - len(stop)))) >= 0]
        if ends:
            return text[: min(ends)[1]]
        looked = len(text)
    return text


@example(ids=[97, 98, 97, 98], stops=["ab"], min_tokens=2)
@example(ids=[97, 98, 97, 98], stops=["ba"], min_tokens=2)
@settings(max_examples=400, deadline=None)
@given(
    ids=st.lists(st.sampled_from([97, 98, 256, 257, 258, 259, 260]), max_size=12),
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=2),
    min_tokens=st.integers(0, 8),
)
def test_min_tokens_holds_against_stop_strings(ids: list[int], stops: list[str], min_tokens: int) -> None:
    tokenizer = _bytes_kind()
    stream = TextStream(tokenizer, stops, min_tokens=min_tokens)
    found = "".join(map(stream.push, ids)) + stream.finish()
    assert found == _vllm([tokenizer.decode([id]) for id in ids], stops, min_tokens)
