"""GGUF vocabularies: the default model's, read with the gguf package, and small ones made here."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.errors import FormatError, OptionError, UnsupportedError
from camelid.tokens.pretokenizers import PRETOKENIZERS, name_of
from camelid.tokens.tokenizer import Tokenizer
from camelid.tokens.vocabulary import byte_characters
from tests.tokens.vocabularies import smollm2, smollm2_fields

_P = "tokenizer.ggml."


@pytest.mark.model
def test_the_default_models_vocabulary(smollm2_path: Path) -> None:
    tokenizer = smollm2(smollm2_path)
    assert (tokenizer.kind, tokenizer.vocab_size, tokenizer.adds_bos) == ("bpe", 49152, False)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id, tokenizer.pad_id) == (1, 2, 0, 2)
    assert sorted(tokenizer.special_ids.values()) == list(range(17))
    assert tokenizer.encode("<|im_start|>user", special=True) == [1, tokenizer.id_of("user")]
    assert 1 not in tokenizer.encode("<|im_start|>user")
    assert tokenizer.piece(1) == "<|im_start|>"
    assert tokenizer.piece(tokenizer.id_of("Ġthe") or 0) == " the"
    assert "".join(map(tokenizer.piece, tokenizer.encode("é \n"))) == "é \n"
    assert tokenizer.piece(tokenizer.id_of("Ã") or 0) == r"\xc3"
    assert tokenizer.token_bytes(tokenizer.id_of("Ġthe") or 0) == b" the"
    assert len(tokenizer.encode("2024")) == 4


@pytest.mark.model
def test_the_default_models_fields_come_back(smollm2_path: Path) -> None:
    fields = smollm2_fields(smollm2_path)
    assert smollm2(smollm2_path).to_gguf() == {key: value for key, value in fields.items() if key.startswith(_P)}


@pytest.mark.model
@settings(max_examples=300, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(" \n\t09aé日😀"), max_size=40))
def test_the_default_models_text_comes_back(smollm2_path: Path, text: str) -> None:
    tokenizer = smollm2(smollm2_path)
    # The vocabulary lacks a few control characters and planes that nobody uses.
    if any(letter in "\x04\x06\x13\x14\x16\x1d" or 0x40000 <= ord(letter) < 0xC0000 for letter in text):
        with pytest.raises(OptionError, match=r"has nothing for U\+"):
            tokenizer.encode(text)
        return
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()


@pytest.mark.slow
@pytest.mark.model
@settings(max_examples=300, deadline=None)
@given(text=st.text("abc xyz019 \n'sé日<|im_start>", max_size=60))
def test_the_default_model_cuts_as_transformers_does(smollm2_path: Path, text: str) -> None:
    assert smollm2(smollm2_path).encode(text, special=True) == _fast(smollm2_path).encode(text)


@cache
def _fast(path: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    backend = tokenizers.Tokenizer.from_str(smollm2(path).to_json())
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend)


def _small(**changes: Any) -> dict[str, Any]:
    characters = byte_characters()
    fields = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": [*characters, "ab", "<|end|>", "<tool>", "Ġa"],
        "token_type": [1] * 257 + [3, 4, 1],
        "merges": ["a b", "Ġ a"],
        "eos_token_id": 257,
        **changes,
    }
    return {_P + key: value for key, value in fields.items() if value is not None}


@pytest.mark.slow
@pytest.mark.parametrize("name", PRETOKENIZERS)
@settings(max_examples=40, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(" \n'09aBé日$+.?"), max_size=40))
def test_every_pretokenizer_keeps_all_bytes(name: str, text: str) -> None:
    tokenizer = _tiny(name)
    if PRETOKENIZERS[name].normalizer is None:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    fields = tokenizer.to_gguf()
    again = Tokenizer.from_gguf(fields)
    assert again.encode(text) == tokenizer.encode(text)


@cache
def _tiny(name: str) -> Tokenizer:
    return Tokenizer.from_gguf(_small(pre=name))


@pytest.mark.parametrize("name", PRETOKENIZERS)
def test_every_pretokenizer_is_recognised_in_json(name: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(_tiny(name).to_json(), encoding="utf-8")
    opened = Tokenizer.open(tmp_path)
    assert opened.fingerprint() == _tiny(name).fingerprint()
    assert opened.to_gguf()[_P + "pre"] == name_of(PRETOKENIZERS[name]) == _tiny(name).to_gguf()[_P + "pre"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("gpt-2", "it's 1234  x\n", ["it", "'s", " 1234", " ", " x", "\n"]),
        ("smollm", "a 12", ["a", " ", "1", "2"]),
        ("llama-bpe", "I'LL 12345 a!\n\nb", ["I", "'LL", " ", "123", "45", " a", "!\n\n", "b"]),
        ("qwen2", "12 (x)", ["1", "2", " (", "x", ")"]),
        ("default", "a.b 1234", ["a", ".", "b", " ", "123", "4"]),
        ("tekken", "camelCase HTTP", ["camel", "Case", " HTTP"]),
        ("deepseek-coder", "a 日b\n1", ["a", " ", "日", "b", "\n", "1"]),
    ],
)
def test_where_words_end(name: str, text: str, words: list[str]) -> None:
    cutter = tokenizers.Tokenizer.from_str(_tiny(name).to_json()).pre_tokenizer
    assert [text[start:end] for _, (start, end) in cutter.pre_tokenize_str(text)] == words


def test_added_text_is_found_but_control_tokens_are_not() -> None:
    tokenizer = Tokenizer.from_gguf(_small())
    assert tokenizer.encode("ab<tool>ab<|end|>")[:3] == [256, 258, 256]
    assert 257 not in tokenizer.encode("ab<tool>ab<|end|>")
    assert tokenizer.token_bytes(258) == b"<tool>"
    assert tokenizer.decode([256, 258, 257]) == "ab<tool>"


def test_control_by_role_or_by_look() -> None:
    """Some files give chat tokens the type of ordinary added text; what a user types must not become them."""
    fields = _small(tokens=[*byte_characters(), "ab", "<|end|>", "</stop>", "Ġa"], token_type=[1] * 257 + [4, 4, 1])
    tokenizer = Tokenizer.from_gguf({**fields, _P + "eos_token_id": 258})
    assert dict(tokenizer.special_ids) == {"<|end|>": 257, "</stop>": 258}
    assert not {257, 258} & set(tokenizer.encode("<|end|></stop>"))


def test_flags() -> None:
    assert Tokenizer.from_gguf(_small(pre="llama-bpe", bos_token_id=257)).adds_bos
    assert not Tokenizer.from_gguf(_small(pre="llama-bpe", bos_token_id=257, add_bos_token=False)).adds_bos
    assert Tokenizer.from_gguf(_small(eot_token_id=257)).to_gguf()[_P + "eot_token_id"] == 257
    assert Tokenizer.from_gguf(_small(padding_token_id=0xFFFFFFFF)).pad_id is None
    with pytest.raises(OptionError, match="bos"):
        Tokenizer.from_gguf(_small()).encode("a", bos=True)


def _llama(**changes: Any) -> dict[str, Any]:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "ab"]
    fields = {
        "model": "llama",
        "tokens": tokens,
        "scores": [0.0] * 259 + [-9.0, -8.0, -7.0, -1.0, -2.0],
        "token_type": [2, 3, 3] + [6] * 256 + [1] * 5,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
        **changes,
    }
    return {_P + key: value for key, value in fields.items() if value is not None}


def test_sentencepiece_kind() -> None:
    tokenizer = Tokenizer.from_gguf(_llama())
    assert (tokenizer.kind, tokenizer.adds_bos, tokenizer.bos_id) == ("sentencepiece", True, 1)
    assert tokenizer.encode("ab", bos=True) == [1, 262, 261]
    assert tokenizer.encode_segment("ab") == [263]
    assert tokenizer.decode([1, 262, 261]) == "ab"
    assert tokenizer.token_bytes(262) == b" a"
    assert tokenizer.token_bytes(262, first=True) == b"a"
    assert tokenizer.token_bytes(3 + 0x0A) == b"\n"
    assert tokenizer.decode([3 + 0xC3, 3 + 0xA9, 3 + 0xC3]) == "é\ufffd"
    assert Tokenizer.from_gguf(tokenizer.to_gguf()).fingerprint() == tokenizer.fingerprint()


def test_without_space_prefix() -> None:
    tokenizer = Tokenizer.from_gguf(_llama(add_space_prefix=False))
    assert tokenizer.encode("ab") == [263]
    assert tokenizer.encode(" ab") == [262, 261]
    assert tokenizer.decode([262, 261]) == " ab"
    assert tokenizer.to_gguf()[_P + "add_space_prefix"] is False


def test_old_files_leave_out_ids_and_types() -> None:
    fields = _llama(token_type=None, bos_token_id=None, eos_token_id=None, unknown_token_id=None)
    old, new = Tokenizer.from_gguf(fields), Tokenizer.from_gguf(_llama())
    assert old.fingerprint() == new.fingerprint()
    assert (old.bos_id, old.eos_id, old.unk_id) == (1, 2, 0)


@pytest.mark.parametrize(
    ("fields", "kind", "word"),
    [
        (_small(model="bert"), UnsupportedError, "model: 'bert' is not supported; .*gpt2, llama"),
        (_small(pre="smolm"), UnsupportedError, "pre: 'smolm' is not known; did you mean 'smollm'"),
        (_small(tokens=None), FormatError, "tokens: missing"),
        (_small(tokens=["a", 1]), FormatError, "tokens: missing or of the wrong kind"),
        (_small(token_type=[1]), FormatError, "1 values for 260 pieces"),
        (_small(token_type=[9] * 260), FormatError, "a type outside 1 to 6"),
        (_small(merges=["ab"]), FormatError, "'ab' is not two pieces"),
        (_small(merges=["a c"]), FormatError, "no piece 'ac'"),
        (_small(eos_token_id=999), FormatError, "eos_token_id: 999"),
        (_llama(scores=[0.0]), FormatError, "1 values for 264 pieces"),
        (_llama(scores=[float("inf")] * 264), FormatError, "a score is not a number"),
        (_llama(scores=[0.0] * 264), UnsupportedError, "have the same score"),
        (_llama(precompiled_charsmap=[1]), FormatError, "table of replacements is damaged"),
        (_llama(precompiled_charsmap="x"), FormatError, "not a list of bytes"),
    ],
)
def test_wrong_fields_are_one_line(fields: dict[str, Any], kind: type[Exception], word: str) -> None:
    with pytest.raises(kind, match=word) as caught:
        Tokenizer.from_gguf(fields)
    assert "\n" not in str(caught.value)
