"""Which documents go: over the signatures of all units, in their order, whoever made them when."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camelid.data.dedup.external_sort import KEYED_ROW, find_duplicates, keyed_rows
from camelid.data.dedup.minhash import unite
from camelid.data.dedup.options import STAGES, DedupOptions
from camelid.errors import FormatError, MissingError

MEMORY = 512 * 2**20  # bytes that clustering uses at most, beside the arrays in mapped files
KEPT = 0  # else 1 + the place in STAGES of the stage that drops it


def cluster_duplicates(files: Sequence[Path], options: DedupOptions, folder: Path, memory: int = MEMORY) -> Path:
    """Cluster all documents, stage by stage; one that an earlier stage drops is no first for a later one.

    Args:
        files: what `Signer.save` wrote, one a unit, in the global order of units.
        folder: where the decisions go, for `Deduplication`; replaced as a whole at the end.
        memory: bytes to use; what does not fit is sorted in parts on disk, with the same result.

    Returns:
        `folder`.

    Raises:
        MissingError, FormatError: signatures are not there, or not as expected.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.part-", dir=folder.parent))
    try:
        _Clustering(files, options, scratch, memory).run()
        shutil.rmtree(folder, ignore_errors=True)
        scratch.replace(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


class _Clustering:
    """The numbers of all documents and paragraphs, and what is known of each so far."""

    def __init__(self, files: Sequence[Path], options: DedupOptions, folder: Path, memory: int) -> None:
        self._files, self._options, self._folder, self._memory = files, options, folder, memory
        self._starts = np.cumsum([0, *(int(_load(file, "count")) for file in files)], dtype=np.int64)
        self._reasons = self._mapped("reasons", int(self._starts[-1]), np.dtype(np.uint8))

    def run(self) -> None:
        stages = self._options.stages()
        for name in ("url", "exact"):
            if name in stages:
                for repeated, _ in self._duplicates(self._documents(name)):
                    self._reasons[repeated] = 1 + STAGES.index(name)
        if "minhash" in stages:
            self._minhash()
        about: dict[str, Any] = {"stages": stages, "documents": self._starts.tolist()}
        if "paragraph" in stages:
            about["paragraphs"] = self._paragraphs()
        self._reasons.flush()
        (self._folder / "units.json").write_text(json.dumps(about), encoding="utf-8")

    def _minhash(self) -> None:
        count = int(self._starts[-1])
        if not count:
            return
        least = self._mapped("groups", count, np.dtype(np.int64))
        least[:] = np.arange(count)
        for band in range(self._options.bands):
            for repeated, first in self._duplicates(self._documents(f"band{band}")):
                unite(least, repeated, first)
        for start in range(0, count, 2**20):
            part = slice(start, min(start + 2**20, count))
            later = least[part] != np.arange(part.start, part.stop)
            self._reasons[part][later] = 1 + STAGES.index("minhash")
        del least
        (self._folder / "groups.npy").unlink()

    def _paragraphs(self) -> list[int]:
        """Marks repeated paragraphs; returns the number of the first paragraph of each unit, and of all."""
        starts = np.cumsum([0, *(len(_load(file, "paragraph")) for file in self._files)], dtype=np.int64)
        marks = self._mapped("paragraphs", int(starts[-1]), np.dtype(np.uint8))

        def blocks() -> Iterator[NDArray[np.void]]:
            for number, file in enumerate(self._files):
                stays = np.repeat(self._of(number) == KEPT, _load(file, "paragraphs"))
                at = np.arange(starts[number], starts[number + 1])
                yield keyed_rows(_load(file, "paragraph")[stays], at[stays])

        for repeated, _ in find_duplicates(blocks(), int(starts[-1]), self._folder, self._memory):
            marks[repeated] = 1
        marks.flush()
        return [int(start) for start in starts]

    def _documents(self, name: str) -> Iterator[NDArray[np.void]]:
        """Keys of the documents that are left."""
        for number, file in enumerate(self._files):
            stays = self._of(number) == KEPT
            at = np.arange(self._starts[number], self._starts[number + 1])
            yield keyed_rows(_load(file, name)[stays], at[stays])

    def _duplicates(self, blocks: Iterator[NDArray[np.void]]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        return find_duplicates(blocks, int(self._starts[-1]), self._folder, self._memory)

    def _of(self, unit: int) -> NDArray[np.uint8]:
        return self._reasons[self._starts[unit] : self._starts[unit + 1]]

    def _mapped(self, name: str, length: int, kind: np.dtype[Any]) -> Any:
        """An array in a file of its own, as the system has memory for it; of zeros."""
        path = self._folder / f"{name}.npy"
        # Nothing can be mapped that has no bytes.
        return np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=(max(1, length),))


def memory_bound(n_documents: int, options: DedupOptions, memory: int = MEMORY) -> int:
    """Bytes that clustering needs: `memory`, and one byte and, for MinHash, one number a document in mapped files."""
    largest = n_documents * KEYED_ROW.itemsize * 4
    return min(memory, largest) + n_documents * (1 + (8 if options.minhash else 0))


def _load(path: Path, name: str) -> NDArray[Any]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return np.asarray(arrays[name])
    except FileNotFoundError:
        raise MissingError(f"{path}: signatures are missing; prepare again") from None
    except (OSError, ValueError, KeyError) as error:
        raise FormatError(f"{path}: not as expected ({error}); remove it and prepare again") from None
