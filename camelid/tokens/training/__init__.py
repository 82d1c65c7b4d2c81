"""A tokenizer learned from documents: bytes in Llama 3's style, characters in Llama 2's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from camelid.errors import OptionError
from camelid.options import Options
from camelid.tokens.files.sentencepiece_file import sentencepiece_vocabulary
from camelid.tokens.files.tiktoken_file import SPECIALS
from camelid.tokens.pretokenizers import LLAMA2_WORDS, LLAMA3, splitter_named
from camelid.tokens.spelling import check_text
from camelid.tokens.tokenizer import Tokenizer
from camelid.tokens.training.bpe_train import Pair, Words, learn_merges
from camelid.tokens.training.word_counts import Word, WordCounts
from camelid.tokens.vocabulary import (
    BYTE,
    CONTROL,
    NORMAL,
    SPACE,
    UNKNOWN,
    Vocabulary,
    byte_alphabet,
)

Progress = Callable[[str, int, int | None], None]  # "reading" bytes or "merging" pieces; done; in all, if known

_LLAMA2_CONTROL = ("<unk>", "<s>", "</s>")


class TokenizerOptions(Options):
    """The table `[tokenizer]` of a recipe: which tokenizer to learn, or where one is."""

    train: Literal["llama3", "llama2"] = Field(
        "llama3", description="Learn one: llama3 (byte-level) or llama2 (SentencePiece's kind, with byte fallback)."
    )
    open: str | None = Field(None, description="Take an existing one instead: a path, or the name of a model.")
    vocab_size: int = Field(
        32000, ge=263, le=1 << 20, description="Ids in all, control tokens and the 256 bytes included."
    )
    least: int = Field(2, ge=1, description="Rarest word and rarest pair that are learned from.")
    longest_piece: int = Field(
        0, ge=0, description="Longest piece, in bytes (llama3) or characters (llama2); 0: 128 or 16."
    )
    coverage: float = Field(
        0.9999, gt=0, le=1, description="llama2: share of the characters that become pieces; rarer ones stay bytes."
    )
    words: int = Field(
        1_000_000,
        ge=1000,
        description="Different words that are held at once, up to 800 bytes each; the most frequent are learned from.",
    )


def check_size(options: TokenizerOptions) -> None:
    """Refuse a vocabulary that has no room for what every tokenizer of its style has, before anything is read.

    Raises:
        OptionError: says how many ids are wanted.
    """
    least = 256 + (len(SPECIALS) if options.train == "llama3" else len(_LLAMA2_CONTROL) + 1)
    if options.vocab_size < least:
        raise OptionError(
            f"vocab_size: {options.vocab_size} has no room for the bytes and control tokens of {options.train}; "
            f"give {least} or more",
            param="vocab_size",
        )


def learn(documents: Iterable[str], options: TokenizerOptions, progress: Progress | None = None) -> Tokenizer:
    """Learn a tokenizer. The result depends on how often each word comes, and on nothing else: not on the documents'
    order, the machine or chance.

    Memory is bounded by `options.words`, about 800 bytes each when merges are learned: counts of more words wait on the
    disk, and of all words the `options.words` most frequent ones are learned from.

    Args:
        documents: texts without lone surrogates.
        options: style and size; `open` is not looked at.
        progress: is told of what is done.

    Raises:
        OptionError: the documents do not hold enough for so many pieces, or a text has a lone surrogate.
    """
    llama3 = options.train == "llama3"
    words = WordCounts(LLAMA3 if llama3 else LLAMA2_WORDS, options.words, longest=400)
    done = told = 0
    for text in documents:
        check_text(text)
        words.add(text if llama3 else text.replace(" ", SPACE))
        done += len(text)
        if progress is not None and done >= told + 1_000_000:
            told = done
            progress("reading", done, None)
    counted = words.most_frequent(options.words, options.least)
    return Tokenizer((_learn_bytes if llama3 else _learn_characters)(counted, options, progress))


def _learn_bytes(words: Sequence[Word], options: TokenizerOptions, progress: Progress | None) -> Vocabulary:
    """Llama 3's kind: 256 bytes, what is merged, and Meta's 256 control tokens."""
    alphabet = list(byte_alphabet())
    number = np.empty(256, np.uint32)
    number[[*byte_alphabet().values()]] = np.arange(256)
    symbols = number[np.frombuffer(b"".join(word for word, _ in words), np.uint8)]
    starts = np.cumsum([0, *(len(word) for word, _ in words)], dtype=np.uint64)
    spelled = Words(symbols, starts, np.array([count for _, count in words], np.int64))
    wanted = options.vocab_size - len(alphabet) - len(SPECIALS)
    longest = options.longest_piece or 128
    merges = _merges(spelled, len(alphabet), wanted, longest, options, progress)
    pieces = _spell(alphabet, merges)
    ids = {name: len(pieces) + place for place, name in enumerate(SPECIALS)}
    return Vocabulary(
        kind="bpe",
        pieces=[*pieces, *SPECIALS],
        types=[NORMAL] * len(pieces) + [CONTROL] * len(SPECIALS),
        merges=[(pieces[left], pieces[right]) for left, right in merges],
        splitter=splitter_named("llama-bpe"),
        bos_id=ids["<|begin_of_text|>"],
        eos_id=ids["<|end_of_text|>"],
        pad_id=ids["<|finetune_right_pad_id|>"],
        adds_bos=True,
        source="learned tokenizer",
        extra={"eot_token_id": ids["<|eot_id|>"], "eom_token_id": ids["<|eom_id|>"]},
    )


def _learn_characters(words: Sequence[Word], options: TokenizerOptions, progress: Progress | None) -> Vocabulary:
    """Llama 2's kind: control tokens, 256 bytes, what is merged, and the characters, in the order of Llama 2's file."""
    room = options.vocab_size - len(_LLAMA2_CONTROL) - 256
    codes = np.frombuffer(b"".join(word for word, _ in words).decode().encode("utf-32-le"), "<u4")
    counts = np.array([count for _, count in words], np.int64)
    word_of = np.repeat(np.arange(len(words)), [len(word.decode()) for word, _ in words])
    alphabet = _alphabet(codes, counts[word_of], options.coverage, room)
    spelled = _known_runs(codes, word_of, counts, alphabet)
    wanted, longest = room - len(alphabet), options.longest_piece or 16
    merges = _merges(spelled, len(alphabet), wanted, longest, options, progress)
    made = _spell(alphabet, merges)[len(alphabet) :]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    learned = [*made, *alphabet]
    return sentencepiece_vocabulary(
        "learned tokenizer",
        pieces=[*_LLAMA2_CONTROL, *bytes_, *learned],
        scores=[0.0] * (len(_LLAMA2_CONTROL) + 256) + [-float(rank) for rank in range(len(learned))],
        types=[UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(learned)],
        byte_fallback=True,
        space_prefix=True,
        adds_bos=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
    )


def _alphabet(codes: NDArray[np.uint32], counts: NDArray[np.int64], coverage: float, room: int) -> list[str]:
    """The most frequent characters that make up `coverage` of all; without those that end lines or steer terminals."""
    different, place = np.unique(codes, return_inverse=True)
    totals = np.zeros(len(different), np.int64)
    np.add.at(totals, place, counts)
    seen = ((chr(code), total) for code, total in zip(different.tolist(), totals.tolist(), strict=True))
    best = sorted((one for one in seen if one[0].isprintable()), key=lambda one: (-one[1], one[0]))
    wanted, covered = coverage * sum(count for _, count in best), 0
    alphabet = []
    for character, count in best[: max(room, 0)]:
        if covered >= wanted:
            break
        alphabet.append(character)
        covered += count
    if SPACE not in alphabet:  # each text begins with it
        alphabet[max(room, 1) - 1 :] = [SPACE]
    return alphabet


def _known_runs(
    codes: NDArray[np.uint32], word_of: NDArray[np.int64], counts: NDArray[np.int64], alphabet: Sequence[str]
) -> Words:
    """The parts of words between characters that are no pieces.

    Args:
        codes: characters of all words, one after another.
        word_of: the word of each character.
        counts: of each word.
        alphabet: characters that are pieces; their places are the symbols.
    """
    number = np.full(int(codes.max(initial=ord(SPACE))) + 1, len(alphabet), np.uint32)
    number[[ord(character) for character in alphabet]] = np.arange(len(alphabet))
    symbols = number[codes]
    known = np.flatnonzero(symbols < len(alphabet))
    begins = np.flatnonzero((np.diff(known, prepend=-2) > 1) | (np.diff(word_of[known], prepend=-1) != 0))
    starts = np.append(begins, len(known)).astype(np.uint64)
    return Words(symbols[known], starts, counts[word_of[known[begins]]])


def _merges(
    words: Words,
    alphabet: int,
    wanted: int,
    longest: int,
    options: TokenizerOptions,
    progress: Progress | None,
) -> list[Pair]:
    if wanted < 0:
        raise OptionError(
            f"vocab_size: {options.vocab_size} has no room for bytes, characters and control tokens; add {-wanted}",
            param="vocab_size",
        )

    def tell(done: int) -> None:
        if progress is not None:
            progress("merging", done, wanted)

    merges = learn_merges(words, [1] * alphabet, wanted, longest, options.least, tell)
    if len(merges) < wanted:
        most = options.vocab_size - wanted + len(merges)
        raise OptionError(
            f"vocab_size: these documents give {most} pieces, not {options.vocab_size}; set {most} or give more text",
            param="vocab_size",
        )
    return merges


def _spell(alphabet: Sequence[str], merges: Sequence[Pair]) -> list[str]:
    pieces = list(alphabet)
    for left, right in merges:
        pieces.append(pieces[left] + pieces[right])
    return pieces
