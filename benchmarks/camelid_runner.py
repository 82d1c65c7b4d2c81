"""camelid's C++ engine behind the few calls that a comparison needs: forward passes without sampling."""

from __future__ import annotations

from pathlib import Path

from camelid.engine.backend_cpu import CpuBackend
from camelid.engine.batch import Batch, Span
from camelid.engine.options import EngineOptions
from camelid.weights.open import open_weights


class CamelidRunner:
    """A pool with room for `sequences` × `length` positions."""

    name = "camelid"

    def __init__(self, path: str, threads: int, length: int, sequences: int = 1, bits: int = 8) -> None:
        self.backend = CpuBackend(open_weights(Path(path)), EngineOptions(threads=threads, activation_bits=bits))
        per = -(-length // self.backend.page_size)
        self.backend.allocate(per * sequences)
        self.pages = [tuple(range(i * per, (i + 1) * per)) for i in range(sequences)]

    def forward(self, items: list[tuple[list[int], int, int]]) -> None:
        """Each (ids, start, sequence); logits of the last id of each."""
        spans = [
            Span(tuple(ids), start, self.pages[sequence], range(len(ids) - 1, len(ids)))
            for ids, start, sequence in items
        ]
        self.backend.forward(Batch(tuple(spans)))

    def trim(self, sequence: int, length: int) -> None:
        """Forget what lies behind `length` positions: the next forward says where it starts."""

    def close(self) -> None:
        """Give the memory back."""
        del self.backend
