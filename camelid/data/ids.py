"""Document ids that two documents of a source share: `inspect` and whoever traces a text could not tell them apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from camelid.data.dedup.external_sort import digest, find_duplicates, keyed_rows
from camelid.data.document import Document
from camelid.data.reading.documents import read_documents
from camelid.data.stage_stats import MOST_EXAMPLES, StageStats

REPEATED = "id that another document has"  # among what was changed, though nothing was: such documents stay
_MEMORY = 256 * 2**20


class Ids:
    """Digests of the ids of a unit's documents, in order."""

    def __init__(self) -> None:
        self._digests: list[bytes] = []

    def noted(self, documents: Iterable[Document]) -> Iterator[Document]:
        """The same documents, their ids noted on the way."""
        for document in documents:
            self._digests.append(digest(f"{document.source}\n{document.id}".encode()))
            yield document

    def save(self, path: Path) -> None:
        """Write them: (N, 2)."""
        np.save(path, np.frombuffer(b"".join(self._digests), np.uint64).reshape(-1, 2))


def count_repeated(ids: Sequence[Path], documents: Sequence[Path], scratch: Path, stats: StageStats) -> None:
    """Count documents whose id came before, in `stats`, with the first ten of them.

    Args:
        ids: what `Ids.save` wrote, a file for each unit; one that is missing is passed over.
        documents: the units' documents.
        scratch: a folder for what memory does not hold.
        stats: of the stage that read them.
    """
    sizes = [len(np.load(path, mmap_mode="r")) if path.exists() else 0 for path in ids]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def blocks() -> Iterator[NDArray[np.void]]:
        for number, path in enumerate(ids):
            if sizes[number]:
                yield keyed_rows(np.load(path), np.arange(starts[number], starts[number + 1]))

    repeated = [duplicates for duplicates, _ in find_duplicates(blocks(), int(starts[-1]), scratch, _MEMORY)]
    places = np.sort(np.concatenate(repeated)) if repeated else np.zeros(0, np.int64)
    stats.change(REPEATED, len(places))
    for place in places[:MOST_EXAMPLES].tolist():
        unit = int(np.searchsorted(starts, place, side="right")) - 1
        document = next(islice(read_documents(documents[unit]), place - int(starts[unit]), None))
        stats.example(REPEATED, document.id, document.text)
