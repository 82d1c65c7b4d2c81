"""Documents that hold text of tests are dropped, or lose the lines that hold it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from camelid.data.decontaminate.evaluation_text import Match, evaluation_text
from camelid.data.document import Document, n_bytes
from camelid.data.options import DecontaminateOptions
from camelid.data.stage_stats import MOST_EXAMPLES, StageStats
from camelid.data.word_hashes import Words

NAME = "decontaminate"


class Decontamination:
    """The stage, for one worker.

    Attributes:
        stats: of the stage.

    Raises:
        MissingError, FormatError, OptionError: as `EvaluationText`.
    """

    def __init__(self, options: DecontaminateOptions, folder: Path) -> None:
        self._text = evaluation_text(options, folder)
        self._cuts = options.action == "cut"
        self.stats = StageStats(NAME)

    def apply(self, documents: Iterable[Document]) -> Iterator[Document]:
        """The documents that stay, without the lines that were cut."""
        for document in documents:
            remaining = self(document, Words(document.text))
            if remaining is not None:
                yield remaining

    def __call__(self, document: Document, words: Words) -> Document | None:
        """The document, or what is left of it; None if it is dropped."""
        matches = self._text.find(words)
        first = next(matches, None)
        if first is None:
            self.stats.keep(document)
            return document
        what = f"contains {first.item.name}"
        excerpt = f"item {first.item.number}: {document.text[first.start : first.stop]}"
        cut = _without(document, [first, *matches]) if self._cuts else None
        if cut is None:  # an example shows what was found, not how the document begins
            self.stats.documents_in += 1
            self.stats.bytes_in += n_bytes(document.text)
            self.stats.refuse(what, document.id, excerpt)
            return None
        self.stats.keep(document, cut)
        self.stats.change(f"cut: {what}")
        examples = self.stats.examples.setdefault(f"cut: {what}", [])
        if len(examples) < MOST_EXAMPLES:
            examples.append({"id": document.id, "excerpt": excerpt})
        return cut


def _without(document: Document, matches: list[Match]) -> Document | None:
    """The document without the lines that were matched; None if no letter or digit is left."""
    lines, at = [], 0
    for line in document.text.splitlines(keepends=True):
        if not any(match.start < at + len(line) and at < match.stop for match in matches):
            lines.append(line)
        at += len(line)
    text = "".join(lines)
    return document.with_text(text) if any(letter.isalnum() for letter in text) else None
