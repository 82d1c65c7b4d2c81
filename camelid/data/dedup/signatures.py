"""Signatures of documents, from which duplicates are clustered: a few numbers each, made while documents are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camelid.data.dedup import exact, paragraph, url
from camelid.data.dedup.external_sort import digest
from camelid.data.dedup.minhash import MinHash
from camelid.data.dedup.options import DedupOptions
from camelid.data.document import Document
from camelid.data.word_hashes import Words
from camelid.files import whole_file

_TOGETHER = 1024  # documents whose signatures become keys of bands in one go


class Signer:
    """Collects the signatures of one unit's documents, in their order."""

    def __init__(self, options: DedupOptions) -> None:
        self._options = options
        self._minhash = MinHash(options)
        self._keys = {"url": bytearray(), "exact": bytearray(), "paragraph": bytearray()}
        self._signatures: list[NDArray[np.uint32] | None] = []
        self._bands: list[NDArray[np.uint64]] = []
        self._paragraphs: list[int] = []
        self._count = 0

    def add(self, document: Document, words: Words) -> None:
        """Take a document that passed all filters."""
        options = self._options
        self._count += 1
        if options.url:
            self._keys["url"] += digest(url.key(document))
        if options.exact:
            self._keys["exact"] += digest(exact.key(document))
        if options.minhash:
            self._signatures.append(self._minhash.signature(words))
            if len(self._signatures) == _TOGETHER:
                self._fold()
        if options.paragraph:
            keys = paragraph.keys(document.text, options.paragraph_words)
            self._keys["paragraph"] += b"".join(map(digest, keys))
            self._paragraphs.append(len(keys))

    def _fold(self) -> None:
        """Signatures become the keys of their bands, which are a quarter of their size."""
        self._bands.append(self._minhash.bands(self._signatures))
        self._signatures = []

    def save(self, path: Path) -> None:
        """Write one .npz, complete or not at all."""
        arrays: dict[str, NDArray[Any]] = {"count": np.array(self._count)}
        for name in ("url", "exact", "paragraph"):
            if getattr(self._options, name):
                arrays[name] = np.frombuffer(self._keys[name], "<u8").reshape(-1, 2)
        if self._options.minhash:
            self._fold()
            arrays |= {f"band{number}": band for number, band in enumerate(np.concatenate(self._bands, axis=1))}
        if self._options.paragraph:
            arrays["paragraphs"] = np.array(self._paragraphs, np.int64)
        with whole_file(path) as file:
            np.savez(file, allow_pickle=False, **arrays)
