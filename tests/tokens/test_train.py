"""Learned tokenizers: the same whatever the order; transformers, SentencePiece and tiktoken read them alike."""

from __future__ import annotations

import base64
import json
import random
import tracemalloc
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.errors import OptionError
from camelid.tokens.files.save import save_tokenizer
from camelid.tokens.files.tiktoken_file import SPECIALS
from camelid.tokens.pretokenizers import LLAMA2_WORDS, LLAMA3
from camelid.tokens.tokenizer import Tokenizer
from camelid.tokens.training import TokenizerOptions, learn
from camelid.tokens.training import bpe_train as merging
from camelid.tokens.training import word_counts as counting
from camelid.tokens.training.bpe_train import Words, learn_merges, plainly
from camelid.tokens.training.word_counts import WordCounts

ROOT = Path(__file__).parent.parent.parent
SIZE = 1500
TEXT = st.text(max_size=40) | st.lists(
    st.sampled_from(["the", " model", "  ", "\n", "1234", "é", "日本", "'s", "<s>", "<|eot_id|>", "▁", ".", "x" * 40])
).map("".join)


@cache
def documents() -> list[str]:
    pages = [ROOT / "benchmarks" / "LOG.md", ROOT / "docs" / "tour.md", ROOT / "README.md", Path(json.__file__)]
    whole = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    return [*whole.split("\n\n"), "Grüße, naïve café. 日本語 and العربية", "Δ and ∑ are letters and signs"] * 2


@cache
def learned(style: str) -> Tokenizer:
    return learn(documents(), TokenizerOptions(train=style, vocab_size=SIZE))


@pytest.fixture(scope="module", params=["llama3", "llama2"])
def style(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(style: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(style)
    names = [path.name for path in save_tokenizer(learned(style), folder, context=512)]
    assert names == ["tokenizer.json", "tokenizer_config.json", "tokenizer.model"]
    return folder


# Merges


def words_of(parts: list[list[int]], counts: list[int]) -> Words:
    starts = np.cumsum([0, *map(len, parts)], dtype=np.uint64)
    symbols = np.array([symbol for part in parts for symbol in part], np.uint32)
    return Words(symbols, starts, np.array(counts, np.int64))


@settings(max_examples=300, deadline=None)
@given(
    words=st.lists(st.tuples(st.lists(st.integers(0, 3), max_size=12), st.integers(1, 2**40)), max_size=12),
    wanted=st.integers(0, 30),
    longest=st.integers(1, 9),
    least=st.integers(1, 5),
)
def test_both_learners_agree(words: list[tuple[list[int], int]], wanted: int, longest: int, least: int) -> None:
    """The C++ loop, the plain one, and what the words say: count all pairs anew for each merge."""
    parts, counts = [list(part) for part, _ in words], [count for _, count in words]
    held = words_of(parts, counts)
    lengths = [1, 1, 2, 1]
    found = learn_merges(held, lengths, wanted, longest, least)
    assert found == plainly(held, lengths, wanted, longest, least)
    sizes = list(lengths)
    for left, right in found:
        pairs: Counter[tuple[int, int]] = Counter()
        for part, count in zip(parts, counts, strict=True):
            for pair in pairwise(part):
                pairs[pair] += count if sizes[pair[0]] + sizes[pair[1]] <= longest else 0
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        assert (left, right) == best
        assert pairs[best] >= least
        parts = [merging._merge(part, best, len(sizes)) for part in parts]
        sizes.append(sizes[left] + sizes[right])


def test_progress_is_told_and_may_stop_it() -> None:
    rng = random.Random(0)
    held = words_of([rng.choices(range(4), k=9) for _ in range(400)], [1] * 400)
    told: list[int] = []
    learn_merges(held, [1] * 4, 300, 99, 1, told.append)
    assert told == [100, 200, 300]

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn_merges(held, [1] * 4, 300, 99, 1, stop)


def test_the_library_learns_the_same_pieces() -> None:
    """`tokenizers`' trainer, on the same words. Of equally frequent pairs it takes others, so a few pieces differ."""
    ours = learned("llama3")
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(LLAMA3), "isolated")
    spell = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, spell])
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=SIZE - len(SPECIALS), initial_alphabet=spell.alphabet(), min_frequency=2, show_progress=False
    )
    theirs.train_from_iterator(documents(), trainer)
    pieces = set(ours._vocabulary.pieces[: SIZE - len(SPECIALS)])
    assert len(pieces & set(theirs.get_vocab())) > 0.99 * len(pieces)


# Words


@pytest.mark.slow
@pytest.mark.parametrize("expression", [LLAMA3, LLAMA2_WORDS])
@pytest.mark.parametrize("library", [False, True])
def test_words_are_counted_exactly_however_few_fit(
    expression: str, library: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if library:
        monkeypatch.setattr(counting, "has_bpe", lambda: False)
    monkeypatch.setattr(counting, "_MOST_FILES", 5)
    cutter = tokenizers.pre_tokenizers.Split(tokenizers.Regex(expression), "isolated")
    wanted = Counter(word.encode() for text in documents() for word, _ in cutter.pre_tokenize_str(text))
    wanted = Counter({word: count for word, count in wanted.items() if len(word) <= 30})
    order = sorted(wanted.items(), key=lambda one: (-one[1], one[0]))
    for limit in (50, 10**6):
        counts = WordCounts(expression, limit, longest=30)
        for text in documents():
            counts.add(text)
        assert bool(counts._runs) == (limit == 50)
        assert len(counts._runs) <= 5
        folder = counts._folder
        assert counts.most_frequent(10**6, 1) == order
        assert folder is None or not Path(folder.name).exists()
        assert counts.most_frequent(5, 1) == []
    counts.add(documents()[0] * 3)
    assert all(count >= 3 for _, count in counts.most_frequent(7, 3))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "has_bpe", lambda: False)  # so that Python sees the memory
    rng = random.Random(0)
    counts = WordCounts(LLAMA3, 2000, longest=400)
    tracemalloc.start()
    try:
        for _ in range(60):
            counts.add(" ".join(rng.randbytes(6).hex() for _ in range(500)))
        assert len(counts.most_frequent(2000, 1)) == 2000
        assert tracemalloc.get_traced_memory()[1] < 4e6
    finally:
        tracemalloc.stop()


# Whole tokenizers


def test_the_order_of_documents_does_not_matter(style: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shuffled = [*documents()]
    random.Random(1).shuffle(shuffled)
    options = TokenizerOptions(train=style, vocab_size=SIZE)
    assert learn(shuffled, options)._vocabulary == learned(style)._vocabulary
    monkeypatch.setattr(merging, "has_bpe", lambda: False)
    monkeypatch.setattr(counting, "has_bpe", lambda: False)
    assert learn(["\n\n".join(shuffled[:30]), *shuffled[30:]], options)._vocabulary.kind == learned(style).kind
    assert learn(documents(), options)._vocabulary == learned(style)._vocabulary


def test_the_size_is_as_asked_and_the_pieces_are_words(style: str) -> None:
    tokenizer = learned(style)
    assert tokenizer.vocab_size == SIZE
    assert len(tokenizer.encode(" the model of tokens")) < 8
    text = "".join(documents())
    assert len(tokenizer.encode(text)) < 0.45 * len(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert all(tokenizer.id_of(piece) is not None for piece in tokenizer.special_ids)


def test_control_tokens_are_those_of_the_family() -> None:
    llama3, llama2 = learned("llama3"), learned("llama2")
    names = [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eom_id|>",
        "<|eot_id|>",
    ]
    assert set(names) < set(llama3.special_ids)
    assert (llama3.piece(llama3.bos_id or 0), llama3.piece(llama3.eos_id or 0)) == tuple(names[:2])
    assert (llama2.unk_id, llama2.bos_id, llama2.eos_id) == (0, 1, 2)
    assert llama2.id_of("<0x00>") == 3
    assert llama3.adds_bos
    assert llama2.adds_bos


def test_llama_2s_rules_of_pieces() -> None:
    vocabulary = learned("llama2")._vocabulary
    pieces = vocabulary.pieces[259:]
    assert not [piece for piece in pieces if len(piece) > 1 and any(letter.isdigit() for letter in piece)]
    assert not [piece for piece in pieces if "▁" in piece[1:] and set(piece) != {"▁"}]
    assert not [piece for piece in pieces if "\n" in piece or len(piece) > 16]
    scores = list(vocabulary.scores or [])[259:]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == len(scores)


@settings(max_examples=200, deadline=None)
@given(text=TEXT)
def test_every_format_keeps_the_ids(style: str, folder: Path, text: str) -> None:
    tokenizer = learned(style)
    for again in _again(style, folder):
        assert again.encode(text) == tokenizer.encode(text)
        assert again.encode(text, bos=True) == tokenizer.encode(text, bos=True)
        assert again.decode(tokenizer.encode(text)) == tokenizer.decode(tokenizer.encode(text))


@cache
def _again(style: str, folder: Path) -> list[Tokenizer]:
    tokenizer = learned(style)
    again = [
        Tokenizer.open(folder),
        Tokenizer.open(folder / "tokenizer.model"),
        Tokenizer.from_gguf(tokenizer.to_gguf()),
    ]
    for other in again:
        assert other.fingerprint() == tokenizer.fingerprint()
        assert (other.bos_id, other.eos_id, other.adds_bos) == (tokenizer.bos_id, tokenizer.eos_id, True)
        assert other.special_ids == tokenizer.special_ids
    return again


@settings(max_examples=200, deadline=None)
@given(text=TEXT)
def test_transformers_reads_it_alike(style: str, folder: Path, text: str) -> None:
    theirs = _transformers(folder)
    assert theirs.encode(text, split_special_tokens=True) == learned(style).encode(text, bos=True)


@cache
def _transformers(folder: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert theirs.model_max_length == 512
    assert theirs.eos_token in ("</s>", "<|end_of_text|>")
    return theirs


@settings(max_examples=200, deadline=None)
@given(text=TEXT)
def test_the_native_library_reads_it_alike(style: str, folder: Path, text: str) -> None:
    assert _native(style, folder)(text) == learned(style).encode(text)


@cache
def _native(style: str, folder: Path) -> Any:
    if style == "llama2":
        sentencepiece = pytest.importorskip("sentencepiece")
        return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).encode
    tiktoken = pytest.importorskip("tiktoken")
    lines = (line.split() for line in (folder / "tokenizer.model").read_bytes().splitlines())
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    return tiktoken.Encoding("learned", pat_str=LLAMA3, mergeable_ranks=ranks, special_tokens={}).encode_ordinary


# Mistakes


def test_what_cannot_be(style: str) -> None:
    with pytest.raises(
        OptionError, match=r"vocab_size: these documents give \d+ pieces, not 4000; set \d+ or give more"
    ):
        learn(["a few words, a few words"], TokenizerOptions(train=style, vocab_size=4000))
    with pytest.raises(OptionError, match="lone surrogate"):
        learn(["fine", "a\udc80"], TokenizerOptions(train=style))
    with pytest.raises(OptionError, match="vocab_size: must be greater than or equal to 263"):
        TokenizerOptions(train=style, vocab_size=100)
    with pytest.raises(OptionError, match="train: must be 'llama3' or 'llama2'"):
        TokenizerOptions(train="gpt2")


def test_no_room_and_no_text() -> None:
    with pytest.raises(OptionError, match="has no room for bytes, characters and control tokens; add 112"):
        learn(["a"], TokenizerOptions(vocab_size=400))
    smallest = learn([], TokenizerOptions(vocab_size=512))
    assert smallest.decode(smallest.encode("é!")) == "é!"
    alone = learn(["xyxy"] * 9, TokenizerOptions(train="llama2", vocab_size=263))
    assert alone.decode(alone.encode("xy é")) == "xy é"


def test_reading_is_told() -> None:
    told: list[tuple[str, int, int | None]] = []
    options = TokenizerOptions(vocab_size=SIZE)
    learn(["".join(documents())] * 20, options, lambda *what: told.append(what))
    assert told[0][0] == "reading"
    assert told[-1] == ("merging", 900, SIZE - 512)
