"""tiktoken rank files: Llama 3's own, against tiktoken with Meta's expression, and tiny ones."""

from __future__ import annotations

import base64
import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.errors import FormatError, OptionError, UnsupportedError
from camelid.tokens.files.tiktoken_file import SPECIALS
from camelid.tokens.pretokenizers import LLAMA3
from camelid.tokens.tokenizer import Tokenizer
from tests.tokens.vocabularies import llama3, llama3_path

tiktoken = pytest.importorskip("tiktoken")

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.lists(
    st.sampled_from(
        [
            "The",
            " best",
            " ",
            "   ",
            "\n",
            "\r\n",
            "\t",
            "1234567",
            "0",
            "'s",
            "'LL",
            "'ſ",
            "don't",
            "é",
            "é",
            "日本語",
            "👩\u200d🔬",
            "🏳️\u200d🌈",
            "\x00",
            "\x85",
            "\xa0",
            "\u2003",
            "\u180e",
            "\u200b",
            "½",
            "٣",
            "Ⅷ",
            "_x",
            "!!",
            "\n\n  \n",
            "ñ",
            "ǅ",
            "<|begin_of_text|>",
            "<|eot_id|>",
            "<|",
            "|>",
            "a" * 30,
            "=" * 30,
            "नमस्ते",
            "ไทย",
            "\ue000",
            "\U000e0001",
        ]
    ),
    max_size=15,
).map("".join)


@cache
def _oracle() -> Any:
    lines = (line.split() for line in llama3_path().read_bytes().splitlines())
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    # Meta's published expression, as its code spells it.
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    special = {name: len(ranks) + n for n, name in enumerate(SPECIALS)}
    return tiktoken.Encoding("llama3", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)


@settings(max_examples=1000, deadline=None)
@given(text=_TEXT)
def test_ids_are_tiktokens(text: str) -> None:
    ids = _oracle().encode(text, disallowed_special=())
    assert llama3().encode(text) == llama3().encode_segment(text) == ids
    assert llama3().decode(ids) == text
    assert (
        llama3().encode(text, special=True, bos=True)[1:]
        == list(_oracle().encode(text, allowed_special="all"))[text.startswith("<|begin_of_text|>") :]
    )


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("safe", [19193]),
        ("unsafe", [39257]),
        (" safe", [6220]),
        (" unsafe", [20451]),
        ("\n\n", [271]),
        (" A", [362]),
        (" B", [426]),
        (" C", [356]),
        (" D", [423]),
        ("assistant", [78191]),
        ("user", [882]),
        ("system", [9125]),
    ],
)
def test_known_ids(text: str, ids: list[int]) -> None:
    assert llama3().encode(text) == ids


def test_specials_ofllama3() -> None:
    tokenizer = llama3()
    assert tokenizer.kind == "bpe"
    assert tokenizer.vocab_size == 128256
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.adds_bos) == (128000, 128001, 128004, True)
    known = {"<|start_header_id|>": 128006, "<|end_header_id|>": 128007, "<|eom_id|>": 128008, "<|eot_id|>": 128009}
    known |= {"<|python_tag|>": 128010, "<|image|>": 128011, "<|step_id|>": 128005}
    assert {name: tokenizer.id_of(name) for name in known} == known
    assert len(tokenizer.special_ids) == 256
    assert tokenizer.encode("<|eot_id|>x", special=True, bos=True)[:2] == [128000, 128009]
    assert max(tokenizer.encode("<|eot_id|><|begin_of_text|>", bos=True)[1:]) < 128000
    assert tokenizer.encode("<|begin_of_text|>user", bos=True, special=True) == [128000, 882]
    assert tokenizer.token_bytes(128009) == b""
    assert tokenizer.decode([128000, 882, 128009]) == "user"
    assert tokenizer.decode([128000, 882, 128009], special=True) == "<|begin_of_text|>user<|eot_id|>"


def test_every_piece_is_its_bytes_and_whole_words_are_found() -> None:
    tokenizer, oracle = llama3(), _oracle()
    for id in range(128000):
        assert tokenizer.token_bytes(id) == oracle.decode_single_token_bytes(id)
    for id in random.Random(0).sample(range(128000), 4000):
        text = oracle.decode([id])
        assert tokenizer.encode(text) == oracle.encode(text, disallowed_special=())


@pytest.mark.parametrize("unit", [" ", "a", "é", "\n", "=", " a"])
def test_long_runs(unit: str) -> None:
    """Meta cuts runs of more than 25,000 spaces or non-spaces before encoding, which protects tiktoken's slow merging
    and changes ids near the cut. The backend needs no such cut and merges the run whole, as tiktoken itself does."""
    text = unit * (30_000 // len(unit))
    assert llama3().encode(text) == _oracle().encode(text, disallowed_special=())
    assert llama3().decode(llama3().encode(text)) == text


def test_a_surrogate_is_refused() -> None:
    with pytest.raises(OptionError, match="surrogate"):
        llama3().encode("x\udfff")


@pytest.mark.slow
def test_written_files_read_alike(tmp_path: Path) -> None:
    tokenizer = llama3()
    assert tokenizer.to_meta() == llama3_path().read_bytes()
    fields = tokenizer.to_gguf()
    assert fields["tokenizer.ggml.pre"] == "llama-bpe"
    from_gguf = Tokenizer.from_gguf(fields)
    assert from_gguf.fingerprint() == tokenizer.fingerprint()
    assert (from_gguf.bos_id, from_gguf.eos_id, from_gguf.adds_bos) == (128000, 128001, True)
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    from_json = Tokenizer.open(tmp_path)
    assert from_json.fingerprint() == tokenizer.fingerprint()
    assert (from_json.bos_id, from_json.eos_id, from_json.adds_bos) == (128000, 128001, True)


def _file(tokens: list[bytes]) -> bytes:
    return b"".join(b"%s %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(tokens))


_BYTES = [bytes([byte]) for byte in range(256)]


@settings(max_examples=100, deadline=None)
@given(
    extra=st.lists(st.text("abé \n", min_size=2, max_size=5).map(str.encode), unique=True, max_size=25),
    text=st.text("abé \n1", max_size=30),
)
def test_random_ranks_merge_as_tiktoken_does(extra: list[bytes], text: str, tmp_path_factory: Any) -> None:
    tokens = [*_BYTES, *(token for token in extra if len(token) > 1)]
    path = tmp_path_factory.mktemp("ranks") / "tokenizer.model"
    path.write_bytes(_file(tokens))
    oracle = tiktoken.Encoding(
        "x", pat_str=LLAMA3, mergeable_ranks={token: rank for rank, token in enumerate(tokens)}, special_tokens={}
    )
    ours = Tokenizer.open(path)
    assert ours.encode(text) == oracle.encode(text)
    assert ours.vocab_size == len(tokens) + 256
    assert ours.id_of("<|eot_id|>") == len(tokens) + 9
    assert ours.to_meta() == _file(tokens)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (_file(_BYTES)[:-4], "its rank"),
        (_file(_BYTES[:200]), "a byte that is no piece"),
        (_file([*_BYTES, b"aa", b"aa"]), "a piece twice"),
        (_file(_BYTES).replace(b" 7\n", b" 8\n"), "its rank"),
        (_file(_BYTES) + b"a 256\n", "base64"),
    ],
)
def test_damaged_ranks(data: bytes, word: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=word) as caught:
        Tokenizer.open(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_other_tokenizers_cannot_be_ranks(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(_file([*_BYTES, b"aa", b"aaa"]))
    fields = Tokenizer.open(path).to_gguf()
    with pytest.raises(UnsupportedError, match="cuts text as Llama 3"):
        Tokenizer.from_gguf({**fields, "tokenizer.ggml.pre": "gpt-2"}).to_meta()
    with pytest.raises(UnsupportedError, match="order of the merges"):
        Tokenizer.from_gguf({**fields, "tokenizer.ggml.merges": fields["tokenizer.ggml.merges"][:1]}).to_meta()
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    more = {"tokenizer.ggml.tokens": [*tokens, "<|more|>"], "tokenizer.ggml.token_type": [*types, 3]}
    with pytest.raises(UnsupportedError, match="256 control tokens"):
        Tokenizer.from_gguf({**fields, **more}).to_meta()
    moved = [{"<|eot_id|>": "<|python_tag|>", "<|python_tag|>": "<|eot_id|>"}.get(token, token) for token in tokens]
    with pytest.raises(UnsupportedError, match="elsewhere"):
        Tokenizer.from_gguf({**fields, "tokenizer.ggml.tokens": moved}).to_meta()
