"""Rules of Gopher (Rae and others 2021, https://arxiv.org/abs/2112.11446, appendix A.1.1): quality and repetition.

Definitions are datatrove's; words are runs of characters that are no white space, as in Dolma.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from camelid.data.document import Document
from camelid.data.stage_stats import StageStats
from camelid.data.word_hashes import WORD_FACTOR, Hashes, Positions, Words
from camelid.options import Options

_PARAGRAPHS, _LINES = re.compile(r"\n{2,}"), re.compile(r"\n+")
_BULLETS, _ELLIPSES = ("•", "-"), ("...", "…")


class GopherQuality(Options):
    """Looks like prose of a usual length."""

    min_words: int = Field(50, ge=0, description="Words with a letter or digit.")
    max_words: int = Field(100_000, ge=1, description="Words with a letter or digit.")
    min_word_length: float = Field(3, ge=0, description="Mean, in characters.")
    max_word_length: float = Field(10, gt=0, description="Mean, in characters.")
    max_symbols: float = Field(0.1, ge=0, description="# or … for each word.")
    max_bullet_lines: float = Field(0.9, ge=0, le=1, description="Share of lines that begin with • or -.")
    max_ellipsis_lines: float = Field(0.3, ge=0, le=1, description="Share of lines that end with an ellipsis.")
    min_words_with_letter: float = Field(0.8, ge=0, le=1, description="Share of all words.")
    min_stop_words: int = Field(2, ge=0, description="Different ones of `stop_words`.")
    stop_words: tuple[str, ...] = Field(("the", "be", "to", "of", "and", "that", "have", "with"))


class GopherRepetition(Options):
    """Does not say the same thing again and again. Shares are of the document's characters where not said otherwise."""

    max_duplicate_lines: float = Field(0.3, ge=0, le=1, description="Share of lines.")
    max_duplicate_paragraphs: float = Field(0.3, ge=0, le=1, description="Share of paragraphs.")
    max_duplicate_line_characters: float = Field(0.2, ge=0, le=1)
    max_duplicate_paragraph_characters: float = Field(0.2, ge=0, le=1)
    max_top: dict[int, float] = Field(
        {2: 0.2, 3: 0.18, 4: 0.16}, description="n → share that the most frequent n words may have."
    )
    max_duplicate: dict[int, float] = Field(
        {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.1},
        description="n → share that n words in a row seen before may have.",
    )


def gopher_quality(document: Document, words: Words, options: GopherQuality, stats: StageStats) -> Document | str:
    """Drop what does not look like prose.

    Raises nothing; an empty document has too few words, whatever the thresholds.
    """
    text, lettered = document.text, words.lettered
    n_words, n_lettered = len(words), int(np.count_nonzero(lettered))
    if not n_words or n_lettered < options.min_words:
        return "few words"
    if n_lettered > options.max_words:
        return "many words"
    mean_length = float(words.lengths[lettered].mean()) if n_lettered else 0.0
    if mean_length < options.min_word_length:
        return "short words"
    if mean_length > options.max_word_length:
        return "long words"
    if text.count("#") / n_words > options.max_symbols:
        return "many hashes"
    ellipses = text.count("...") + text.count("…")
    if ellipses / n_words > options.max_symbols:
        return "many ellipses"
    lines = text.splitlines()
    bullets = text.count("•") + text.count("-")  # lines are looked at only where there are enough signs at all
    if bullets > options.max_bullet_lines * len(lines):
        bullets = sum(line.lstrip().startswith(_BULLETS) for line in lines)
        if bullets / len(lines) > options.max_bullet_lines:
            return "bullet lines"
    if ellipses > options.max_ellipsis_lines * len(lines):
        ellipses = sum(line.rstrip().endswith(_ELLIPSES) for line in lines)
        if ellipses / len(lines) > options.max_ellipsis_lines:
            return "ellipsis lines"
    if np.count_nonzero(words.alphabetic) / n_words < options.min_words_with_letter:
        return "few words with letters"
    if len(set(options.stop_words).intersection(text.split())) < options.min_stop_words:
        return "few stop words"
    return document


def gopher_repetition(document: Document, words: Words, options: GopherRepetition, stats: StageStats) -> Document | str:
    """Drop what repeats lines, paragraphs or runs of words."""
    text, size = document.text, len(document.text)
    if not size:
        return "empty"
    several = "\n\n" in text
    paragraphs = _PARAGRAPHS.split(text.strip()) if several else [text]
    count, characters = duplicates(paragraphs)
    if count / len(paragraphs) > options.max_duplicate_paragraphs:
        return "duplicate paragraphs"
    if characters / size > options.max_duplicate_paragraph_characters:
        return "characters in duplicate paragraphs"
    lines = _LINES.split(text) if several else text.split("\n")
    count, characters = duplicates(lines)
    if count / len(lines) > options.max_duplicate_lines:
        return "duplicate lines"
    if characters / size > options.max_duplicate_line_characters:
        return "characters in duplicate lines"
    return _repeated_words(words, options) or document


def _repeated_words(words: Words, options: GopherRepetition) -> str | None:
    """Why runs of words say too often the same, if they do."""
    size, sums = len(words.text), words.length_sums
    ngrams = _Ngrams(words)
    for n, most in sorted(options.max_top.items()):
        if exceeds_top(ngrams(n), sums[n:] - sums[:-n] + (n - 1), most * size):
            return f"frequent {n} words"
    limits = sorted(options.max_duplicate.items())
    if not limits:
        return None
    # Words of longer runs that were seen before lie in shorter ones that were, so one bound does for most documents.
    least = min(most for _, most in limits) * size
    if seen_before(ngrams(limits[0][0]), sums, limits[0][0]) <= least:
        return None
    for n, most in limits:
        grams = ngrams(n)
        if seen_before(grams, sums, n) > most * size and duplicate_characters(grams, sums, n) > most * size:
            return f"duplicate {n} words"
    return None


class _Ngrams:
    """Hashes of n words in a row, for n that grows: each step adds a word to what is there."""

    def __init__(self, words: Words) -> None:
        self._words = self._hashes = words.exact
        self._n = 1

    def __call__(self, n: int) -> Hashes:
        while self._n < n:
            self._hashes = self._hashes[:-1] * WORD_FACTOR + self._words[self._n :]
            self._n += 1
        return self._hashes


def duplicates(items: Sequence[str]) -> tuple[int, int]:
    """How many items were there before, and their characters."""
    unique = set(items)
    count = len(items) - len(unique)
    return count, sum(map(len, items)) - sum(map(len, unique)) if count else 0


def exceeds_top(grams: Hashes, lengths: Positions, most: float) -> bool:
    """Whether the most frequent run of words (the first of them, where several are) has more than `most` characters
    in all the places where it is.

    Args:
        grams: (M,) hashes of the runs.
        lengths: (M,) of each run in characters.
        most: the limit.
    """
    if not len(grams):
        return False
    enough = max(1, int(most / int(lengths.max())))  # a run so rare has not more
    ordered = np.sort(grams)
    if enough * int(lengths.max()) <= most and not (ordered[enough:] == ordered[:-enough]).any():
        return False
    _, firsts, counts = np.unique(grams, return_index=True, return_counts=True)
    count = int(counts.max())
    first = int(firsts[counts == count].min())
    return bool(count * int(lengths[first]) > most)


def seen_before(grams: Hashes, sums: Positions, n: int) -> int:
    """Characters of all words in runs of n that were there before; a few too many, never too few.

    Hash and place share 64 bits, so that one plain sort finds equal hashes with their places.

    Args:
        grams: (M,) hashes of the runs.
        sums: (M + n,) characters before each word.
        n: words of a run.
    """
    if len(grams) < 2:
        return 0
    bits = np.uint64((1 << len(grams).bit_length()) - 1)
    ordered = np.sort((grams & ~bits) | np.arange(len(grams), dtype=np.uint64))
    repeated = ordered[1:][((ordered[1:] ^ ordered[:-1]) & ~bits) == 0] & bits
    if not len(repeated):
        return 0
    begins = np.sort(repeated.astype(np.int64))
    ends = np.append(np.minimum(begins[:-1] + n, begins[1:]), begins[-1] + n)
    return int((sums[ends] - sums[begins]).sum())


def duplicate_characters(grams: Hashes, sums: Positions, n: int) -> int:
    """Characters of runs of n words that were there before, none overlapping another, from left to right; a run that
    counts is left whole, and what begins within it is not remembered. Arguments are those of `seen_before`."""
    seen: set[int] = set()
    at = characters = 0
    hashes = grams.tolist()
    while at < len(hashes):
        if hashes[at] in seen:
            characters += int(sums[at + n] - sums[at])
            at += n
        else:
            seen.add(hashes[at])
            at += 1
    return characters
