"""The C++ engine as a backend: quantised weights used as they are, every core, one call for a whole forward pass."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from camelid.engine import _cpu
from camelid.engine.backend import ALL_ARE_TOKENS, without_absent
from camelid.engine.batch import Batch, Kind, Span
from camelid.engine.memory import check_fits
from camelid.engine.options import EngineOptions
from camelid.errors import OptionError, one_of
from camelid.machine import available_bytes, threads
from camelid.model.rope import rope_table, scaled_length
from camelid.weights.lora import Adapter
from camelid.weights.quants import QUANTS, dequantise_rows, quantise_rows
from camelid.weights.tensor import Tensor
from camelid.weights.weights import Weights

log = logging.getLogger(__name__)

Array = NDArray[np.float32]
ROPE_TABLES = 16  # kept for as many lengths of prompts, where a model's angles depend on them


class CpuBackend:
    """A model in the C++ engine, whose forward pass says the same as `model/reference.py` in the same order.

    Quantised weights meet int8 activations, of which 32 share a scale. The largest group of four of these is int16 (of
    fifteen bits), and so are all in the first 48 positions of a text, in the last layer and where `activation_bits`
    asks for it. BF16 and F32 meet float32.
    F16 becomes BF16, which loses nothing of models trained in it, and meets BF16 where the processor multiplies those;
    `dtype="float32"` leaves it as it is. Keys and values are float16; where the processor multiplies BF16, and neither
    weights nor `activation_bits` ask for more, attention's queries, keys, powers and values are BF16.

    A row's result has the same bits whatever else is in the batch, however many threads there are.

    Args:
        weights: opened.
        options: `threads` and `dtype` count here.
        isa: an instruction set of `instruction_sets()`, else the best.

    Raises:
        OptionError: no such instruction set here.
        ResourceError: the model does not fit into memory.
    """

    name = "cpu"
    absent = ALL_ARE_TOKENS
    same_bits = True
    page_size = 16
    bytes_per_number = 2

    def __init__(self, weights: Weights, options: EngineOptions, isa: str | None = None) -> None:
        if options.dtype not in ("auto", "float32"):
            raise OptionError(
                f"dtype: the cpu backend has auto and float32, not {options.dtype}; use --backend torch", param="dtype"
            )
        _cpu.keep_freed_memory()
        self.config = config = weights.config
        check_fits(weights, bytes_per_weight(weights), options, "cpu", available_bytes(), self.bytes_per_number)
        self._exact = options.dtype == "float32"
        self._model = _cpu.Model(
            dim=config.dim,
            layers=config.n_layers,
            heads=config.n_heads,
            kv_heads=config.n_kv_heads,
            head_dim=config.head_dim,
            ffn_dim=config.ffn_dim,
            vocab=config.vocab_size,
            eps=config.norm_eps,
            layer_norm=config.norm == "layer",
            norms_after=config.norms_after,
            qk_norm=config.qk_norm,
            clip_qkv=config.clip_qkv or 0.0,
            isa=chosen_isa(isa),
            threads=options.threads or threads()[0],
            int16=options.activation_bits == 15,
        )
        self._rope_tables: dict[int, tuple[Array, Array]] = {}  # by the prompts' `scaled_length`
        self._plan(weights)
        self._fill(weights)

    @classmethod
    def load(cls, weights: Weights, options: EngineOptions) -> CpuBackend:
        """The model with the best instruction set here."""
        return cls(weights, options)

    @property
    def isa(self) -> str:
        """The instruction set in use."""
        return self._model.isa

    @property
    def threads(self) -> int:
        """Threads in use."""
        return self._model.threads

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that a decoded token reads."""
        return self._model.weight_bytes

    def free_bytes(self) -> int:
        """Memory left on the machine."""
        return available_bytes()

    def allocate(self, n_pages: int) -> None:
        """Make the pool; the system gives the memory when a page is first written."""
        self._model.allocate(n_pages)

    def copy_page(self, source: int, target: int) -> None:
        """Copy a page onto another."""
        self._model.copy_page(source, target)

    def add_adapter(self, adapter: Adapter) -> int:
        """Its A and B, in float32, packed as matrices are."""
        number = self._model.add_adapter()
        for name, pair in adapter.pairs.items():
            _, layer, own = name.split(".")
            parts = (pair.down, pair.up * np.float32(pair.scale))
            down, up = (np.ascontiguousarray(part, np.float32) for part in parts)
            self._model.set_low_rank(number, int(layer), _cpu.MATRICES.index(own), down, up)
        return number

    def forward(self, batch: Batch) -> list[Array]:
        """Each span's wanted rows: logits, (rows, V), or hidden states after the final norm, (rows, D).

        One pass, which reads the weights once; where positions turn differently in prompts of different lengths, one
        for the spans that turn alike.
        """
        by_length: dict[int, list[int]] = {}
        for number, span in enumerate(batch.spans):
            by_length.setdefault(scaled_length(self.config, span.n_prompt), []).append(number)
        rows: dict[int, Array] = {}
        for length, numbers in by_length.items():
            rows |= zip(numbers, self._pass([batch.spans[number] for number in numbers], length), strict=True)
        return [rows[number] for number in range(len(batch.spans))]

    def _pass(self, spans: list[Span], length: int) -> list[Array]:
        """Each span's wanted rows; all prompts have the same `scaled_length`."""
        ends = [span.start + len(span.ids) for span in spans]
        cos, sin = self._rope(length, max(ends))
        embedded = self._embed([id for span in spans for id in span.ids])
        pages = [span.pages[: -(-end // self.page_size)] for span, end in zip(spans, ends, strict=True)]
        wanted = _wanted_rows(spans)
        logits = np.empty((len(wanted["logits"]), self.config.vocab_size), np.float32)
        hidden = np.empty((len(wanted["hidden"]), self.config.dim), np.float32)
        self._model.forward(
            embedded,
            _ints([len(span.ids) for span in spans]),
            _ints([span.start for span in spans]),
            _ints([len(span_pages) for span_pages in pages]),
            _ints([page for span_pages in pages for page in span_pages]),
            _ints([span.adapter for span in spans]),
            cos,
            sin,
            _ints(wanted["logits"]),
            logits,
            _ints(wanted["hidden"]),
            hidden,
        )
        return _split(spans, {"logits": without_absent(logits, self.absent), "hidden": hidden})

    def _embed(self, ids: list[int]) -> Array:
        rows = np.ascontiguousarray(self._embedding_rows[ids])
        return dequantise_rows(QUANTS[self._embedding.quant], rows)

    def _rope(self, length: int, n_positions: int) -> tuple[Array, Array]:
        """Cosine and sine of at least so many positions, (positions, head_dim / 2); those used last are kept."""
        tables = self._rope_tables.pop(length, None)
        if tables is None or len(tables[0]) < n_positions:
            size = max(n_positions, 512 if tables is None else 2 * len(tables[0]))
            tables = rope_table(self.config, np.arange(size), length)
        self._rope_tables[length] = tables
        while len(self._rope_tables) > ROPE_TABLES:
            self._rope_tables.pop(next(iter(self._rope_tables)))
        return tables

    def refill(self, weights: Weights) -> None:
        """Take other numbers of the same model, stored as those before: training has changed them. What lies in pages
        is of the old ones; see `Engine.clear`."""
        self._fill(weights)

    def _matrices(self, weights: Weights) -> tuple[list[list[Tensor]], Tensor]:
        """Those of each layer by slot, and the output matrix."""
        tensors = weights.tensors
        layers = [[tensors[f"layers.{n}.{name}"] for name in _cpu.MATRICES] for n in range(self.config.n_layers)]
        return layers, tensors["embed_tokens" if self.config.ties_embeddings else "lm_head"]

    def _plan(self, weights: Weights) -> None:
        """Make room for every matrix; what the packed layouts have no kind for is requantised, which is said once."""
        (layers, head), model = self._matrices(weights), self._model
        for layer, matrices in enumerate(layers):
            for slot, tensor in enumerate(matrices):
                model.plan(layer, slot, packed_kind(tensor), self._exact, *tensor.shape)
        model.plan_head(packed_kind(head), self._exact, *head.shape)
        model.reserve()
        requantised = {tensor.quant for tensor in [head, *itertools.chain(*layers)]} - set(_cpu.KINDS)
        if requantised:
            log.warning("%s: the cpu backend turns %s into Q8_0", weights.path, ", ".join(sorted(requantised)))

    def _fill(self, weights: Weights) -> None:
        """Pack every matrix into its place."""
        (layers, head), model = self._matrices(weights), self._model
        self._embedding = weights.tensors["embed_tokens"]
        self._embedding_rows = np.ascontiguousarray(self._embedding.blocks())
        rounded = sum(model.fill(n, [self._packable(tensor) for tensor in layer]) for n, layer in enumerate(layers))
        rounded += model.fill_head(self._packable(head))
        if rounded:
            log.warning(
                "%s: F16 became BF16, %d weights were rounded; --dtype float32 keeps them", weights.path, rounded
            )
        self._set_biases_and_norms(weights.tensors)

    def _set_biases_and_norms(self, tensors: Mapping[str, Tensor]) -> None:
        """Those that the model has."""
        for layer in range(self.config.n_layers):
            for slot, name in enumerate(_cpu.MATRICES):
                if bias := tensors.get(f"layers.{layer}.{name}.bias"):
                    self._model.set_bias(layer, slot, bias.array())
            for slot, name in enumerate(_cpu.NORMS):
                if norm := tensors.get(f"layers.{layer}.{name}"):
                    self._model.set_norm(layer, slot, norm.array())
        if norm := tensors.get("norm"):
            self._model.set_final_norm(norm.array())

    def _packable(self, tensor: Tensor) -> NDArray[np.uint8]:
        """A tensor's blocks, of a kind that the engine packs."""
        blocks = self._embedding_rows if tensor is self._embedding else tensor.blocks()
        if tensor.quant not in _cpu.KINDS:
            blocks = quantise_rows(QUANTS["Q8_0"], dequantise_rows(QUANTS[tensor.quant], blocks))
        return np.ascontiguousarray(blocks)


def instruction_sets() -> list[str]:
    """Instruction sets of this build that this machine runs, best first."""
    return list(_cpu.instruction_sets())


def chosen_isa(isa: str | None) -> str:
    """The one asked for here or in the variable CAMELID_ISA, else the best.

    Raises:
        OptionError: it is none of this machine's.
    """
    name = isa or os.environ.get("CAMELID_ISA") or ""
    if name and name not in instruction_sets():
        raise OptionError(f"CAMELID_ISA: {name!r} does not run here; {one_of(name, instruction_sets())}")
    return name


def packed_kind(tensor: Tensor) -> str:
    """How the engine holds a tensor: as it is, or as Q8_0."""
    return tensor.quant if tensor.quant in _cpu.KINDS else "Q8_0"


def bytes_per_weight(weights: Weights) -> float:
    """Bytes that the packed model takes for a weight; the rows of the embedding lie beside it as they are."""
    matrices = [tensor for name, tensor in weights.tensors.items() if name != "embed_tokens"]
    if weights.config.ties_embeddings:
        matrices.append(weights.tensors["embed_tokens"])
    packed = sum(t.n_rows * QUANTS[packed_kind(t)].row_bytes(t.shape[-1]) for t in matrices)
    return (packed + weights.tensors["embed_tokens"].nbytes) / weights.config.n_parameters


def _wanted_rows(spans: list[Span]) -> dict[Kind, list[int]]:
    """The rows that are wanted of each kind, as indexes of all spans' ids."""
    rows: dict[Kind, list[int]] = {"logits": [], "hidden": []}
    start = 0
    for span in spans:
        rows[span.kind].extend(range(start + span.wanted.start, start + span.wanted.stop))
        start += len(span.ids)
    return rows


def _split(spans: list[Span], outputs: dict[Kind, Array]) -> list[Array]:
    """Each span's rows, from those of its kind in line."""
    ends: dict[Kind, int] = dict.fromkeys(outputs, 0)
    rows = []
    for span in spans:
        start, ends[span.kind] = ends[span.kind], ends[span.kind] + len(span.wanted)
        rows.append(outputs[span.kind][start : ends[span.kind]])
    return rows


def _ints(values: list[int]) -> NDArray[np.int32]:
    return np.asarray(values, np.int32)
