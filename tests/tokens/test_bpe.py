"""The C++ merge loop against the `tokenizers` library: how text is cut, which ids it gives, and how much work it is."""

from __future__ import annotations

import json
import random
import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from camelid.errors import FormatError, OptionError
from camelid.tokens import choose_backend
from camelid.tokens.backend_library import LibraryBackend, build_library
from camelid.tokens.normalizing import library_part
from camelid.tokens.pretokenizers import LLAMA2_WORDS, LLAMA3, PRETOKENIZERS, stage_of, stages_of
from camelid.tokens.tokenizer import Tokenizer
from camelid.tokens.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, USER, Splitter, Vocabulary, byte_characters
from camelid.weights.open import open_weights
from tests.tokens.unicode_table import header
from tests.tokens.vocabularies import llama3

_bpe = pytest.importorskip("camelid.tokens._bpe", reason="the C++ part is not built")
from camelid.tokens.backend_bpe import build_bpe  # noqa: E402

ROOT = Path(__file__).parent.parent.parent
TABLE = ROOT / "camelid" / "tokens" / "csrc" / "unicode_table.h"
ROWS = {str(row): name for name, row in PRETOKENIZERS.items()}.values()  # one name of each way of cutting

# fmt: off
WORDS = [
    "the", "a", "I'LL", "don't", "'s", "'ſ", "'ſt", "'Re", "'", "''", "'re've", "ABc", "aBC", "Éa",
    "ǅe", "x1", "12345", "٣٤", "½", "Ⅷ", "日本語", "ࠀ", "가나", "हि", "ไทย", "é", "e\u0301", "\u0308",
    "👩\u200d🔬", "_x", "!!", "`$+", "^~", "|>", "\u200b", "\x00", "\x1f", "\x7f", "\ue000",
    "\U0010ffff", "\U00011de0", "▁",
    "▁▁", "▁x", "½a", "/", "//", "\\", "«", "»", "<0x0A>", "ab", "ba",
]
# fmt: on
SPACES = [" ", " ", "  ", "   ", "\n", "\r\n", "\n\n", " \n ", "\t", "\t ", "\u00a0", "\u0085", "\u2003", "\u3000"]
TEXT = st.lists(st.sampled_from(WORDS + SPACES * 3) | st.text(max_size=3), max_size=24).map("".join)


def splitter_of(row: Splitter) -> Any:
    shell = {"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}, "pre_tokenizer": row.pre_tokenizer}
    return tokenizers.Tokenizer.from_str(json.dumps(shell)).pre_tokenizer


def spelled(words: list[str]) -> list[str]:
    alphabet = byte_characters()
    return ["".join(alphabet[byte] for byte in word.encode()) for word in words]


def letter_by_letter(expression: str) -> str:
    return expression.replace(
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)", "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
    )


def isolated(expression: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
OTHERS = {
    "llama3-letters": Splitter(
        None, {"type": "Sequence", "pretokenizers": [isolated(letter_by_letter(LLAMA3)), BYTES]}
    ),
    "llama2": Splitter(None, {"type": "Sequence", "pretokenizers": [isolated(LLAMA2_WORDS), BYTES]}),
}


@pytest.fixture(scope="module", params=[*ROWS, *OTHERS])
def row(request: pytest.FixtureRequest) -> Splitter:
    return {**PRETOKENIZERS, **OTHERS}[request.param]


# Unicode


@pytest.mark.slow
def test_classes_are_those_of_the_library() -> None:
    """Every code point: the table in the repository is the one that the library's answers give today."""
    assert TABLE.read_text(encoding="utf-8") == header()


@pytest.mark.slow
def test_class_borders_cut_alike(row: Splitter) -> None:
    """Code points on both sides of every border between classes, beside letters, digits, spaces and apostrophes."""
    runs = [
        int(word, 16) >> 8
        for word in TABLE.read_text().partition("{\n0x")[2].replace("\n", "").split("}")[0].split(",")[:-1]
    ]
    codes = sorted(
        {code for start in runs for code in (start, start - 1) if code >= 0 and not 0xD800 <= code <= 0xDFFF}
    )
    text = "".join(f"a{chr(code)}b {chr(code)}1{chr(code)}'{chr(code)}!{chr(code)}\n" for code in codes[::2])
    text += "".join(f"A{chr(code)} {chr(code)} x" for code in codes[1::2])
    assert spelled(_bpe.cut(stages_of(row), text)) == [word for word, _ in splitter_of(row).pre_tokenize_str(text)]


# Cutting


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(text=TEXT)
def test_text_is_cut_alike(row: Splitter, text: str) -> None:
    assert spelled(_bpe.cut(stages_of(row), text)) == [word for word, _ in splitter_of(row).pre_tokenize_str(text)]


def test_every_row_has_a_fast_way() -> None:
    assert all(stages_of(row) for row in PRETOKENIZERS.values())
    assert stage_of(LLAMA2_WORDS) == "llama2"


@pytest.mark.parametrize(
    "part",
    [
        isolated(r"\w+"),
        {**isolated(r"\p{N}"), "behavior": "Removed"},
        {**isolated(r"\p{N}"), "invert": True},
        {"type": "Digits", "individual_digits": False},
        {"type": "Punctuation", "behavior": "Isolated"},
        {**BYTES, "add_prefix_space": True},
        BYTES,
    ],
)
def test_other_ways_are_the_librarys(part: dict[str, Any]) -> None:
    splitter = Splitter(None, {"type": "Sequence", "pretokenizers": [part, BYTES]})
    assert stages_of(splitter) is None
    pieces = [*byte_characters(), "Ġa"]
    vocabulary = Vocabulary("bpe", pieces, [NORMAL] * 257, [("Ġ", "a")], splitter=splitter)
    assert build_bpe(vocabulary) is None
    assert Tokenizer(vocabulary).encode(" a 12") == LibraryBackend(vocabulary).encode(" a 12")


# Merging


def bytes_vocabulary(merges: list[tuple[str, str]], splitter: Splitter) -> Vocabulary:
    pieces = list(dict.fromkeys([*byte_characters(), *(left + right for left, right in merges)]))
    return Vocabulary("bpe", pieces, [NORMAL] * len(pieces), merges, splitter=splitter)


def grown(alphabet: str, draws: list[int], shuffle: int) -> list[tuple[str, str]]:
    """Merges of pieces that are there already; in an order that training would not give, if shuffled."""
    pieces, merges = list(alphabet), []
    for draw in draws:
        left, right = pieces[draw % len(pieces)], pieces[draw // len(pieces) % len(pieces)]
        if (left, right) not in merges and len(left + right) < 12:
            merges.append((left, right))
            pieces.append(left + right)
    random.Random(shuffle).shuffle(merges) if shuffle else None
    return merges


DRAWS = st.lists(st.integers(0, 10**6), max_size=40)
FEW = st.text("ab", max_size=150) | st.text("abcĠ", max_size=150) | TEXT


@settings(max_examples=300, deadline=None)
@given(draws=DRAWS, shuffle=st.integers(0, 3), text=FEW, name=st.sampled_from([*ROWS]))
def test_any_merges_give_the_librarys_ids(draws: list[int], shuffle: int, text: str, name: str) -> None:
    splitter = PRETOKENIZERS[name]
    vocabulary = bytes_vocabulary(grown("abĠ", draws, shuffle), splitter)
    fast = build_bpe(vocabulary)
    assert fast is not None
    assert fast.encode(text) == LibraryBackend(vocabulary).encode(text)


def characters_vocabulary(merges: list[tuple[str, str]], alphabet: str) -> Vocabulary:
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = list(dict.fromkeys(["<unk>", *bytes_, *alphabet, *(left + right for left, right in merges)]))
    types = [UNKNOWN, *[BYTE] * 256, *[NORMAL] * (len(pieces) - 257)]
    return Vocabulary("sentencepiece", pieces, types, merges, unk_id=0)


@settings(max_examples=300, deadline=None)
@given(draws=DRAWS, shuffle=st.integers(0, 3), text=st.text("ab▁ é.", max_size=150) | TEXT)
def test_any_characters_give_the_librarys_ids(draws: list[int], shuffle: int, text: str) -> None:
    vocabulary = characters_vocabulary(grown("ab▁é.", draws, shuffle), "ab▁é.x")
    fast = build_bpe(vocabulary)
    assert fast is not None
    assert fast.encode(text) == LibraryBackend(vocabulary).encode(text)


def test_merges_of_byte_pieces() -> None:
    """A piece may be made of bytes; where such a piece lies cannot be seen from its text."""
    vocabulary = characters_vocabulary([("<0x0A>", "<0x0A>"), ("a", "<0x0A>"), ("a<0x0A>", "b")], "ab▁")
    fast = build_bpe(vocabulary)
    assert fast is not None
    for text in ("a\n\nb", "a\nb\n\n\n", "\n\n a\nb ab", "<0x0A><0x0A>"):
        assert fast.encode(text) == LibraryBackend(vocabulary).encode(text)


def test_without_bytes_the_library_merges() -> None:
    vocabulary = Vocabulary("sentencepiece", ["<unk>", "a", "▁"], [UNKNOWN, NORMAL, NORMAL], [], unk_id=0)
    assert build_bpe(vocabulary) is None
    assert Tokenizer(vocabulary).encode("a bb a") == [1, 2, 0, 2, 1]


def test_a_merge_of_nothing_is_the_files_fault() -> None:
    with pytest.raises(FormatError, match="no piece 'ax'"):
        Tokenizer(
            Vocabulary("bpe", [*byte_characters()], [NORMAL] * 256, [("a", "x")], splitter=PRETOKENIZERS["gpt-2"])
        )
    control = Vocabulary(
        "bpe", ["a", "x", "ax"], [NORMAL, NORMAL, CONTROL], [("a", "x")], splitter=PRETOKENIZERS["gpt-2"]
    )
    assert Tokenizer(control).encode("ax") == [0, 1]


@settings(max_examples=300, deadline=None)
@given(
    text=st.lists(
        st.sampled_from([*WORDS, *SPACES, "<t>", "<tt>", "e\u0301", "\u0301", "é", "가", "ᄀ", "ᅡ"]), max_size=20
    ).map("".join),
    normal=st.sampled_from(["none", "some", "all"]),
    name=st.sampled_from(["olmo", "qwen2", "gpt-2", "llama-bpe"]),
)
def test_added_tokens_and_composed_text(text: str, normal: str, name: str) -> None:
    added = ["  ", "    ", "<t>", "<tt>", "e\u0301", "ᄀ"]
    pieces, flags = [*byte_characters(), "Ġe", *added], {}
    for place, piece in enumerate(pieces):
        if piece in added and (normal == "all" or (normal == "some" and len(piece) == 2)):
            flags[place] = {"normalized": True}
    types = [USER if piece in added else NORMAL for piece in pieces]
    vocabulary = Vocabulary("bpe", pieces, types, [("Ġ", "e")], splitter=PRETOKENIZERS[name], flags=flags)
    assert not isinstance(choose_backend.choose_backend(vocabulary), LibraryBackend)
    library = build_library(vocabulary)
    library.normalizer = library_part("normalizer", PRETOKENIZERS[name].normalizer, "test")
    rules = [{"normalized": False, **flags.get(id, {})} for id, kind in enumerate(types) if kind == USER]
    library.add_tokens([AddedToken(piece, **rule) for piece, rule in zip(added, rules, strict=True)])
    wanted = library.encode(text, add_special_tokens=False).ids
    chosen = Tokenizer(vocabulary)
    assert chosen.encode(text) == wanted
    assert [ids.tolist() for ids in chosen.encode_batch([text, "", text])] == [wanted, [], wanted]


# Whole vocabularies


@cache
def both(name: str, path: Path) -> tuple[Tokenizer, LibraryBackend]:
    ours = llama3() if name == "llama3" else open_weights(path).tokenizer
    return ours, LibraryBackend(ours._vocabulary)


@pytest.fixture(scope="module", params=["llama3", "smollm2"])
def real(request: pytest.FixtureRequest, smollm2_path: Path) -> tuple[Tokenizer, LibraryBackend]:
    return both(request.param, smollm2_path)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(texts=st.lists(TEXT, max_size=4))
def test_real_vocabularies(real: tuple[Tokenizer, LibraryBackend], texts: list[str]) -> None:
    ours, library = real
    absent = set(ours._absent_bytes)  # SmolLM2 cannot spell every character
    texts = ["".join(letter for letter in text if absent.isdisjoint(letter.encode())) for text in texts]
    wanted = [library.encode(text) for text in texts]
    assert [ours.encode(text) for text in texts] == wanted
    assert [ids.tolist() for ids in ours.encode_batch(texts)] == wanted


def test_english_and_code(real: tuple[Tokenizer, LibraryBackend]) -> None:
    ours, library = real
    for path in [ROOT / "README.md", ROOT / "benchmarks" / "LOG.md", Path(json.__file__), Path(threading.__file__)]:
        text = path.read_text(encoding="utf-8")
        assert ours.encode(text) == library.encode(text)


HARD = {
    "one letter": lambda n: "a" * n,
    "spaces": lambda n: " " * n,
    "ends of lines": lambda n: "\n" * n,
    "digits": lambda n: "7" * n,
    "pairs": lambda n: "".join(random.Random(n).choices(["ab", "ba"], k=n // 2)),
    "letters": lambda n: "".join(random.Random(n).choices("abcdefghijklmnopqrstuvwxyz", k=n)),
    "Chinese": lambda n: "".join(map(chr, random.Random(n).choices(range(0x4E00, 0x9FA5), k=n // 3))),
    "signs": lambda n: "=" * n,
    "lines of spaces": lambda n: ("\n" + " " * 99) * (n // 100),
    "capitals": lambda n: "A" * n,
    "marks": lambda n: "\u0301" * (n // 2),
}


@pytest.mark.parametrize("hard", HARD)
def test_hard_texts(real: tuple[Tokenizer, LibraryBackend], hard: str) -> None:
    ours, library = real
    text = HARD[hard](30_000)
    assert ours.encode(text) == library.encode(text)


@pytest.mark.slow
@pytest.mark.parametrize("hard", HARD)
def test_work_grows_with_the_text_and_no_faster(real: tuple[Tokenizer, LibraryBackend], hard: str) -> None:
    encoder = real[0]._backend
    assert isinstance(encoder, _bpe.Encoder)
    short, long = (encoder.count_steps(HARD[hard](n)) for n in (100_000, 1_000_000))
    assert long < 11 * max(short, 100_000)
    assert long < 20 * 1_000_000


@pytest.mark.parametrize("name", [*ROWS])
@pytest.mark.parametrize("hard", ["spaces", "capitals", "marks", "lines of spaces", "digits"])
def test_cutting_looks_at_each_character_a_few_times(name: str, hard: str) -> None:
    encoder = build_bpe(bytes_vocabulary([], PRETOKENIZERS[name]))
    inner = getattr(encoder, "_encoder", encoder)
    assert inner.count_steps(HARD[hard](400_000)) < 10 * 400_000


# Batches


def test_batches(real: tuple[Tokenizer, LibraryBackend]) -> None:
    ours, _ = real
    texts = ["Hello <|begin_of_text|><|im_start|>", "", "x" * 50, "日本語"]
    arrays = ours.encode_batch(texts)
    assert [array.tolist() for array in arrays] == [ours.encode(text) for text in texts]
    assert {array.dtype for array in arrays} == {np.dtype(np.uint16 if ours.vocab_size <= 65536 else np.uint32)}
    assert not {id for array in arrays for id in array.tolist()} & set(ours.special_ids.values())
    assert ours.encode_batch([]) == []
    with pytest.raises(OptionError, match="lone surrogate U\\+DC80 at character 1"):
        ours.encode_batch(["fine", "a\udc80"])


def test_threads_share_a_tokenizer(real: tuple[Tokenizer, LibraryBackend]) -> None:
    ours, _ = real
    text = (ROOT / "benchmarks" / "LOG.md").read_text(encoding="utf-8")
    parts = [text[start : start + 5000] for start in range(0, len(text), 5000)]
    wanted = [ours.encode(part) for part in parts]
    found: list[Any] = [None] * 4

    def work(place: int) -> None:
        found[place] = [[array.tolist() for array in ours.encode_batch(parts)] for _ in range(3)]

    threads = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(batches == [wanted] * 3 for batches in found)


def test_without_the_loop_the_library_does_it_and_says_so_once(
    smollm2_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fast = both("smollm2", smollm2_path)[0]
    monkeypatch.setattr(choose_backend, "has_bpe", lambda: False)
    monkeypatch.setattr("camelid.tokens.tokenizer.has_bpe", lambda: False)
    choose_backend.warn_slow.cache_clear()
    slow = Tokenizer(fast._vocabulary)
    assert isinstance(slow._backend, LibraryBackend)
    texts = ["Hello there", "", " 12  é"]
    for _ in range(2):
        assert [ids.tolist() for ids in slow.encode_batch(texts)] == [ids.tolist() for ids in fast.encode_batch(texts)]
    assert [record.message for record in caplog.records if "C++ tokenizer" in record.message] == [
        "the C++ tokenizer is not built, the tokenizers library cuts text, much slower: pip install --force camelid"
    ]
