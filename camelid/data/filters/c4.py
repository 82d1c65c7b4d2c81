"""C4's rules (Raffel and others 2020, https://jmlr.org/papers/v21/20-074.html), as in its code and in datatrove's.

Unlike the other rules these also take lines away, and what is between the brackets of a citation.
"""

from __future__ import annotations

import re

from pydantic import Field

from camelid.data.document import Document
from camelid.data.stage_stats import StageStats
from camelid.data.word_hashes import Words
from camelid.options import Options

_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_ENDS = (".", "?", "!", '"', "'")
_MARK = r"[.?!]+[\"'”’)\]]*"
_SENTENCE, _LAST = re.compile(rf"{_MARK}(?:\s|$)"), re.compile(rf"{_MARK}$", re.MULTILINE)
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


def c4(document: Document, words: Words, options: C4, stats: StageStats) -> Document | str:
    """Take away lines that are no sentences; drop documents with filler or code, and those of which little is left."""
    lines, gone = _lines(document.text, options)
    if isinstance(gone, str):
        return gone
    text = "\n".join(lines)
    if len(_SENTENCE.findall(text)) < options.min_sentences and n_sentences(text) < options.min_sentences:
        return "few sentences"
    for reason, count in gone.items():
        stats.change(f"lines taken away: {reason}", count)
    return document.with_text(text.strip())


def _lines(text: str, options: C4) -> tuple[list[str], dict[str, int] | str]:
    """The lines that stay, and reasons of the others; one reason where the whole document goes."""
    remaining: list[str] = []
    gone: dict[str, int] = {}
    lower = text.lower()
    lorem = options.lorem_ipsum and "lorem ipsum" in lower
    curly = options.curly_brackets and "{" in text
    javascript = options.javascript and "javascript" in lower
    policies = options.policies and any(policy in lower for policy in _POLICIES)
    citations = options.citations and "[" in text
    for line in text.splitlines():
        line = line.strip()
        reason, words = "", line
        if citations:
            line = _CITATION.sub("", line)
        if len(words) > options.max_word_length and max(map(len, words.split())) > options.max_word_length:
            reason = "long word"
        elif options.punctuation and (not line.endswith(_ENDS) or line.endswith("...")):
            reason = "no punctuation at its end"
        elif len(words.split(None, options.min_words)) < options.min_words:
            reason = "few words"
        elif lorem and "lorem ipsum" in line.lower():
            return [], "lorem ipsum"
        elif javascript and "javascript" in line.lower():
            reason = "javascript"
        elif curly and "{" in line:
            return [], "curly bracket"
        elif policies and any(policy in line.lower() for policy in _POLICIES):
            reason = "policy"
        if reason:
            gone[reason] = gone.get(reason, 0) + 1
        else:
            remaining.append(line)
    return remaining, gone


def n_sentences(text: str) -> int:
    """Sentences of a text, by their marks; what follows the last mark of a line is one more. Lines have no white
    space at their ends."""
    if not text:
        return 0
    ended = len(_LAST.findall(text))
    return len(_SENTENCE.findall(text)) + text.count("\n") + 1 - ended
