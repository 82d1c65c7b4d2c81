"""The reference forward pass as a backend: always there, and quick enough for small models.

Spans are computed one after the other, so no row depends on its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camelid.engine.backend import ALL_ARE_TOKENS, without_absent
from camelid.engine.batch import Batch, Span
from camelid.engine.memory import check_fits
from camelid.engine.options import EngineOptions
from camelid.errors import OptionError
from camelid.machine import available_bytes
from camelid.model import reference
from camelid.model.config import ModelConfig
from camelid.model.rope import rope_table
from camelid.weights.lora import Adapter
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
    absent = ALL_ARE_TOKENS
    same_bits = False
    bytes_per_number = 4

    def __init__(self, config: ModelConfig, tensors: Mapping[str, Array], page_size: int = 16) -> None:
        self.config, self.tensors, self.page_size = config, tensors, page_size
        self._adapted: list[Mapping[str, Array]] = [tensors]  # by the adapter's number
        self._pool: list[tuple[Array, Array]] = []  # for each layer keys and values, (pages · page size, K, E)

    @classmethod
    def load(cls, weights: Weights, options: EngineOptions) -> NumpyBackend:
        """All tensors as float32.

        Raises:
            OptionError: another dtype was asked for.
            ResourceError: they do not fit into memory.
        """
        if options.dtype not in ("auto", "float32"):
            raise OptionError(
                f"dtype: the numpy backend computes in float32, not {options.dtype}; use --backend torch", param="dtype"
            )
        check_fits(weights, 4, options, "numpy", available_bytes())
        names = list(weights.tensors)
        with ThreadPoolExecutor(LOADERS) as pool:
            arrays = pool.map(lambda name: weights.tensors[name].array(), names)
            return cls(weights.config, dict(zip(names, arrays, strict=True)))

    def free_bytes(self) -> int:
        """Memory left on the machine."""
        return available_bytes()

    def allocate(self, n_pages: int) -> None:
        """Make the pool; the system gives the memory when a page is first written."""
        shape = (n_pages * self.page_size, self.config.n_kv_heads, self.config.head_dim)
        self._pool = [(np.empty(shape, np.float32), np.empty(shape, np.float32)) for _ in range(self.config.n_layers)]

    def forward(self, batch: Batch) -> list[Array]:
        """Each span's wanted rows: logits, (rows, V), or hidden states after the final norm, (rows, D)."""
        # Each span's rows go through the output matrix alone: neighbours must not change how they are rounded.
        return [self._rows(span) for span in batch.spans]

    def _rows(self, span: Span) -> Array:
        hidden = self._hidden(span)
        if span.kind == "hidden":
            return hidden
        return without_absent(reference.logits(self.config, self.tensors, hidden), self.absent)

    def add_adapter(self, adapter: Adapter) -> int:
        """Its A and B, in float32."""
        own: dict[str, Array] = {}
        for name, pair in adapter.pairs.items():
            own |= {f"{name}.lora_A": pair.down, f"{name}.lora_B": pair.up * np.float32(pair.scale)}
        self._adapted.append({**self.tensors, **own})
        return len(self._adapted) - 1

    def copy_page(self, source: int, target: int) -> None:
        """Copy a page onto another."""
        width = self.page_size
        for keys, values in self._pool:
            for half in (keys, values):
                half[target * width : (target + 1) * width] = half[source * width : (source + 1) * width]

    def _hidden(self, span: Span) -> Array:
        """The wanted rows of the reference forward pass on one span; its new keys and values go to the pool."""
        end = span.start + len(span.ids)
        cos, sin = rope_table(self.config, np.arange(span.start, end), span.n_prompt)
        cache = _Layers(self._pool, self.page_size, span, end)
        hidden = reference.forward(self.config, self._adapted[span.adapter], np.asarray(span.ids), cos, sin, cache)
        return hidden[span.wanted.start : span.wanted.stop]


class _Layers(Sequence[tuple[Array, Array]]):
    """A sequence's keys and values layer by layer, (L, K, E): views when its pages lie in line, else copies.

    Walking over it writes a copied layer's new rows home when the next layer is asked for.
    """

    def __init__(self, pool: list[tuple[Array, Array]], page_size: int, span: Span, end: int) -> None:
        self._pool, self._start, self._end = pool, span.start, end
        pages = np.asarray(span.pages[: -(-end // page_size)])
        self._in_line = bool((np.diff(pages) == 1).all())
        self._first = int(pages[0]) * page_size
        self._places = (pages[:, None] * page_size + np.arange(page_size)).reshape(-1)[:end]

    def __len__(self) -> int:
        return len(self._pool)

    def __getitem__(self, layer: Any) -> Any:
        keys, values = self._pool[layer]
        if self._in_line:
            rows = slice(self._first, self._first + self._end)
            return keys[rows], values[rows]
        return keys[self._places], values[self._places]

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        for layer, (all_keys, all_values) in enumerate(self._pool):
            keys, values = self[layer]
            yield keys, values
            if not self._in_line:
                new = self._places[self._start :]
                all_keys[new], all_values[new] = keys[self._start :], values[self._start :]
