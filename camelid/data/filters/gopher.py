"""Rules of Gopher (Rae and others 2021, https://arxiv.org/abs/2112.11446, appendix A.1.1): quality and repetition.

Definitions are datatrove's; words are runs of characters that are no white space, as in Dolma.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
from pydantic import Field

from camelid.data.document import Document
from camelid.data.stage import StageReport
from camelid.data.words import Hashes, Words
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


def gopher_quality(document: Document, words: Words, options: GopherQuality, report: StageReport) -> Document | str:
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
    if (text.count("...") + text.count("…")) / n_words > options.max_symbols:
        return "many ellipses"
    lines = text.splitlines()
    if sum(line.lstrip().startswith(_BULLETS) for line in lines) / len(lines) > options.max_bullet_lines:
        return "bullet lines"
    if sum(line.rstrip().endswith(_ELLIPSES) for line in lines) / len(lines) > options.max_ellipsis_lines:
        return "ellipsis lines"
    if np.count_nonzero(words.alphabetic) / n_words < options.min_words_with_letter:
        return "few words with letters"
    if len(set(options.stop_words).intersection(text.split())) < options.min_stop_words:
        return "few stop words"
    return document


def gopher_repetition(
    document: Document, words: Words, options: GopherRepetition, report: StageReport
) -> Document | str:
    """Drop what repeats lines, paragraphs or runs of words."""
    text, size = document.text, len(document.text)
    if not size:
        return "empty"
    paragraphs = _PARAGRAPHS.split(text.strip())
    count, characters = duplicates(paragraphs)
    if count / len(paragraphs) > options.max_duplicate_paragraphs:
        return "duplicate paragraphs"
    if characters / size > options.max_duplicate_paragraph_characters:
        return "characters in duplicate paragraphs"
    lines = _LINES.split(text)
    count, characters = duplicates(lines)
    if count / len(lines) > options.max_duplicate_lines:
        return "duplicate lines"
    if characters / size > options.max_duplicate_line_characters:
        return "characters in duplicate lines"
    for n, most in options.max_top.items():
        if exceeds_top(words, n, most * size):
            return f"frequent {n} words"
    duplicated = True  # of n words in a row seen before, the first n - 1 were seen before as well
    for n, most in sorted(options.max_duplicate.items()):
        duplicated = duplicated and has_duplicates(words.ngrams(n, exact=True))
        if duplicated and exceeds_duplicate(words, n, most * size):
            return f"duplicate {n} words"
    return document


def duplicates(items: Sequence[str]) -> tuple[int, int]:
    """How many items were there before, and their characters."""
    unique = set(items)
    count = len(items) - len(unique)
    return count, sum(map(len, items)) - sum(map(len, unique)) if count else 0


def exceeds_top(words: Words, n: int, most: float) -> bool:
    """Whether the most frequent n words in a row (the first of them, where several are) have more than `most`
    characters together, single spaces included."""
    grams = words.ngrams(n, exact=True)
    if not len(grams):
        return False
    lengths = _lengths(words, n) + (n - 1)
    ordered = np.sort(grams)
    borders = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    runs = np.diff(borders, prepend=0, append=len(ordered))
    count = int(runs.max())
    if count * int(lengths.max()) <= most:
        return False
    starts = np.concatenate(([0], borders))
    first = np.flatnonzero(np.isin(grams, ordered[starts[runs == count]]))[0]
    return bool(count * int(lengths[first]) > most)


def has_duplicates(grams: Hashes) -> bool:
    """Whether one occurs twice."""
    ordered = np.sort(grams)
    return bool((ordered[1:] == ordered[:-1]).any())


def exceeds_duplicate(words: Words, n: int, most: float) -> bool:
    """Whether runs of n words that were seen before, none overlapping another, have more than `most` characters.

    From left to right; a run that counts is left whole, and what begins within it is not remembered. Most documents
    pass by a bound: those runs lie within the words of all runs seen before.
    """
    grams = words.ngrams(n, exact=True)
    _, firsts, inverse = np.unique(grams, return_index=True, return_inverse=True)
    again = firsts[inverse] != np.arange(len(grams))
    covered = np.zeros(len(words) + 1, np.int64)
    covered[: len(grams)] += again
    covered[n:] -= again
    if int(words.lengths[np.cumsum(covered)[:-1] > 0].sum()) <= most:
        return False
    return _walk(grams.tolist(), _lengths(words, n).tolist().__getitem__, n) > most


def _walk(grams: list[int], length: Callable[[int], int], n: int) -> int:
    seen: set[int] = set()
    at = characters = 0
    while at < len(grams):
        if grams[at] in seen:
            characters += length(at)
            at += n
        else:
            seen.add(grams[at])
            at += 1
    return characters


def _lengths(words: Words, n: int) -> np.ndarray:
    """(N - n + 1,) characters of n words in a row, without what is between them."""
    sums = np.concatenate(([0], np.cumsum(words.lengths)))
    return sums[n:] - sums[:-n]
