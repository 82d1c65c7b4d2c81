"""C4's rules (Raffel and others 2020, https://jmlr.org/papers/v21/20-074.html), as in its code and in datatrove's.

Unlike the other rules these also take lines away, and what is between the brackets of a citation.
"""

from __future__ import annotations

import re

from pydantic import Field

from camelid.data.document import Document
from camelid.data.stage import StageReport
from camelid.data.words import Words
from camelid.options import Options

_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_ENDS = (".", "?", "!", '"', "'")
_SENTENCE = re.compile(r"[.?!]+[\"'”’)\]]*(?:\s+|$)")
_POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")


class C4(Options):
    """Lines that are sentences of a text, on a page without code or filler."""

    punctuation: bool = Field(True, description="Take away lines that do not end in . ? ! or a quote.")
    citations: bool = Field(True, description="Take away [1], [edit] and [citation needed].")
    javascript: bool = Field(True, description="Take away lines that mention JavaScript.")
    policies: bool = Field(True, description="Take away lines about cookies and terms of use.")
    lorem_ipsum: bool = Field(True, description="Drop documents with filler text.")
    curly_brackets: bool = Field(True, description="Drop documents with a {.")
    min_words: int = Field(3, ge=0, description="Of a line; shorter ones are taken away.")
    max_word_length: int = Field(1000, ge=1, description="Lines with a longer word are taken away.")
    min_sentences: int = Field(5, ge=0, description="Of a document, once lines are taken away.")


def c4(document: Document, words: Words, options: C4, report: StageReport) -> Document | str:
    """Take away lines that are no sentences; drop documents with filler or code, and those of which little is left."""
    kept: list[str] = []
    gone: dict[str, int] = {}
    sentences = 0
    for original in document.text.splitlines():
        line = original.strip()
        reason = _wrong_at_once(line, options)
        if reason is None:
            line = _CITATION.sub("", line) if options.citations and "[" in line else line
            reason = _wrong(line, len(original.split()), options)
        if reason in ("lorem ipsum", "curly bracket"):
            return reason
        if reason is not None:
            gone[reason] = gone.get(reason, 0) + 1
            continue
        sentences += n_sentences(line)
        kept.append(line)
    if sentences < options.min_sentences:
        return "few sentences"
    for reason, count in gone.items():
        report.change(f"lines taken away: {reason}", count)
    return document.with_text("\n".join(kept).strip())


def _wrong_at_once(line: str, options: C4) -> str | None:
    if len(line) > options.max_word_length and any(len(word) > options.max_word_length for word in line.split()):
        return "long word"
    return None


def _wrong(line: str, n_words: int, options: C4) -> str | None:
    if options.punctuation and (not line.endswith(_ENDS) or line.endswith("...")):
        return "no punctuation at its end"
    if n_words < options.min_words:
        return "few words"
    lower = line.lower()
    if options.lorem_ipsum and "lorem ipsum" in lower:
        return "lorem ipsum"
    if options.javascript and "javascript" in lower:
        return "javascript"
    if options.curly_brackets and "{" in line:
        return "curly bracket"
    if options.policies and any(policy in lower for policy in _POLICIES):
        return "policy"
    return None


def n_sentences(line: str) -> int:
    """Sentences of a line, by their marks; what follows the last mark is one more."""
    ends = [match.end() for match in _SENTENCE.finditer(line)]
    return len(ends) + (bool(line) and (not ends or ends[-1] < len(line)))
