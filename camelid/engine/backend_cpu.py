"""The C++ engine as a backend: quantised weights used as they are, every core, one call for a whole forward pass."""

from __future__ import annotations

import logging
import os

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
from camelid.weights.quants import QUANTS, dequantise_rows, quantise_rows
from camelid.weights.tensor import Tensor
from camelid.weights.weights import Weights

log = logging.getLogger(__name__)

Array = NDArray[np.float32]
PACKED = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "F32", "BF16", "F16")
MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")  # in C++'s order
NORMS = ("input_layernorm", "post_attention_layernorm", "post_feedforward_layernorm", "q_norm", "k_norm")
TABLES = 16  # of angles, kept for as many lengths of prompts, where a model's angles depend on them
OUTPUT = -1  # the layer number of what comes after all layers


class CpuBackend:
    """A model in the C++ engine, whose forward pass says the same as `model/reference.py` in the same order.

    Weights of quantised kinds meet activations of eight bits, of fifteen for the largest of 32 neighbours (which share
    a scale), for the first 48 positions of a text, in the last layer and where `activation_bits` asks for them: whole
    numbers all. BF16 and F32 meet float32.
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
            fine=options.activation_bits == 15,
        )
        self._embedding = weights.tensors["embed_tokens"]
        self._embedding_rows = np.ascontiguousarray(self._embedding.blocks())
        self._kept_tables: dict[int, tuple[Array, Array]] = {}  # by what counts of a prompt's length
        self._load(weights)

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

    def forward(self, batch: Batch) -> list[Array]:
        """Each span's wanted rows: logits, (rows, V), or hidden states after the final norm, (rows, D).

        One pass for those that turn alike and want the same kind of rows.
        """
        groups: dict[tuple[int, Kind], list[int]] = {}
        for number, span in enumerate(batch.spans):
            groups.setdefault((scaled_length(self.config, span.n_prompt), span.kind), []).append(number)
        rows: dict[int, Array] = {}
        for (length, kind), numbers in groups.items():
            spans = tuple(batch.spans[number] for number in numbers)
            ends = np.cumsum([len(span.wanted) for span in spans])
            rows |= zip(numbers, np.split(self._pass(spans, length, kind == "hidden"), ends[:-1]), strict=True)
        return [rows[number] for number in range(len(batch.spans))]

    def _pass(self, spans: tuple[Span, ...], length: int, hidden: bool) -> Array:
        """The wanted rows of spans of a kind whose prompts have the same `scaled_length`."""
        ends = [span.start + len(span.ids) for span in spans]
        cos, sin = self._tables(length, max(ends))
        embedded = self._embed([id for span in spans for id in span.ids])
        pages = [span.pages[: -(-end // self.page_size)] for span, end in zip(spans, ends, strict=True)]
        wanted = _wanted_rows(spans)
        rows = np.empty((len(wanted), self.config.dim if hidden else self.config.vocab_size), np.float32)
        self._model.forward(
            embedded,
            _ints([len(span.ids) for span in spans]),
            _ints([span.start for span in spans]),
            _ints([len(own) for own in pages]),
            _ints([page for own in pages for page in own]),
            _ints(wanted),
            cos,
            sin,
            rows,
            hidden,
        )
        return rows if hidden else without_absent(rows, self.absent)

    def _embed(self, ids: list[int]) -> Array:
        rows = np.ascontiguousarray(self._embedding_rows[ids])
        return dequantise_rows(QUANTS[self._embedding.quant], rows)

    def _tables(self, length: int, n_positions: int) -> tuple[Array, Array]:
        """Cosine and sine of at least so many positions, (positions, head_dim / 2); those used last are kept."""
        tables = self._kept_tables.pop(length, None)
        if tables is None or len(tables[0]) < n_positions:
            size = max(n_positions, 512 if tables is None else 2 * len(tables[0]))
            tables = rope_table(self.config, np.arange(size), length)
        self._kept_tables[length] = tables
        while len(self._kept_tables) > TABLES:
            self._kept_tables.pop(next(iter(self._kept_tables)))
        return tables

    def _load(self, weights: Weights) -> None:
        """Pack every matrix; what the packed layouts have no kind for is requantised, which is said once."""
        tensors = weights.tensors
        layers = {
            layer: [tensors[f"layers.{layer}.{name}"] for name in MATRICES] for layer in range(self.config.n_layers)
        }
        layers[OUTPUT] = [tensors["embed_tokens" if self.config.ties_embeddings else "lm_head"]]
        for layer, matrices in layers.items():
            for slot, tensor in enumerate(matrices):
                self._model.plan(layer, slot, packed_quant(tensor), self._exact, *tensor.shape)
        self._model.reserve()
        others = sorted({tensor.quant for matrices in layers.values() for tensor in matrices} - set(PACKED))
        if others:
            log.warning("%s: the cpu backend turns %s into Q8_0", weights.path, ", ".join(others))
        rounded = 0
        for layer, matrices in layers.items():
            rounded += self._model.fill(layer, [self._packable(tensor) for tensor in matrices])
        if rounded:
            log.warning(
                "%s: F16 became BF16, %d weights were rounded; --dtype float32 keeps them", weights.path, rounded
            )
        for layer in range(self.config.n_layers):
            for slot, name in enumerate(MATRICES):
                if f"layers.{layer}.{name}.bias" in tensors:
                    self._model.set_bias(layer, slot, tensors[f"layers.{layer}.{name}.bias"].array())
            for slot, name in enumerate(NORMS):
                self._set_norm(weights, layer, slot, f"layers.{layer}.{name}")
        self._set_norm(weights, OUTPUT, 0, "norm")

    def _packable(self, tensor: Tensor) -> NDArray[np.uint8]:
        blocks = self._embedding_rows if tensor is self._embedding else tensor.blocks()
        if tensor.quant not in PACKED:
            blocks = quantise_rows(QUANTS["Q8_0"], dequantise_rows(QUANTS[tensor.quant], blocks))
        return np.ascontiguousarray(blocks)

    def _set_norm(self, weights: Weights, layer: int, slot: int, name: str) -> None:
        if name in weights.tensors:
            self._model.set_norm(layer, slot, weights.tensors[name].array())


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


def packed_quant(tensor: Tensor) -> str:
    """How the engine holds a tensor: as it is, or as Q8_0."""
    return tensor.quant if tensor.quant in PACKED else "Q8_0"


def bytes_per_weight(weights: Weights) -> float:
    """Bytes that the packed model takes for a weight; the rows of the embedding lie beside it as they are."""
    matrices = [tensor for name, tensor in weights.tensors.items() if name != "embed_tokens"]
    if weights.config.ties_embeddings:
        matrices.append(weights.tensors["embed_tokens"])
    packed = sum(t.n_rows * QUANTS[packed_quant(t)].row_bytes(t.shape[-1]) for t in matrices)
    return (packed + weights.tensors["embed_tokens"].nbytes) / weights.config.n_parameters


def _wanted_rows(spans: tuple[Span, ...]) -> list[int]:
    wanted: list[int] = []
    start = 0
    for span in spans:
        wanted.extend(start + index for index in span.wanted)
        start += len(span.ids)
    return wanted


def _ints(values: list[int]) -> NDArray[np.int32]:
    return np.asarray(values, np.int32)
