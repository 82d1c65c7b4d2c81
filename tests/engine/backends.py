"""Tiny backends for the engine's tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from camelid.engine.backend import ALL_ARE_TOKENS, Backend
from camelid.engine.backend_numpy import NumpyBackend
from camelid.engine.batch import Batch, Span
from camelid.engine.engine import Engine
from camelid.engine.request import PromptToken, Request
from camelid.model.config import ModelConfig
from tests.tiny import tiny_config, tiny_tensors


class OracleBackend:
    """Logits are a fixed function of all ids so far, kept in the pages themselves: a wrong page shows at once."""

    name, bytes_per_number, absent, same_bits = "oracle", 1, ALL_ARE_TOKENS, True

    def __init__(self, config: ModelConfig | None = None, page_size: int = 4) -> None:
        self.config, self.page_size = config or tiny_config(), page_size
        self.forwarded = 0

    def free_bytes(self) -> int:
        return 10**9

    def allocate(self, n_pages: int) -> None:
        self._pool = np.full((n_pages, self.page_size), -1)

    def forward(self, batch: Batch) -> list[np.ndarray]:
        rows = []
        for span in batch.spans:
            for offset, id in enumerate(span.ids):
                page, place = divmod(span.start + offset, self.page_size)
                self._pool[span.pages[page], place] = id
            self.forwarded += len(span.ids)
            seen = self._pool[list(span.pages)].ravel()
            own = [self.row(seen[: span.start + at + 1]) for at in span.wanted]
            rows.append(np.array(own, np.float32).reshape(-1, self.config.vocab_size))
        return rows

    def row(self, ids: np.ndarray) -> np.ndarray:
        assert (ids >= 0).all(), "read a position that was never written"
        seed = hash(tuple(ids.tolist())) % 2**32
        return np.random.default_rng(seed).standard_normal(self.config.vocab_size, dtype=np.float32)

    def copy_page(self, source: int, target: int) -> None:
        self._pool[target] = self._pool[source]


def span(ids: tuple[int, ...], start: int, pages: tuple[int, ...], wanted: str, kind: str = "logits") -> Span:
    """A span of which all rows are wanted, the last one, or none."""
    first = {"all": 0, "last": len(ids) - 1, "none": len(ids)}[wanted]
    return Span(ids, start, pages, range(first, len(ids)), kind)


def forward(backend: Backend, *spans: Span) -> np.ndarray:
    """The wanted rows of all spans, one after the other."""
    return np.concatenate(backend.forward(Batch(spans)))


def logits(engine: Engine, ids: Sequence[int]) -> np.ndarray:
    """Logits after each id, (len(ids), V)."""
    return engine.result(Request(ids=tuple(ids), wants="logits")).rows


def hidden(engine: Engine, ids: Sequence[int]) -> np.ndarray:
    """Hidden states after each id, (len(ids), D)."""
    return engine.result(Request(ids=tuple(ids), wants="hidden")).rows


def mean_hidden(engine: Engine, ids: Sequence[int]) -> np.ndarray:
    """Their mean, (D,)."""
    (mean,) = engine.result(Request(ids=tuple(ids), wants="hidden", pooled=True)).rows
    return mean


def scoring(ids: Sequence[int], start: int = 1) -> Request:
    """A request for the log-probabilities of the ids from `start` on."""
    return Request(ids=tuple(ids), wants="logprobs", rows=range(start - 1, max(start - 1, len(ids) - 1)))


def score(engine: Engine, ids: Sequence[int], start: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of the ids from `start` on, and whether they are the likeliest ones."""
    scored = engine.result(scoring(ids, start))
    return scored.logprobs, scored.best == list(ids[start:])


def prompt_logprobs(engine: Engine, ids: Sequence[int], top: int = 0) -> list[PromptToken | None]:
    """What is told of each id of a prompt; None of the first."""
    return [None, *engine.result(Request(ids=tuple(ids), wants="logprobs", top=top)).tokens]


def tiny_backend(kind: str = "numpy", seed: int = 0, page_size: int = 16, **changes: object) -> Backend:
    """A random tiny model on a real backend."""
    config = tiny_config(**changes)
    tensors = tiny_tensors(config, seed)
    if kind == "numpy":
        return NumpyBackend(config, tensors, page_size)
    import torch

    from camelid.engine.backend_torch import TorchBackend
    from camelid.model.llama_torch import LlamaTorch

    return TorchBackend(LlamaTorch(config).load(tensors, torch.float32), page_size)
