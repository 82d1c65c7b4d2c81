"""SentencePiece models, against the sentencepiece library with models that it trained and with random vocabularies."""

from __future__ import annotations

import io
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from camelid.errors import FormatError, OptionError, UnsupportedError
from camelid.tokens.files.sentencepiece_file import read_sentencepiece, write_sentencepiece
from camelid.tokens.merges import last_pair, merges_by_score
from camelid.tokens.tokenizer import Tokenizer
from camelid.tokens.vocabulary import CONTROL, NORMAL, UNKNOWN, UNUSED, USER, Vocabulary

sentencepiece = pytest.importorskip("sentencepiece")

_TEXT = """The best thing about AI is its ability to learn, and the rest is what it cannot. There where they were here.
a  b   c    d        e 1234567890 3.14 (x + y) == [z]  {"key": "value"}; for (int i = 0; i < n; ++i) { sum += a[i]; }
Übergrößenträger naïve café 日本語の文章です。 한국어 문장 русский текст 😀😃👩‍🔬 banana bananas ananas aaaa aaaaaaa
    indented
        code def f(x): return x if x else None""".splitlines()
_STRINGS = st.text(
    st.one_of(
        st.sampled_from("  ▁aeinrstban<>|/[]0159\n\t😀é日\x00"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=40,
) | st.lists(
    st.sampled_from(
        [
            " ",
            "  ",
            "▁",
            "the",
            "there",
            "ban",
            "ana",
            "aaa",
            "<s>",
            "</s>",
            "<unk>",
            "<0x41>",
            "<sep>",
            "<a b>",
            "<sepX>",
            "▁<XY>",
            " <XY>",
            "<XY>",
            "[INST]",
            "<ctl>",
            "12",
            "\n",
            "é",
            "👩\u200d🔬",
            "\x00",
            "here",
            "x",
        ]
    ),
    max_size=12,
).map("".join)


def _train(**settings: object) -> bytes:
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_TEXT * 3),
        model_writer=out,
        minloglevel=2,
        **{
            "model_type": "bpe",
            "vocab_size": 520,
            "byte_fallback": True,
            "split_digits": True,
            "allow_whitespace_only_pieces": True,
            "normalization_rule_name": "identity",
            "remove_extra_whitespaces": False,
            "add_dummy_prefix": True,
            "character_coverage": 0.995,
            **settings,
        },
    )
    return out.getvalue()


_MODELS: dict[str, dict[str, object]] = {
    "llama2": {},
    "symbols": {"user_defined_symbols": ["<sep>", "<sepX>", "é", "ab"], "control_symbols": ["<ctl>", "x"]},
    "marks": {"user_defined_symbols": ["<sep>", "<sepX>", "é", "ab", "(x", "|"]},
    "nfkc": {
        "normalization_rule_name": "nmt_nfkc",
        "remove_extra_whitespaces": True,
        "user_defined_symbols": ["<sep>"],
    },
    "nfkc_spaces": {"normalization_rule_name": "nmt_nfkc_cf", "add_dummy_prefix": False},
    "collapsing": {"remove_extra_whitespaces": True},
    "unigram": {"model_type": "unigram", "vocab_size": 360},
    "unigram_plain": {"model_type": "unigram", "vocab_size": 120, "byte_fallback": False, "hard_vocab_limit": False},
    "space_symbols": {"user_defined_symbols": ["<a b>", "▁<XY>", "an", "  "], "pad_id": 3, "pad_piece": "<padding>"},
    "no_prefix": {"add_dummy_prefix": False, "split_digits": False},
    "whole_lines": {"split_by_whitespace": False, "split_by_unicode_script": False, "split_by_number": False},
    "no_bytes": {"byte_fallback": False, "vocab_size": 300},
    "other_names": {"bos_piece": "<bos>", "eos_piece": "<eos>", "bos_id": 2, "eos_id": 1, "unk_piece": "<what>"},
}


_UNIGRAM_SYMBOLS = {**_MODELS["unigram"], "user_defined_symbols": ["<sep>", "<sepX>", "ab"]}


@cache
def _pair(name: str) -> tuple[Tokenizer, sentencepiece.SentencePieceProcessor]:
    data = _train(**(_MODELS | {"unigram_symbols": _UNIGRAM_SYMBOLS})[name])
    return _ours(data), sentencepiece.SentencePieceProcessor(model_proto=data)


def _ours(data: bytes) -> Tokenizer:
    return Tokenizer(read_sentencepiece(Path("tokenizer.model"), data))


@pytest.mark.slow
@pytest.mark.parametrize("name", _MODELS)
@settings(max_examples=150, deadline=None)
@given(text=_STRINGS)
def test_ids_are_sentencepieces(name: str, text: str) -> None:
    ours, theirs = _pair(name)
    ids = theirs.encode(text)
    assert ours.encode(text) == ids
    assert ours.decode(ids) == theirs.decode(ids).replace(" ⁇ ", "")


@settings(max_examples=150, deadline=None)
@given(parts=st.lists(st.sampled_from(["<sep>", "<sepX>", "ab", "a", "b", "the", "é", "日", " "]), max_size=30))
def test_symbols_of_a_unigram_model_are_sentencepieces(parts: list[str]) -> None:
    """But not where spaces follow each other: which piece of a run comes first then hangs on the last bit of a sum."""
    ours, theirs = _pair("unigram_symbols")
    text = re.sub(" +", " ", "".join(parts))
    assert ours.encode(text) == theirs.encode(text)


@pytest.mark.parametrize("name", ["llama2", "symbols", "no_prefix", "whole_lines"])
@settings(max_examples=80, deadline=None)
@given(text=_STRINGS)
def test_a_text_comes_back(name: str, text: str) -> None:
    ours, _ = _pair(name)
    shown = text.replace("▁", " ")
    assert ours.decode(ours.encode(text)) == shown
    assert ours.decode([ours.bos_id or 0, *ours.encode(text)]) == shown
    assert b"".join(map(ours.token_bytes, ours.encode_segment(text))).decode() == shown


@pytest.mark.parametrize("name", ["llama2", "symbols", "no_prefix"])
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_ids_decode_as_sentencepiece_does(name: str, data: st.DataObject) -> None:
    ours, theirs = _pair(name)
    control = set(ours.special_ids.values())  # between two halves of a character they part it there, and not here
    plain = st.integers(1, ours.vocab_size - 1).filter(lambda id: id not in control)
    ids = data.draw(st.lists(plain, max_size=12))
    assert ours.decode(ids).replace("�", "") == theirs.decode(ids).replace("�", "")


@settings(max_examples=100, deadline=None)
@given(text=_STRINGS, more=_STRINGS)
def test_control_tokens_only_when_asked_for(text: str, more: str) -> None:
    ours, theirs = _pair("symbols")
    both = text + "<s>" + more + "<ctl>"
    assert not {1, 2, theirs.piece_to_id("<ctl>")} & set(ours.encode(both))
    assert {1, theirs.piece_to_id("<ctl>")} <= set(ours.encode(both, special=True))


def test_roles_and_bos() -> None:
    ours, theirs = _pair("other_names")
    assert (ours.bos_id, ours.eos_id, ours.unk_id, ours.pad_id) == (2, 1, 0, None)
    assert ours.adds_bos
    assert ours.kind == "sentencepiece"
    assert ours.vocab_size == len(theirs)
    assert ours.encode("here", bos=True) == [2, *theirs.encode("here")]
    assert ours.encode("<bos>here", bos=True, special=True) == [2, *theirs.encode("here")]
    assert ours.encode("", bos=True) == [2]
    assert dict(ours.special_ids) == {"<what>": 0, "<eos>": 1, "<bos>": 2}
    assert _pair("space_symbols")[0].pad_id == 3
    assert ours.decode([2, *theirs.encode("here")], special=True) == "<bos>here"


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(OptionError, match=r"surrogate U\+D800 at character 1"):
        _pair("llama2")[0].encode("a\ud800")


@pytest.mark.parametrize("name", _MODELS)
def test_files_written_read_alike(name: str) -> None:
    ours, theirs = _pair(name)
    again = sentencepiece.SentencePieceProcessor(model_proto=ours.to_meta())
    from_gguf = Tokenizer.from_gguf(ours.to_gguf())
    for text in [*_TEXT, "", " ", "<sepX> <a b> <XY>x", "<s>"]:
        assert again.encode(text) == theirs.encode(text)
        assert from_gguf.encode(text) == theirs.encode(text)
    assert _ours(ours.to_meta()).fingerprint() == from_gguf.fingerprint() == ours.fingerprint()
    for one in (_ours(ours.to_meta()), from_gguf):
        assert (one.bos_id, one.eos_id, one.pad_id, one.adds_bos) == (ours.bos_id, ours.eos_id, ours.pad_id, True)


@pytest.mark.parametrize("name", ["llama2", "symbols", "no_prefix", "whole_lines"])
def test_json_gives_the_same_ids_and_scores_come_back_from_merges(name: str, tmp_path: Path) -> None:
    ours, theirs = _pair(name)
    (tmp_path / "tokenizer.json").write_text(ours.to_json(), encoding="utf-8")
    opened = Tokenizer.open(tmp_path)
    assert opened.fingerprint() == ours.fingerprint()
    assert (opened.bos_id, opened.eos_id, opened.unk_id, opened.adds_bos) == (1, 2, 0, True)
    again = sentencepiece.SentencePieceProcessor(model_proto=opened.to_meta())
    for text in _TEXT:
        assert again.encode(text) == theirs.encode(text) == Tokenizer.from_gguf(opened.to_gguf()).encode(text)


@pytest.mark.parametrize("name", ["llama2", "marks", "no_prefix", "whole_lines", "other_names"])
@settings(max_examples=80, deadline=None)
@given(text=_STRINGS)
def test_transformers_cuts_alike_from_our_json(name: str, text: str) -> None:
    _, theirs = _pair(name)
    if name == "marks":  # between two symbols the file gives the id of a whole piece's name, as transformers' own does
        text = re.sub("<s>|</s>|<unk>|<0x41>", "", text)
    ids = _fast(name).encode(text, add_special_tokens=False, split_special_tokens=True)
    assert ids == theirs.encode(text)
    assert _fast(name).encode(text, split_special_tokens=True) == [theirs.bos_id(), *ids]


@cache
def _fast(name: str) -> Any:
    transformers = pytest.importorskip("transformers")
    backend = tokenizers.Tokenizer.from_str(_pair(name)[0].to_json())
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend)


def test_what_json_cannot_hold_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="cannot hold the user-defined piece"):
        _pair("space_symbols")[0].to_json()
    with pytest.raises(UnsupportedError, match="cannot hold the unused piece 'ab'"):
        _ours(_random_model(["ab"], [0], {"ab": UNUSED})).to_json()


# Random vocabularies over few letters, with scores in any order, reach states that trained ones never do.
_LETTERS = "abc"
_PIECES = st.lists(st.text(_LETTERS + "▁", min_size=2, max_size=7), unique=True, min_size=1, max_size=30)


def _random_model(pieces: list[str], order: list[int], kinds: dict[str, int]) -> bytes:
    every = ["<unk>", "<s>", "</s>", *_LETTERS, "▁", "d", *pieces]
    types = [UNKNOWN, CONTROL, CONTROL, *[NORMAL] * 5, *(kinds.get(piece, NORMAL) for piece in pieces)]
    scores = [0.0] * 3 + [-1000.0 - n for n in range(5)] + [-float(place) for place in order]
    vocabulary = Vocabulary("sentencepiece", every, types, [], scores, space_prefix=False, bos_id=1, eos_id=2, unk_id=0)
    return write_sentencepiece(vocabulary)


@settings(max_examples=400, deadline=None)
@given(
    pieces=_PIECES,
    data=st.data(),
    texts=st.lists(st.text(_LETTERS + " ", min_size=1, max_size=40), min_size=1, max_size=4),
)
def test_random_vocabularies_merge_as_sentencepiece_does(
    pieces: list[str], data: st.DataObject, texts: list[str]
) -> None:
    order = data.draw(st.permutations(range(len(pieces))))
    choice = st.sampled_from([NORMAL] * 8 + [UNUSED, USER])
    kinds = {piece: data.draw(choice) for piece in pieces}
    model = _random_model(pieces, order, kinds)
    theirs, ours = sentencepiece.SentencePieceProcessor(model_proto=model), _ours(model)
    for text in (*texts, *(text * 3 for text in texts)):
        assert ours.encode(text) == theirs.encode(text)


@settings(max_examples=300, deadline=None)
@given(pieces=_PIECES, data=st.data(), text=st.text(_LETTERS + " ", min_size=1, max_size=60))
def test_equal_scores_are_refused_or_exact(pieces: list[str], data: st.DataObject, text: str) -> None:
    order = data.draw(st.lists(st.integers(0, 20), min_size=len(pieces), max_size=len(pieces)))
    model = _random_model(pieces, order, {})
    try:
        ours = _ours(model)
    except UnsupportedError:
        made = [piece for piece in pieces if last_pair(piece, _ranks(pieces, order)) is not None]
        assert len({_ranks(pieces, order)[piece] for piece in made}) < len(made)
        return
    assert ours.encode(text) == sentencepiece.SentencePieceProcessor(model_proto=model).encode(text)


def _ranks(pieces: list[str], order: list[int]) -> dict[str, int]:
    return dict(zip(pieces, order, strict=True))


@example(["aa", "aaa"], 11)
@example(["aa", "aaa", "aaaaa"], 33)
@settings(max_examples=200, deadline=None)
@given(
    pieces=st.lists(st.sampled_from(["a" * n for n in range(2, 14)]), unique=True, min_size=1),
    length=st.integers(1, 90),
)
def test_runs_of_one_character(pieces: list[str], length: int) -> None:
    model = _random_model(pieces, list(range(len(pieces))), {})
    theirs, ours = sentencepiece.SentencePieceProcessor(model_proto=model), _ours(model)
    for text in ("a" * length, "b" + "a" * length + "c"):
        assert ours.encode(text) == theirs.encode(text)


def test_one_pair_is_found_by_merging_the_piece_itself() -> None:
    assert last_pair("here", {"he": 0, "re": 1, "er": 2, "here": 3}) == ("he", "re")
    assert last_pair("abc", {"bc": 0, "abc": 1}) == ("a", "bc")
    assert last_pair("abc", {"abc": 0}) is None
    assert last_pair("a", {"a": 0}) is None
    assert merges_by_score([("a", -9.0), ("b", -9.0), ("abb", -1.0), ("ab", -2.0)]) == [("ab", "b"), ("a", "b")]


def test_models_that_put_spaces_at_the_end_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="end of pieces"):
        _ours(_train_any(treat_whitespace_as_suffix=True))
    with pytest.raises(UnsupportedError, match="type word is not supported"):
        _ours(_train_any(model_type="word", vocab_size=40, byte_fallback=False))


def _train_any(**settings: object) -> bytes:
    out = io.BytesIO()
    base: dict[str, object] = {
        "model_type": "bpe",
        "vocab_size": 520,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_TEXT * 3), model_writer=out, minloglevel=2, **{**base, **settings}
    )
    return out.getvalue()


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damage_is_one_line_with_the_file(data: st.DataObject) -> None:
    whole = bytearray(_train_cached())
    cut = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:cut]
    for at in data.draw(st.lists(st.integers(0, max(cut - 1, 0)), max_size=3)):
        if damaged:
            damaged[at] = data.draw(st.integers(0, 255))
    assume(bytes(damaged) != bytes(whole))
    message = ""
    try:
        _ours(bytes(damaged))
    except (FormatError, UnsupportedError) as error:
        message = str(error)
    assert "\n" not in message
    assert message == "" or "token" in message


@cache
def _train_cached() -> bytes:
    return _train()


def test_impossible_columns_are_refused() -> None:
    good = read_sentencepiece(Path("m"), _train_cached())
    for change, word in [
        ({"pieces": [*good.pieces[:-1], good.pieces[-2]]}, "a piece twice"),
        ({"pieces": [piece.replace("<0x41>", "<0xZZ>") for piece in good.pieces]}, "255|byte pieces"),
        ({"scores": [float("nan"), *list(good.scores or [])[1:]]}, "not a number"),
    ]:
        with pytest.raises(FormatError, match=word):
            _ours(write_sentencepiece(Vocabulary(**{**vars(good), **change})))


def test_infill_pieces_of_code_llama_are_control() -> None:
    good = read_sentencepiece(Path("m"), _train_cached())
    names = ["▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"]
    for kind in (USER, NORMAL):
        tokenizer = _ours(
            write_sentencepiece(
                Vocabulary(
                    **{
                        **vars(good),
                        "pieces": [*good.pieces, *names],
                        "types": [*good.types, *[kind] * 4],
                        "scores": [*(good.scores or []), -2000.0, -2001.0, -2002.0, -2003.0],
                    }
                )
            )
        )
        wanted = [tokenizer.id_of(name) for name in names]
        assert wanted == [len(good.pieces) + n for n in range(4)]
        assert not set(wanted) & set(tokenizer.encode("<PRE> x <SUF> y <MID> <EOT>"))
        assert set(names) <= set(tokenizer.special_ids)
