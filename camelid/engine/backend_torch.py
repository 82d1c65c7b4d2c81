"""The PyTorch forward pass as a backend: for GPUs, and for bfloat16 on CPUs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from camelid.engine.backend import ALL_ARE_TOKENS, without_absent
from camelid.engine.batch import Batch, Kind, Span
from camelid.engine.memory import check_fits
from camelid.engine.options import EngineOptions
from camelid.errors import ResourceError
from camelid.machine import available_bytes, gpus, threads
from camelid.model.llama_torch import LlamaTorch
from camelid.model.rope import depends_on_length, rope_table
from camelid.weights.lora import Adapter
from camelid.weights.weights import Weights

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class TorchBackend:
    """A model in PyTorch on one device.

    The matrices read all spans of a batch at once; attention is computed for each span alone.

    Args:
        model: loaded, on its device.
        page_size: positions in a page.
    """

    name = "torch"
    absent = ALL_ARE_TOKENS
    same_bits = False

    def __init__(self, model: LlamaTorch, page_size: int = 16) -> None:
        self.model, self.config, self.page_size = model.eval(), model.config, page_size
        self.device, self.dtype = model.embed_tokens.weight.device, model.embed_tokens.weight.dtype
        self.bytes_per_number = self.dtype.itemsize
        self._adapters: list[dict[str, tuple[Tensor, Tensor]]] = [{}]  # matrix → A and s·B, by the adapter's number
        self._adapted: list[tuple[slice, int]] = []  # rows of the pass, and the adapter that they are computed with
        self._pool = torch.empty(0)  # (layers, 2, pages · page size, K, E)

    @classmethod
    def load(cls, weights: Weights, options: EngineOptions) -> TorchBackend:
        """The model on the GPU if there is one, else on the CPU.

        Raises:
            ResourceError: it does not fit into memory.
        """
        device = "cuda" if gpus() and torch.cuda.is_available() else "cpu"
        auto = "bfloat16" if device == "cuda" else "float32"
        dtype = DTYPES[auto if options.dtype == "auto" else options.dtype]
        if device == "cpu":
            torch.set_num_threads(threads()[0])
        check_fits(weights, dtype.itemsize, options, "torch", _free_bytes(device))
        with torch.device("meta"):
            model = LlamaTorch(weights.config, options.context)
        return cls(model.load(weights.tensors, dtype, device))

    def free_bytes(self) -> int:
        """Memory left on the model's device."""
        return _free_bytes(self.device.type)

    def allocate(self, n_pages: int) -> None:
        """Make the pool; what was in it is lost."""
        positions = n_pages * self.page_size
        shape = (self.config.n_layers, 2, positions, self.config.n_kv_heads, self.config.head_dim)
        self._pool = torch.empty(shape, dtype=self.dtype, device=self.device)

    @torch.inference_mode()
    def forward(self, batch: Batch) -> list[NDArray[np.float32]]:
        """Each span's wanted rows: logits, (rows, V), or hidden states after the final norm, (rows, D)."""
        ids = torch.tensor([id for span in batch.spans for id in span.ids], device=self.device)
        ends = np.cumsum([len(span.ids) for span in batch.spans])
        rows = [slice(end - len(span.ids), end) for span, end in zip(batch.spans, ends.tolist(), strict=True)]
        self._adapted = [(own, span.adapter) for own, span in zip(rows, batch.spans, strict=True) if span.adapter]
        positions = torch.cat([torch.arange(span.start, span.start + len(span.ids)) for span in batch.spans])
        places = [self._places(span) for span in batch.spans]

        def mix(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            mixed, start = torch.empty_like(q), 0
            for span, place, end in zip(batch.spans, places, ends, strict=True):
                rows = slice(start, end)
                mixed[rows] = self._attend_span(layer, span, place, q[rows], k[rows], v[rows])
                start = end
            return mixed

        try:
            hidden = self.model(
                ids, positions.to(self.device), lambda layer: partial(mix, layer), self._tables(batch.spans)
            )
            kinds = {kind: self._rows(hidden, batch, kind) for kind in {span.kind for span in batch.spans}}
        except torch.OutOfMemoryError:
            raise ResourceError(
                f"the GPU has no memory for a pass of {len(ids)} tokens; lower --max-batch-tokens or --cache-tokens"
            ) from None
        return [next(kinds[span.kind]) for span in batch.spans]

    def _rows(self, hidden: Tensor, batch: Batch, kind: Kind) -> Iterator[NDArray[np.float32]]:
        """The wanted rows of each span of a kind, from the hidden states of all new ids, (N, D)."""
        wanted, end = [], 0
        for span in batch.spans:
            start, end = end, end + len(span.ids)
            if span.kind == kind:
                wanted.append(torch.arange(start, end)[span.wanted.start : span.wanted.stop])
        states = hidden[torch.cat(wanted).to(self.device)]
        rows: NDArray[np.float32] = (states.float() if kind == "hidden" else self.model.logits(states)).cpu().numpy()
        if kind == "logits":
            rows = without_absent(rows, self.absent)
        return iter(np.split(rows, np.cumsum([len(own) for own in wanted])[:-1]))

    def _tables(self, spans: Sequence[Span]) -> tuple[Tensor, Tensor] | None:
        """Cosine and sine of every new id, (N, E/2), where they depend on the texts' lengths."""
        if not depends_on_length(self.config):
            return None
        rows = [rope_table(self.config, np.arange(s.start, s.start + len(s.ids)), s.n_prompt) for s in spans]
        cos, sin = (torch.from_numpy(np.concatenate(part)).to(self.device) for part in zip(*rows, strict=True))
        return cos, sin

    def add_adapter(self, adapter: Adapter) -> int:
        """Its A and B, in the numbers that the model computes in."""
        if len(self._adapters) == 1:
            for name, module in self.model.named_modules():
                if isinstance(module, torch.nn.Linear) and name.startswith("layers."):
                    module.register_forward_hook(partial(self._add_adapters, name))
        own = {}
        for name, pair in adapter.pairs.items():
            parts = (pair.down, pair.up * np.float32(pair.scale))
            down, up = (torch.from_numpy(part).to(device=self.device, dtype=self.dtype) for part in parts)
            own[name] = down, up
        self._adapters.append(own)
        return len(self._adapters) - 1

    def _add_adapters(self, name: str, module: torch.nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        """What the adapters add to a matrix's products, to each span's rows its own."""
        for rows, number in self._adapted:
            if name in self._adapters[number]:
                down, up = self._adapters[number][name]
                out[rows] += F.linear(F.linear(given[0][rows], down), up)

    def copy_page(self, source: int, target: int) -> None:
        """Copy a page onto another."""
        width = self.page_size
        for_source = self._pool[:, :, source * width : (source + 1) * width]
        self._pool[:, :, target * width : (target + 1) * width] = for_source

    def _attend_span(self, layer: int, span: Span, places: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """One sequence: store the new keys and values, then mix all values so far; q (T, H, E) → (T, H, E)."""
        keys, values = self._pool[layer]
        keys[places[span.start :]], values[places[span.start :]] = k, v
        q, k, v = (part.transpose(0, 1)[None] for part in (q, keys[places], values[places]))  # (1, heads, ., E)
        n_new, n_all = len(span.ids), len(places)
        mask = None
        if n_new > 1:
            mask = torch.ones(n_new, n_all, dtype=torch.bool, device=q.device).tril(n_all - n_new)
        shared = self.config.n_heads != self.config.n_kv_heads
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=shared)[0].transpose(0, 1)

    def _places(self, span: Span) -> Tensor:
        """Where the sequence's positions lie in the pool, (L,)."""
        end = span.start + len(span.ids)
        pages = torch.tensor(span.pages[: -(-end // self.page_size)])
        places = pages[:, None] * self.page_size + torch.arange(self.page_size)
        return places.flatten()[:end].to(self.device)


def _free_bytes(device: str) -> int:
    return int(torch.cuda.mem_get_info()[0]) if device == "cuda" else available_bytes()
