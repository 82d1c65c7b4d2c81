"""Files that were made to hurt: each is one line, and neither time nor memory grows with what they promise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from camelid.errors import CamelidError, FormatError, OptionError
from camelid.tokens.templates.chat_format import Message, template_format
from camelid.tokens.tokenizer import Tokenizer
from camelid.tokens.vocabulary import byte_characters
from tests.tokens.vocabularies import small_bytes

_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_VOCAB = {piece: id for id, piece in enumerate(byte_characters())}
_TEXTS = ("hello a", "a" * 40 + "!", "<x>" * 1000)


def _token(id: Any, content: Any = "<x>") -> list[dict[str, Any]]:
    return [{"id": id, "content": content, "special": True}]


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _split(expression: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, {**_LEVEL, "use_regex": False}]}


_TEN = _replace({"String": "a"}, "a" * 10)
_SPACES = {"type": "Metaspace", "replacement": "▁"}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"added_tokens": _token(1 << 24)}, "no whole numbers below"),
        ({"added_tokens": _token(1 << 70)}, "no whole numbers below"),
        ({"added_tokens": _token([300])}, "no whole numbers below"),
        ({"added_tokens": _token(True)}, "no whole numbers below"),
        ({"added_tokens": _token(300, ["<x>"])}, "damaged"),
        ({"added_tokens": _token(300, "x" * 5000)}, "an added token of 5000 characters"),
        ({"model": {"type": "BPE", "vocab": ["a"], "merges": []}}, "damaged"),
        ({"model": {"type": "BPE", "vocab": {"a": [0]}, "merges": []}}, "no whole numbers below"),
        ({"model": {"type": "BPE", "vocab": _VOCAB, "merges": [["a", 283]]}}, "merge 'a 283' is not two pieces"),
        ({"model": {"type": "BPE", "vocab": _VOCAB, "merges": [[{}, "a"]]}}, "is not two pieces"),
        ({"normalizer": {"type": "Sequence", "normalizers": [_TEN] * 12}}, "makes more than 65536 characters"),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 9000}}, "9000 members"),
        ({"normalizer": _replace({"String": "a"}, "a" * 10**6)}, "puts in 1000000 characters"),
        ({"normalizer": {"type": "Prepend", "prepend": "a" * 10**6}}, "puts in 1000000 characters"),
        ({"normalizer": [_TEN]}, "damaged"),
        ({"normalizer": _replace({"Regex": "(a+)+$"}, "")}, "correct its expressions"),
        ({"pre_tokenizer": _split("(a+)+$")}, "correct its expressions"),
        ({"pre_tokenizer": _split("(a+")}, "fetch it again"),
        (
            {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "FixedLength", "length": 0}, _LEVEL]}},
            "chunk",
        ),
        ({"model": {"type": "Unigram", "unk_id": 7, "vocab": [["a", 0.0]]}, "pre_tokenizer": _SPACES}, "damaged"),
        (
            {"model": {"type": "Unigram", "unk_id": 0, "vocab": [["a", float("nan")]]}, "pre_tokenizer": _SPACES},
            "not a number",
        ),
    ],
)
def test_a_hostile_tokenizer_json(
    tmp_path: Path, change: dict[str, Any], word: str, capfd: pytest.CaptureFixture[str]
) -> None:
    model = {"type": "BPE", "vocab": _VOCAB, "merges": []}
    whole = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": _LEVEL,
        "model": model,
        **change,
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    with pytest.raises(FormatError, match=word) as caught:
        _use(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path))
    assert capfd.readouterr().err == ""  # the library's panics write dozens of lines


def _use(folder: Path) -> None:
    tokenizer = Tokenizer.open(folder)
    for text in _TEXTS:
        tokenizer.encode(text, special=True)
        tokenizer.encode_batch([text])


def test_thousands_of_long_added_tokens(tmp_path: Path) -> None:
    added = [token for n in range(3000) for token in _token(256 + n, "<" + "x" * 900 + str(n))]
    model = {"type": "BPE", "vocab": _VOCAB, "merges": []}
    whole = {"version": "1.0", "added_tokens": added, "pre_tokenizer": _LEVEL, "model": model}
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    tokenizer = Tokenizer.open(tmp_path)
    assert tokenizer.encode("<x" + added[7]["content"], special=True) == [*tokenizer.encode("<x"), 263]
    assert len(tokenizer.encode("<x>" * 1000, special=True)) == 3000


def test_a_control_token_that_is_a_letter() -> None:
    """Its letter in a name that the template writes, or in a text, is an error: it must not become a control token."""
    fields = dict(small_bytes("<|im_start|>", "<|im_end|>").to_gguf())
    letter = fields["tokenizer.ggml.eos_token_id"] = _VOCAB["u"]
    tokenizer = Tokenizer.from_gguf(fields)
    assert tokenizer.eos_id == letter
    template = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + m['content'] }}{% endfor %}"
    for role, content in (("user", "a"), ("system", "you")):
        with pytest.raises(CamelidError) as caught:
            template_format(tokenizer, template).render(tokenizer, [Message(role, content)])
        assert "\n" not in str(caught.value)
    with pytest.raises(OptionError, match=r"has nothing for U\+0075"):
        tokenizer.encode("you")
    assert tokenizer.encode("you", special=True)[2] == letter
