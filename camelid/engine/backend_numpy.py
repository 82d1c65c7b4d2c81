"""The reference forward pass as a backend: always there, and quick enough for small models.

Spans are computed one after the other, so no row depends on its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from camelid.engine.backend import Batch, Span
from camelid.engine.memory import check_fits
from camelid.engine.options import EngineOptions
from camelid.errors import OptionError
from camelid.model import reference
from camelid.model.config import ModelConfig
from camelid.model.rope import rope_table
from camelid.weights.weights import Weights

Array = NDArray[np.float32]
LOADERS = 2  # tensors are dequantised side by side; more gain little


class NumpyBackend:
    """A model in float32.

    Args:
        config: the shape.
        tensors: float32 arrays by name.
        page_size: positions in a page.
    """

    name = "numpy"
    bytes_per_number = 4

    def __init__(self, config: ModelConfig, tensors: Mapping[str, Array], page_size: int = 16) -> None:
        self.config, self.tensors, self.page_size = config, tensors, page_size
        self._pool: list[tuple[Array, Array]] = []  # for each layer keys and values, (pages · page size, K, E)

    @classmethod
    def load(cls, weights: Weights, options: EngineOptions) -> NumpyBackend:
        """All tensors as float32.

        Raises:
            OptionError: another dtype was asked for.
            ResourceError: they do not fit into memory.
        """
        if options.dtype not in ("auto", "float32"):
            raise OptionError(f"dtype: the numpy backend computes in float32, not {options.dtype}; use --backend torch")
        check_fits(weights, 4, options, "numpy")
        names = list(weights.tensors)
        with ThreadPoolExecutor(LOADERS) as pool:
            arrays = pool.map(lambda name: weights.tensors[name].array(), names)
            return cls(weights.config, dict(zip(names, arrays, strict=True)))

    def allocate(self, n_pages: int) -> None:
        """Make the pool; the system gives the memory when a page is first written."""
        shape = (n_pages * self.page_size, self.config.n_kv_heads, self.config.head_dim)
        self._pool = [(np.empty(shape, np.float32), np.empty(shape, np.float32)) for _ in range(self.config.n_layers)]

    def forward(self, batch: Batch) -> Array:
        """Logits of the wanted rows, (rows, V)."""
        # Each span's rows go through the output matrix alone: neighbours must not change how they are rounded.
        rows = [reference.logits(self.config, self.tensors, self._hidden(span)[_wanted(span)]) for span in batch.spans]
        return np.concatenate(rows)

    def copy_page(self, source: int, target: int) -> None:
        """Copy a page onto another."""
        width = self.page_size
        for keys, values in self._pool:
            for half in (keys, values):
                half[target * width : (target + 1) * width] = half[source * width : (source + 1) * width]

    def _hidden(self, span: Span) -> Array:
        """Run the reference forward pass on one span; its new keys and values go to the pool."""
        end = span.start + len(span.ids)
        cos, sin = rope_table(self.config, np.arange(span.start, end))
        places = self._places(span, end)
        cache = [(keys[places], values[places]) for keys, values in self._pool]
        hidden = reference.forward(self.config, self.tensors, np.asarray(span.ids), cos, sin, cache)
        if not isinstance(places, slice):  # pages that do not lie in line were copied; bring the new rows home
            new = places[span.start :]
            for (keys, values), (all_keys, all_values) in zip(cache, self._pool, strict=True):
                all_keys[new], all_values[new] = keys[span.start :], values[span.start :]
        return hidden

    def _places(self, span: Span, end: int) -> slice | NDArray[np.int64]:
        """Where the positions up to `end` lie in the pool: a slice, so no copy, when the pages are in line."""
        pages = np.asarray(span.pages[: -(-end // self.page_size)])
        if (np.diff(pages) == 1).all():
            first = int(pages[0]) * self.page_size
            return slice(first, first + end)
        places = pages[:, None] * self.page_size + np.arange(self.page_size)
        return places.reshape(-1)[:end]


def _wanted(span: Span) -> slice:
    return {"all": slice(None), "last": slice(-1, None), "none": slice(0, 0)}[span.logits]
