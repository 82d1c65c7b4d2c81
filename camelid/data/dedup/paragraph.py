"""Paragraphs seen before: cookie notices, licences, mastheads; taken out of the documents that repeat them."""

from __future__ import annotations

from collections.abc import Sequence

from camelid.data.document import Document


def keys(text: str, least_words: int) -> list[bytes]:
    """The paragraphs (lines) that are long enough to be compared, in order, white space at both ends aside."""
    return [line.strip().encode("utf-8", "surrogatepass") for line in text.splitlines() if _counts(line, least_words)]


def without(document: Document, repeated: Sequence[bool], least_words: int) -> Document | None:
    """The document without repeated paragraphs; None if nothing with a letter or digit is left.

    Args:
        repeated: for each of `keys(document.text)`.
    """
    marks = iter(repeated)
    remaining = [
        line for line in document.text.splitlines(keepends=True) if not (_counts(line, least_words) and next(marks))
    ]
    text = "".join(remaining)
    if not any(letter.isalnum() for letter in text):
        return None
    return document.with_text(text)


def _counts(line: str, least_words: int) -> bool:
    # A word and the space after it are two characters at least: most short lines need no splitting.
    return len(line) >= 2 * least_words - 1 and len(line.split(None, least_words)) >= least_words
