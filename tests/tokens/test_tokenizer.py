"""Tokenizer over tokenizer.json files, against transformers, and what holds for every kind of file."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

from camelid.errors import FormatError, MissingError, OptionError, UnsupportedError
from camelid.tokens.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

_CORPUS = [
    "The best thing about AI is its ability to learn, 1234567890 times; isn't it?",
    "def f(x):\n        return x  # naïve café 日本語 😀\n\n\n",
    "there where here were they then the other weather whether",
]
_TEXT = st.text(
    st.sampled_from(" \n\tthe'sab019<|>é") | st.characters(exclude_categories=["Cs"]), max_size=40
) | st.lists(
    st.sampled_from(
        [
            "<s>",
            "</s>",
            "<unk>",
            "<|end|>",
            "<tool>",
            "    ",
            "  ",
            " ",
            "x",
            "the",
            "é",
            "é",
            "日",
            "12",
            "\n",
            "\x00",
            "👩\u200d🔬",
            "wide",
            " wide ",
            "word",
            "wordy",
            "a",
            "́",
        ]
    ),
    max_size=12,
).map("".join)


def _gpt2() -> tokenizers.Tokenizer:
    """Byte-level with control tokens and a template that adds BOS."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<s>", "</s>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return tokenizer


def _olmo() -> tokenizers.Tokenizer:
    """With normalisation, runs of spaces as added tokens, and added tokens with rules."""
    tokenizer = _gpt2()
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_tokens(["  ", "    ", AddedToken("<tool>", normalized=False)])
    tokenizer.add_tokens([AddedToken("wide", lstrip=True, rstrip=True), AddedToken("word", single_word=True)])
    return tokenizer


def _llama2(legacy: bool) -> tokenizers.Tokenizer:
    """SentencePiece's kind, with merges only, in the two spellings that exist."""
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=names, show_progress=False)
    trained.train_from_iterator(_CORPUS, trainer)
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    bpe = models.BPE(model["vocab"], merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = tokenizers.Tokenizer(bpe)
    if legacy:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair=None, special_tokens=[("<s>", 1)])
    return tokenizer


_KINDS: dict[str, Callable[[], tokenizers.Tokenizer]] = {
    "gpt2": _gpt2,
    "olmo": _olmo,
    "llama2": lambda: _llama2(legacy=False),
    "llama2_legacy": lambda: _llama2(legacy=True),
}


@pytest.fixture(scope="module", params=_KINDS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("json")
    for kind, make in _KINDS.items():
        (folder / kind).mkdir()
        (folder / kind / "tokenizer.json").write_text(make().to_str(), encoding="utf-8")
    return folder


@cache
def _ours(folder: Path, name: str) -> Tokenizer:
    return Tokenizer.open(folder / name)


@cache
def _again(folder: Path, name: str) -> Tokenizer:
    (folder / name / "again").mkdir()
    (folder / name / "again" / "tokenizer.json").write_text(_ours(folder, name).to_json(), encoding="utf-8")
    return Tokenizer.open(folder / name / "again")


@cache
def _theirs(folder: Path, name: str) -> Any:
    _again(folder, name)
    return [
        transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / name / inside / "tokenizer.json"))
        for inside in ("", "again")
    ]


@settings(max_examples=200, deadline=None)
@given(text=_TEXT)
def test_plain_text_is_cut_as_transformers_cuts_it(folder: Path, name: str, text: str) -> None:
    ours = _ours(folder, name)
    ids = ours.encode(text)
    assert ids == _again(folder, name).encode(text)
    for theirs in _theirs(folder, name):
        assert ids == theirs.encode(text, add_special_tokens=False, split_special_tokens=True)
        assert ours.encode(text, bos=True) == theirs.encode(text, split_special_tokens=True)
    assert not set(ids) & set(ours.special_ids.values())


@settings(max_examples=200, deadline=None)
@given(text=_TEXT)
def test_control_tokens_are_found_as_transformers_finds_them(folder: Path, text: str) -> None:
    for name in ("gpt2", "olmo"):
        for theirs in _theirs(folder, name):
            assert _ours(folder, name).encode(text, special=True) == theirs.encode(text, add_special_tokens=False)


@settings(max_examples=200, deadline=None)
@given(text=_TEXT)
def test_a_text_comes_back(folder: Path, name: str, text: str) -> None:
    ours = _ours(folder, name)
    if name != "olmo":
        shown = text if name == "gpt2" else text.replace("▁", " ")
        assert ours.decode(ours.encode(text)) == (shown.removeprefix(" ") if name == "llama2" else shown)
    whole = b"".join(map(ours.token_bytes, ours.encode_segment(text))).decode()
    assert whole == ours.decode(ours.encode(text, bos=True)) or ours.kind == "sentencepiece"


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_ids_decode_as_transformers_does(folder: Path, name: str, data: st.DataObject) -> None:
    ours, theirs = _ours(folder, name), _theirs(folder, name)[0]
    lowest = 3 if ours.kind == "bpe" else 259  # a broken run of byte pieces is marked whole there, byte by byte here
    ids = data.draw(st.lists(st.integers(lowest, ours.vocab_size - 1), max_size=12))
    wanted = theirs.decode(ids, clean_up_tokenization_spaces=False).replace("\ufffd", "")
    if name != "olmo":
        assert ours.decode(ids).replace("\ufffd", "") == wanted
    assert ours.decode(ids) == b"".join(ours.token_bytes(id, first=place == 0) for place, id in enumerate(ids)).decode(
        "utf-8", "replace"
    )


@settings(max_examples=100, deadline=None)
@given(text=_TEXT, more=_TEXT)
def test_bos_comes_once(folder: Path, name: str, text: str, more: str) -> None:
    ours = _ours(folder, name)
    ids = ours.encode(text, bos=True)
    assert ids[0] == ours.bos_id
    assert ours.bos_id not in ids[1:]
    if "<s>" not in more:
        assert ours.encode("<s>" + more, bos=True, special=True).count(ours.bos_id or 0) == 1
        if name != "llama2":  # Metaspace "first": after a written <s> the text does not begin any more
            assert ours.encode("<s>" + more, special=True) == ours.encode(more, bos=True, special=True)


def test_segments_have_no_space_of_their_own(folder: Path) -> None:
    for name in ("llama2", "llama2_legacy"):
        ours = _ours(folder, name)
        assert ours.piece(ours.encode("the")[0]).startswith(" ")
        assert not ours.piece(ours.encode_segment("the")[0]).startswith(" ")
        again = ours.encode("</s>the</s>the", special=True)
        later = ours.encode("the") if name == "llama2_legacy" else ours.encode_segment("the")
        assert again == [ours.special_ids["</s>"], *later] * 2


def test_other_formats_keep_the_ids(folder: Path) -> None:
    text = "".join(_CORPUS) + "<s> <|end|>    x"
    for name in ("gpt2", "llama2_legacy"):
        ours = _ours(folder, name)
        from_gguf = Tokenizer.from_gguf(ours.to_gguf())
        assert from_gguf.fingerprint() == ours.fingerprint()
        assert (from_gguf.bos_id, from_gguf.eos_id, from_gguf.adds_bos) == (ours.bos_id, ours.eos_id, True)
    llama2 = _ours(folder, "llama2_legacy")
    (folder / "model").write_bytes(llama2.to_meta())
    assert Tokenizer.open(folder / "model").encode(text) == llama2.encode(text)
    with pytest.raises(UnsupportedError, match="gets no second one"):
        _ours(folder, "llama2").to_meta()
    fields = _ours(folder, "llama2").to_gguf()  # GGUF has no field for it, camelid has one of its own
    assert Tokenizer.from_gguf(fields).fingerprint() == _ours(folder, "llama2").fingerprint()
    assert Tokenizer.from_gguf(fields).encode(" the") == _ours(folder, "llama2").encode(" the")
    with pytest.raises(UnsupportedError, match="rules of added token"):
        _ours(folder, "olmo").to_gguf()
    with pytest.raises(UnsupportedError, match=r"tokenizer\.model"):
        _ours(folder, "gpt2").to_meta()


def test_roles_come_from_the_config_beside(folder: Path) -> None:
    plain = folder / "beside"
    plain.mkdir()
    (plain / "tokenizer.json").write_text(_gpt2().to_str(), encoding="utf-8")
    assert Tokenizer.open(plain).adds_bos
    config = {"bos_token": "<|end|>", "eos_token": {"content": "</s>"}, "pad_token": "</s>", "add_bos_token": False}
    (plain / "tokenizer_config.json").write_text(json.dumps(config))
    opened = Tokenizer.open(plain / "tokenizer.json")
    assert (opened.bos_id, opened.eos_id, opened.pad_id, opened.adds_bos) == (
        opened.id_of("<|end|>"),
        opened.id_of("</s>"),
        opened.id_of("</s>"),
        False,
    )
    (plain / "tokenizer_config.json").write_text("{")
    with pytest.raises(FormatError, match=r"tokenizer_config\.json: not JSON"):
        Tokenizer.open(plain)


def test_fingerprints_tell_tokenizers_apart(folder: Path) -> None:
    prints = {name: _ours(folder, name).fingerprint() for name in _KINDS}
    assert len(set(prints.values())) == 3  # the text has no space at its beginning, where the two Llamas differ
    assert all(len(print_) == 64 and int(print_, 16) for print_ in prints.values())


def test_ids_and_text_that_cannot_be(folder: Path, name: str) -> None:
    ours = _ours(folder, name)
    for id in (-1, ours.vocab_size):
        for method in (ours.piece, ours.token_bytes):
            with pytest.raises(OptionError, match="the vocabulary has 0 to"):
                method(id)
        with pytest.raises(OptionError, match="the vocabulary has 0 to"):
            ours.decode([id])
    for encode in (ours.encode, ours.encode_segment):
        with pytest.raises(OptionError, match=r"surrogate U\+DC80 at character 2; remove it"):
            encode("ab\udc80")
    assert ours.decode(ours.encode("a\x00b")) == "a\x00b"
    assert ours.id_of("nothing like this") is None


_BPE = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}
_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


@pytest.mark.parametrize(
    ("change", "kind", "word"),
    [
        ({"model": None}, FormatError, "not a tokenizer.json"),
        ({"model": {**_BPE, "type": "Unigram"}}, UnsupportedError, "a Unigram tokenizer"),
        ({"model": {**_BPE, "dropout": 0.1}}, UnsupportedError, "model.dropout is 0.1"),
        ({"model": {"type": "BPE", "merges": []}}, FormatError, "damaged"),
        ({"model": {**_BPE, "merges": ["a b c"]}}, FormatError, "'a b c' is not two pieces"),
        ({"model": {**_BPE, "merges": [["a", "x"]]}}, FormatError, "no piece"),
        ({"model": {**_BPE, "vocab": {"a": 0, "b": 0}}}, FormatError, "id 0 is"),
        ({"model": {**_BPE, "vocab": {"a": -1}}}, FormatError, "whole numbers"),
        ({"pre_tokenizer": None}, UnsupportedError, "neither byte-level nor"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, UnsupportedError, "'Whitespace' is not supported"),
        ({"pre_tokenizer": None, "normalizer": {"type": "NFKC"}}, UnsupportedError, "'NFKC' is not supported"),
        ({"normalizer": {"type": "Nonsense"}}, FormatError, "normalizer or pre_tokenizer"),
        ({"added_tokens": [{"id": 0}]}, FormatError, "damaged"),
    ],
)
def test_wrong_files_are_one_line(tmp_path: Path, change: dict[str, Any], kind: type[Exception], word: str) -> None:
    whole = {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": _LEVEL, "model": _BPE, **change}
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    with pytest.raises(kind, match=word) as caught:
        Tokenizer.open(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "tokenizer.json"))


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"no tokenizer; fetch tokenizer\.json or tokenizer\.model"):
        Tokenizer.open(tmp_path)
    with pytest.raises(MissingError, match="cannot be read"):
        Tokenizer.open(tmp_path / "none")
    for content in (b"", b"hello", b"{", b"\xff" * 40):
        (tmp_path / "tokenizer.model").write_bytes(content)
        with pytest.raises((FormatError, UnsupportedError), match=r"tokenizer\.model"):
            Tokenizer.open(tmp_path)


def test_text_that_the_vocabulary_cannot_spell(tmp_path: Path) -> None:
    whole = {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": _LEVEL, "model": _BPE}
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    tokenizer = Tokenizer.open(tmp_path)
    assert tokenizer.encode("ab") == [2]
    with pytest.raises(OptionError, match=r"has nothing for U\+0063; remove it"):
        tokenizer.encode("abc")
