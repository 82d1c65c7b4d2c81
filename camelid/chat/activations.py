"""Generation in slow motion: the stages from text to the next token, each open to be looked at.

Computed with the reference forward pass, which hands out its intermediates. What it showed is kept, so that another
layer, head or position is there at once, and one token more costs a pass over that token only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camelid.chat.llama import Llama
from camelid.engine.backend import without_absent
from camelid.engine.backend_numpy import NumpyBackend
from camelid.errors import OptionError
from camelid.machine import available_bytes
from camelid.model import reference
from camelid.model.rope import depends_on_length, rope_table
from camelid.weights.open import Weights

Array = NDArray[np.float32]
MB = 10**6
KEPT_WEIGHTS = (
    1000 * MB
)  # of weights as float32, so that passes need not dequantise; never over a quarter of free memory
KEPT_PASSES = 256 * MB
LENS_TOP = 5  # ids that the lens of a layer tells
VOCABULARY_SLICE = 16384  # rows of an output matrix that are dequantised at a time


@dataclass(frozen=True)
class LayerRows:
    """What one layer held, a row for each of T new ids: enough to tell its attention again."""

    query: Array  # rotated, (T, H, E)
    key: Array  # rotated, (T, K, E)
    value: Array  # (T, K, E)
    attention: Array  # length of what each block adds, (T,) …
    feed_forward: Array
    stream: Array  # … and the stream after the layer, (T, D)


@dataclass(frozen=True)
class Lens:
    """What the stream after a layer would predict at one position (logit lens, nostalgebraist 2020), and its lengths.

    Attributes:
        top: the likeliest ids with their probabilities.
        entropy: of the whole prediction, in bits.
        attention, feed_forward: Euclidean norms of what the two blocks add.
        stream: norm of the stream after them.
    """

    top: tuple[tuple[int, float], ...]
    entropy: float
    attention: float
    feed_forward: float
    stream: float


@dataclass(frozen=True)
class Pass:
    """One forward pass over the last ids of `ids`, and the pass before it, whose ids they continue.

    Attributes:
        embedding: of each new id, (T, D).
        layers: what each layer held.
        logits: after the last id, (V,).
    """

    ids: tuple[int, ...]
    before: Pass | None
    embedding: Array
    layers: tuple[LayerRows, ...]
    logits: Array
    lenses: dict[int, tuple[Lens, ...]] = field(default_factory=dict, repr=False)

    @property
    def start(self) -> int:
        """Position of the first new id."""
        return len(self.ids) - len(self.embedding)

    @property
    def nbytes(self) -> int:
        """Bytes held, those of passes before not counted."""
        return self.logits.nbytes + self.embedding.nbytes + sum(_nbytes(layer) for layer in self.layers)

    def chain(self) -> list[Pass]:
        """All passes from the first id on, this one last."""
        passes, earlier = [self], self.before
        while earlier is not None:
            passes.append(earlier)
            earlier = earlier.before
        return passes[::-1]

    def embeddings(self) -> Array:
        """Of all ids, (L, D)."""
        return np.concatenate([part.embedding for part in self.chain()])

    def keys_and_values(self, layer: int, room: int = 0) -> tuple[Array, Array]:
        """A layer's keys and values of all ids, with room for more behind: each (L + room, K, E)."""
        rows = [part.layers[layer] for part in self.chain()]
        empty = np.empty((room, *self.layers[layer].key.shape[1:]), np.float32)
        keys = np.concatenate([*(layer_rows.key for layer_rows in rows), empty])
        return keys, np.concatenate([*(layer_rows.value for layer_rows in rows), empty])

    def attention(self, layer: int) -> Array:
        """How much each position looks at each earlier one and itself, for every head: (H, L, L), rows sum to 1."""
        queries = np.concatenate([part.layers[layer].query for part in self.chain()])
        return reference.attend(queries, *self.keys_and_values(layer))[1]

    def last_looks(self, layer: int) -> Array:
        """The last position's row of `attention`, (H, L)."""
        return reference.attend(self.layers[layer].query[-1:], *self.keys_and_values(layer))[1][:, 0]

    def at(self, position: int) -> tuple[Pass, int]:
        """The pass that a position was new in, and its row there."""
        part = self
        while position < part.start:
            assert part.before is not None
            part = part.before
        return part, position - part.start


class Flow:
    """A model seen from inside. Reads its weights only: may run beside the engine, one thread at a time.

    Args:
        llama: the model.
        longest: most ids that a prompt may have; fewer if their intermediates would not fit into `kept_passes`.
        kept_weights: bytes of float32 weights to hold from one pass to the next; the others are dequantised again.
        kept_passes: bytes of intermediates to hold; those unused for longest go first.
    """

    def __init__(
        self,
        llama: Llama,
        longest: int = 256,
        kept_weights: int = KEPT_WEIGHTS,
        kept_passes: int = KEPT_PASSES,
    ) -> None:
        self.llama = llama
        config = llama.config
        per_id = 4 * config.n_layers * (config.dim + config.n_heads * config.head_dim + 2 * config.kv_dim)
        self.longest = max(1, min(longest, llama.context, kept_passes // per_id))
        scaling = llama.config.rope_scaling
        if scaling is not None and depends_on_length(llama.config):  # beyond, a pass depends on where the prompt ended
            self.longest = min(self.longest, scaling.original_context)
        backend = llama.engine.backend
        held = (
            dict(backend.tensors) if isinstance(backend, NumpyBackend) and not llama.engine.adapter else {}
        )  # float32 already, and never written
        self._arrays = Arrays(llama.weights, min(kept_weights, available_bytes() // 4), held)
        self._room = kept_passes
        self._passes: OrderedDict[tuple[int, ...], Pass] = OrderedDict()  # the latest used last

    def read(self, ids: Sequence[int]) -> Pass:
        """The forward pass that ends with `ids`; ids that were read before are not read again.

        Raises:
            OptionError: no ids, an id outside the vocabulary, or more than `longest`.
        """
        wanted = tuple(self.llama.prompt_ids(ids))
        if len(wanted) > self.longest:
            raise OptionError(
                f"prompt: has {len(wanted)} tokens; of this model the flow shows up to {self.longest} at once",
                param="prompt",
            )
        if wanted not in self._passes:
            self._passes[wanted] = self._forward(wanted, self._longest_beginning(wanted))
        seen = self._passes[wanted]
        for part in reversed(seen.chain()):  # a pass goes after those that continue it, so no chain is broken
            self._passes[part.ids] = part
            self._passes.move_to_end(part.ids)
        while len(self._passes) > 1 and sum(part.nbytes for part in self._passes.values()) > self._room:
            self._passes.popitem(last=False)
        return seen

    def lens(self, of: Pass, position: int) -> tuple[Lens, ...]:
        """What each layer would predict after `position`."""
        part, row = of.at(position)
        if row not in part.lenses:
            part.lenses[row] = self._lens(part, row)
        return part.lenses[row]

    def _longest_beginning(self, ids: tuple[int, ...]) -> Pass | None:
        """The pass kept that has most of `ids` read, but not the last one, whose logits are wanted."""
        ends = (end for end in range(len(ids) - 1, 0, -1) if ids[:end] in self._passes)
        return next((self._passes[ids[:end]] for end in ends), None)

    def _forward(self, ids: tuple[int, ...], before: Pass | None) -> Pass:
        config = self.llama.config
        start = len(before.ids) if before else 0
        new = np.array(ids[start:])
        cos, sin = rope_table(config, np.arange(start, len(ids)))
        cache = [before.keys_and_values(layer, len(new)) for layer in range(config.n_layers)] if before else None
        cache = cache if cache is not None else list(reference.empty_cache(config, len(new)))
        shown: dict[tuple[str, int], Array] = {}

        def observe(what: str, layer: int, value: Array) -> None:
            if what in ("attention", "feed_forward"):
                shown[what, layer] = np.linalg.norm(value, axis=-1)
            elif what != "attention_weights":  # told again from queries and keys: they grow with the prompt's square
                shown[what, layer] = value

        # The embedding matrix of the ids alone, and ids that count its rows: the whole one may be gigabytes.
        tensors = _Instead(self._arrays, {"embed_tokens": self._arrays.rows("embed_tokens", new)})
        hidden = reference.forward(config, tensors, np.arange(len(new)), cos, sin, cache, observe)
        layers = tuple(
            LayerRows(
                query=shown["query", layer],
                key=keys[start:],
                value=values[start:],
                attention=shown["attention", layer],
                feed_forward=shown["feed_forward", layer],
                stream=shown["residual", layer],
            )
            for layer, (keys, values) in enumerate(cache)
        )
        return Pass(ids, before, shown["embedding", 0], layers, self._logits(hidden[-1:])[0])

    def _lens(self, part: Pass, row: int) -> tuple[Lens, ...]:
        config = self.llama.config
        streams = np.stack([layer.stream[row] for layer in part.layers])  # (layers, D)
        predicted = self._logits(reference.final_norm(config, self._arrays, streams))
        probabilities = reference.softmax(predicted)  # (layers, V)
        result = []
        for layer, of in zip(part.layers, probabilities, strict=True):
            top = likeliest(of, LENS_TOP)
            positive = of[of > 0]
            entropy = float(-(positive * np.log2(positive)).sum())
            added = (float(layer.attention[row]), float(layer.feed_forward[row]))
            length = float(np.linalg.norm(layer.stream[row]))
            result.append(Lens(tuple(zip(top.tolist(), of[top].tolist(), strict=True)), entropy, *added, length))
        return tuple(result)

    def _logits(self, hidden: Array) -> Array:
        """Scores over the vocabulary, (rows, V), a slice of the output matrix at a time."""
        config = self.llama.config
        name = "embed_tokens" if config.ties_embeddings else "lm_head"
        slices = (slice(start, start + VOCABULARY_SLICE) for start in range(0, config.vocab_size, VOCABULARY_SLICE))
        parts = [reference.logits(config, {name: self._arrays.rows(name, part)}, hidden) for part in slices]
        return without_absent(np.concatenate(parts, axis=1), self.llama.engine.backend.absent)


class Arrays(Mapping[str, Array]):
    """A model's tensors as float32 arrays.

    Args:
        weights: the model.
        room: bytes of arrays to keep, those made first; others are made each time.
        held: arrays that are there already.
    """

    def __init__(self, weights: Weights, room: int, held: Mapping[str, Array] | None = None) -> None:
        self._tensors, self._room = weights.tensors, room
        self._cached = dict(held or {})

    def __getitem__(self, name: str) -> Array:
        if name in self._cached:
            return self._cached[name]
        array = self._tensors[name].array()
        if array.nbytes <= self._room:
            self._room -= array.nbytes
            self._cached[name] = array
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def rows(self, name: str, which: slice | NDArray[np.int64]) -> Array:
        """Some rows of a matrix: (rows, in)."""
        fits = 4 * np.prod(self._tensors[name].shape) <= self._room
        return self[name][which] if name in self._cached or fits else self._tensors[name].rows(which)


class _Instead(Mapping[str, Array]):
    """Tensors, some of which others stand for."""

    def __init__(self, tensors: Mapping[str, Array], others: Mapping[str, Array]) -> None:
        self._tensors, self._others = tensors, others

    def __getitem__(self, name: str) -> Array:
        return self._others[name] if name in self._others else self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def likeliest(probabilities: NDArray[np.floating[Any]], n: int) -> NDArray[np.int64]:
    """The n likeliest ids, (n,), the lower id first where they are equal."""
    n = min(n, len(probabilities))
    ids = np.flatnonzero(probabilities >= np.partition(probabilities, -n)[-n])
    ranked: NDArray[np.int64] = ids[np.argsort(-probabilities[ids], kind="stable")][:n]
    return ranked


def _nbytes(layer: LayerRows) -> int:
    parts = (layer.query, layer.key, layer.value, layer.attention, layer.feed_forward, layer.stream)
    return sum(part.nbytes for part in parts)
