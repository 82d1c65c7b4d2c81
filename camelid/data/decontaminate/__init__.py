"""Documents that hold text of tests are dropped, or lose the lines that hold it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from camelid.data.decontaminate.evaluation_text import Found, evaluation_text
from camelid.data.document import Document, n_bytes
from camelid.data.options import DecontaminateOptions
from camelid.data.stage_stats import MOST_EXAMPLES, StageReport
from camelid.data.word_hashes import Words

NAME = "decontaminate"


class Decontamination:
    """The stage, for one worker.

    Attributes:
        report: what it did.

    Raises:
        MissingError, FormatError, OptionError: as `EvaluationText`.
    """

    def __init__(self, options: DecontaminateOptions, folder: Path) -> None:
        self._text = evaluation_text(options, folder)
        self._cuts = options.action == "cut"
        self.report = StageReport(NAME)

    def apply(self, documents: Iterable[Document]) -> Iterator[Document]:
        """The documents that stay, without the lines that were cut."""
        for document in documents:
            kept = self(document, Words(document.text))
            if kept is not None:
                yield kept

    def __call__(self, document: Document, words: Words) -> Document | None:
        """The document, or what is left of it; None if it is dropped."""
        found = self._text.find(words)
        first = next(found, None)
        if first is None:
            self.report.keep(document)
            return document
        what = f"contains {first.item.name}"
        excerpt = f"item {first.item.number}: {document.text[first.start : first.stop]}"
        cut = _without(document, [first, *found]) if self._cuts else None
        if cut is None:  # an example shows what was found, not how the document begins
            self.report.documents_in += 1
            self.report.bytes_in += n_bytes(document.text)
            self.report.refuse(what, document.id, excerpt)
            return None
        self.report.keep(document, cut)
        self.report.change(f"cut: {what}")
        some = self.report.examples.setdefault(f"cut: {what}", [])
        if len(some) < MOST_EXAMPLES:
            some.append({"id": document.id, "excerpt": excerpt})
        return cut


def _without(document: Document, found: list[Found]) -> Document | None:
    """The document without the lines that were found; None if no letter or digit is left."""
    kept, at = [], 0
    for line in document.text.splitlines(keepends=True):
        if not any(one.start < at + len(line) and at < one.stop for one in found):
            kept.append(line)
        at += len(line)
    text = "".join(kept)
    return document.with_text(text) if any(letter.isalnum() for letter in text) else None
