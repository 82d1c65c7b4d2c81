"""Duplicates dropped, or their paragraphs taken out, each with its reason in the statistics of its stage."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from camelid.data.dedup import paragraph
from camelid.data.dedup.options import STAGES, DedupOptions
from camelid.data.document import Document
from camelid.data.stage_stats import StageStats
from camelid.errors import FormatError, MissingError

REASONS = {
    "url": "URL seen before",
    "exact": "text seen before",
    "minhash": "nearly the same as one before",
    "paragraph": "all paragraphs seen before",
}


class Deduplication:
    """The stages, for one unit, as `cluster_duplicates` decided.

    Args:
        folder: that `cluster_duplicates` returned.
        unit: number of the unit in the global order.
        options: the same as for `cluster_duplicates`.

    Attributes:
        stage_stats: of each stage by name, filled by `apply`.

    Raises:
        MissingError: there are no decisions there.
    """

    def __init__(self, folder: Path, unit: int, options: DedupOptions) -> None:
        try:
            about = json.loads((folder / "units.json").read_text(encoding="utf-8"))
        except OSError:
            raise MissingError(f"{folder}: no decisions about duplicates; prepare again") from None
        self._options = options
        first, last = about["documents"][unit : unit + 2]
        self._reasons = _slice(folder / "reasons.npy", first, last)
        self._paragraphs = np.zeros(0, np.uint8)
        if options.paragraph:
            first, last = about["paragraphs"][unit : unit + 2]
            self._paragraphs = _slice(folder / "paragraphs.npy", first, last)
        self.stage_stats = {name: StageStats(name, filters=name != "url") for name in options.stages()}

    def apply(self, documents: Iterable[Document]) -> Iterator[Document]:
        """The documents of the unit that stay; the same documents in the same order as had signatures.

        Raises:
            FormatError: there are more or fewer of them.
        """
        at = number = 0
        for number, document in enumerate(documents, 1):
            if number > len(self._reasons):
                raise FormatError(f"{document.id}: more documents than were compared; prepare again")
            count = 0
            if self._options.paragraph:
                count = len(paragraph.keys(document.text, self._options.paragraph_words))
            remaining = self._through(document, int(self._reasons[number - 1]), self._paragraphs[at : at + count])
            at += count
            if remaining is not None:
                yield remaining
        if number < len(self._reasons):
            raise FormatError(f"{number} documents, {len(self._reasons)} were compared; prepare again")

    def _through(self, document: Document, reason: int, repeated: NDArray[np.uint8]) -> Document | None:
        """A document through the stages, counted in each that it reaches."""
        for name, stats in self.stage_stats.items():
            stats.filters |= document.url is not None  # without any URL, dropping none is no news
            if reason == 1 + STAGES.index(name):
                stats.drop(document, REASONS[name])
                return None
            if name != "paragraph" or not repeated.any():
                stats.keep(document)
                continue
            shorter = paragraph.without(document, repeated.tolist(), self._options.paragraph_words)
            if shorter is None:
                stats.drop(document, REASONS[name])
                return None
            stats.keep(document, shorter)
            stats.change("paragraphs removed", int(repeated.sum()))
            document = shorter
        return document


def _slice(path: Path, first: int, last: int) -> NDArray[np.uint8]:
    return np.array(np.load(path, mmap_mode="r")[first:last]) if last > first else np.zeros(0, np.uint8)
