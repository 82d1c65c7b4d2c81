"""Which ids overlap a stretch of a text, by the offsets of the `tokenizers` library."""

from __future__ import annotations

import tempfile
from functools import cache

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.errors import OptionError
from camelid.tokens.spans import overlapping, within
from camelid.tokens.tokenizer import Tokenizer
from tests.tokens.vocabularies import small_bytes, small_llama2

_MARK = "\ufdd0"


@cache
def _pair(kind: str) -> tuple[Tokenizer, tokenizers.Tokenizer]:
    """A tokenizer, and the library's of the same file."""
    library = tokenizers.Tokenizer(tokenizers.models.BPE())
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = tokenizers.decoders.ByteLevel()
    if kind == "NFC":
        library.normalizer = tokenizers.normalizers.NFC()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|end|>"],
        show_progress=False,
    )
    library.train_from_iterator(["Hello world, hé said: 日本 日本 the cat said hello"] * 9, trainer)
    with tempfile.TemporaryDirectory() as folder:
        library.save(f"{folder}/tokenizer.json")
        return Tokenizer.open(folder), library


_TEXTS = st.lists(
    st.sampled_from(["Hello", " world", "hé", " said", "日本", " the", " ", "\n", "e", "<|end|>", "<"]), max_size=8
).map("".join)


@pytest.mark.parametrize("kind", ["plain", "NFC"])
@settings(max_examples=150, deadline=None)
@given(text=_TEXTS, edges=st.lists(st.integers(0, 40), max_size=4))
def test_as_the_librarys_offsets(kind: str, text: str, edges: list[int]) -> None:
    ours, library = _pair(kind)
    places = sorted(min(edge, len(text)) for edge in edges[: len(edges) // 2 * 2])
    spans = list(zip(places[::2], places[1::2], strict=True))
    encoding = library.encode(text, add_special_tokens=False)
    wanted = [
        any(start < last and end > first for first, last in spans if first < last) for start, end in encoding.offsets
    ]
    assert ours.encode_spans(text, spans, mark=_MARK) == (encoding.ids, wanted)


def test_marks_do_not_count() -> None:
    tokenizer = small_bytes("<|end|>")
    text = f"a<{_MARK}|end|>b<|end|>c"
    ids, mask = tokenizer.encode_spans(text, [(8, 16)], mark=_MARK)
    assert ids == tokenizer.encode_marked(text, _MARK)
    assert [id for id, inside in zip(ids, mask, strict=True) if inside] == [ord("b"), 256]


@pytest.mark.parametrize("segment", [False, True])
def test_a_space_put_before_the_text_belongs_to_its_beginning(segment: bool) -> None:
    tokenizer = small_llama2()
    ids, mask = tokenizer.encode_spans("ab", [(0, 1)], segment=segment)
    assert ids == (tokenizer.encode_segment("ab") if segment else tokenizer.encode("ab"))
    assert mask == [True, False]
    assert tokenizer.encode_spans("b☺ c", [(1, 2)], segment=segment)[1].count(True) == 1


def test_a_character_that_the_normaliser_joins_over_an_edge_is_refused() -> None:
    tokenizer, _ = _pair("NFC")
    assert tokenizer.encode_spans("He\u0301llo", [(0, 3)], mark=_MARK)[1][0]
    with pytest.raises(OptionError, match=r"^mask: this model's normaliser joins characters where an answer begins"):
        tokenizer.encode_spans("He\u0301llo", [(2, 6)], mark=_MARK)


def test_what_is_not_spelled_is_refused() -> None:
    with pytest.raises(OptionError, match=r"^mask: this vocabulary cannot spell every character beside an answer"):
        overlapping([b"a", b"?"], "a\u2603", [(0, 1)], " ")
    assert overlapping([b"a", b"?"], "a\u2603", [(0, 2)], " ") == [True, True]
    assert within([(1, 3), (5, 9)], 2, 6) == [(0, 1), (3, 4)]
    assert within([(1, 3)], 3, 6) == []
