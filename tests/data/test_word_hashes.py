"""Words as arrays against plain Python."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.data.word_hashes import Words, ngrams

TEXTS = st.one_of(st.text(max_size=200), st.text(st.sampled_from("aAbÄä .,-\n\t\u2003\u3000é日İ1"), max_size=80))


def counted(word: str) -> str:
    lower = "".join(small if len(small := letter.lower()) == 1 else letter for letter in word)
    if len(word.lower()) == len(word):
        lower = word.lower()
    return "".join(letter for letter in lower if unicodedata.category(letter)[0] in "LMN")


@settings(deadline=None)  # the first one makes tables
@given(TEXTS)
def test_words_are_those_of_split(text):
    words = Words(text)
    assert [words[i] for i in range(len(words))] == text.split()
    assert words.lengths.tolist() == [len(word) for word in text.split()]
    assert words.length_sums.tolist() == np.cumsum([0, *map(len, text.split())]).tolist()
    assert words.lettered.tolist() == [any(unicodedata.category(c)[0] in "LMN" for c in word) for word in text.split()]
    assert words.alphabetic.tolist() == [any(c.isalpha() for c in word) for word in text.split()]


@settings(deadline=None)  # the first one makes tables
@given(TEXTS, TEXTS)
def test_hashes_are_equal_where_words_are(one, other):
    """Between texts too, ASCII or not; the normal ones without case and signs."""
    spelled = [*one.split(), *other.split()]
    exact = np.concatenate([Words(one).exact, Words(other).exact]).tolist()
    normal = np.concatenate([Words(one).hashes, Words(other).hashes]).tolist()
    assert len(set(exact)) == len(set(spelled)) == len(set(zip(spelled, exact, strict=True)))
    if len(one.lower()) == len(one) and len(other.lower()) == len(other):
        plain = [counted(word) for word in spelled]
        assert len(set(normal)) == len(set(plain)) == len(set(zip(plain, normal, strict=True)))


@settings(deadline=None)  # the first one makes tables
@given(TEXTS, st.integers(1, 6))
def test_ngrams_are_equal_where_words_in_a_row_are(text, n):
    words = text.split()
    runs = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    hashes = Words(text).ngrams(n, exact=True).tolist()
    assert len(hashes) == len(runs)
    assert len(set(hashes)) == len(set(runs)) == len(set(zip(runs, hashes, strict=True)))


def test_hashes_stay_what_they_are():
    """They are stored beside documents, so they may never change."""
    words = Words("The llama, naïve")
    assert words.hashes.tolist() == [2540685884374023954, 16157719619594046579, 8450373234181479420]
    assert ngrams(words.hashes, 2).tolist() == [10998031753136244006, 13467587044597923831]


def test_case_signs_and_wide_spaces():
    words = Words("Don't—DONT\u3000dont “dont!” — x")
    assert [words[i] for i in range(len(words))] == ["Don't—DONT", "dont", "“dont!”", "—", "x"]
    assert words.hashes[1] == words.hashes[2]
    assert words.hashes[3] == 0
    assert words.exact[1] != words.exact[2]


def test_a_long_document_and_a_long_word():
    text = "a" * 300_000 + " " + "b " * 300_000
    words = Words(text)
    assert len(words) == 300_001
    assert len(set(words.hashes.tolist())) == 2
    assert len(set(words.ngrams(3).tolist())) == 2


def test_ngrams_want_a_word():
    with pytest.raises(ValueError, match="at least 1"):
        ngrams(np.zeros(3, np.uint64), 0)
