"""Prompts for filling in, both orders, against Meta's way of leaving out the space before the suffix."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.errors import OptionError
from camelid.tokens.infill import encode_infill, infill_stop_ids
from camelid.tokens.tokenizer import Tokenizer
from tests.tokens.vocabularies import small_bytes, small_llama2

_CODE_LLAMA = ("▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>")


def _after(tokenizer: Tokenizer, text: str) -> list[int]:
    """As Meta's code does it: after a rare character, whose two ids (space and character) are taken off."""
    space = tokenizer.encode("☺")
    ids = tokenizer.encode("☺" + text)
    assert ids[: len(space)] == space
    return ids[len(space) :]


@settings(max_examples=300, deadline=None)
@given(prefix=st.text("ab x\n[é", max_size=12), suffix=st.text("ab x\n[é", max_size=12))
def test_code_llama(prefix: str, suffix: str) -> None:
    tokenizer = small_llama2(*_CODE_LLAMA)
    pre, suf, mid, end = (tokenizer.special_ids[piece] for piece in _CODE_LLAMA)
    before, after = tokenizer.encode(prefix), _after(tokenizer, suffix)
    assert encode_infill(tokenizer, prefix, suffix) == [1, pre, *before, suf, *after, mid]
    assert encode_infill(tokenizer, prefix, suffix, order="spm") == [1, pre, suf, *after, mid, *before]
    assert infill_stop_ids(tokenizer) == (end,)


def test_typed_marks_stay_text() -> None:
    tokenizer = small_llama2(*_CODE_LLAMA)
    marks = {tokenizer.special_ids[piece] for piece in _CODE_LLAMA}
    assert not marks & set(tokenizer.encode("a <PRE> ▁<SUF> <MID>▁<EOT>"))
    assert sum(id in marks for id in encode_infill(tokenizer, "<PRE> ▁<MID>", " <SUF>▁<EOT>")) == 3


def test_other_models_tokens() -> None:
    tokenizer = small_bytes("<|endoftext|>", "<fim_prefix>", "<fim_suffix>", "<fim_middle>")
    assert encode_infill(tokenizer, "a", "b") == [257, ord("a"), 258, ord("b"), 259]
    assert encode_infill(tokenizer, "a", "b", order="spm") == [257, 258, ord("b"), 259, ord("a")]
    assert infill_stop_ids(tokenizer) == (256,)


def test_no_tokens_for_it() -> None:
    for function in (lambda t: encode_infill(t, "a", "b"), infill_stop_ids):
        with pytest.raises(OptionError, match=r"no tokens? for"):
            function(small_llama2())
    with pytest.raises(OptionError, match="order"):
        encode_infill(small_llama2(*_CODE_LLAMA), "a", "b", order="mid")  # type: ignore[arg-type]
