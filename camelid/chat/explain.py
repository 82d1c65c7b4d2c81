"""One step of generation in slow motion: what each stage of the forward pass holds, and what sampling removes.

Computed with the reference forward pass, which hands out its intermediates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camelid.chat.llama import Llama
from camelid.chat.results import NextTable
from camelid.engine.request import SamplingParams
from camelid.engine.sampling import explain as explain_steps
from camelid.errors import OptionError
from camelid.model import reference
from camelid.model.rope import rope_table
from camelid.weights.open import Weights

Array = NDArray[np.float32]
LONGEST = 1024  # the attention of every layer is held: heads × prompt²
SHOWN_DIMENSIONS = 4
SHOWN_LOOKS = 3


@dataclass(frozen=True)
class TokenView:
    """A prompt token and the beginning of its embedding."""

    id: int
    text: str
    embedding: tuple[float, ...]


@dataclass(frozen=True)
class LayerView:
    """What the stream after a layer would predict (logit lens), and where the last position looks on average."""

    layer: int
    id: int
    text: str
    probability: float
    attention: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class StepView:
    """A sampling step: how many tokens it leaves, and what it did in words."""

    name: str
    left: int
    note: str


@dataclass(frozen=True)
class Explanation:
    """The stages from text to the next token's distribution."""

    dim: int
    tokens: tuple[TokenView, ...]
    layers: tuple[LayerView, ...]
    steps: tuple[StepView, ...]


class ArraysOf(Mapping[str, Array]):
    """A model's tensors as float32 arrays, each made when it is read and not kept."""

    def __init__(self, weights: Weights) -> None:
        self._tensors = weights.tensors

    def __getitem__(self, name: str) -> Array:
        return self._tensors[name].array()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def explain(llama: Llama, table: NextTable, params: SamplingParams) -> Explanation:
    """Walk through the stages that lead from `table.prompt_ids` to the next token, sampled with `params`.

    Raises:
        OptionError: the prompt is longer than this can hold in view.
    """
    ids = list(table.prompt_ids)
    if len(ids) > LONGEST:
        raise OptionError(f"--explain: the prompt has {len(ids)} tokens; it shows prompts of up to {LONGEST}")
    arrays, seen = ArraysOf(llama.weights), _Seen()
    cos, sin = rope_table(llama.config, np.arange(len(ids)))
    hidden = reference.forward(llama.config, arrays, np.array(ids), cos, sin, observe=seen)
    piece = llama.tokenizer.piece
    embedding = seen.embedding[:, :SHOWN_DIMENSIONS].astype(float)
    tokens = tuple(TokenView(id, piece(id), tuple(row)) for id, row in zip(ids, embedding.tolist(), strict=True))
    logits = reference.logits(llama.config, arrays, hidden[-1:])[0]
    steps = tuple(StepView(step.name, step.n_left, step.note) for step in explain_steps(logits, params, ids))
    return Explanation(llama.config.dim, tokens, _layers(llama, arrays, seen, ids), steps)


class _Seen:
    """Keeps of the intermediates what is shown: embeddings, and of each layer the last position's view."""

    def __init__(self) -> None:
        self.embedding: Array = np.empty((0, 0), np.float32)
        self.looks: list[Array] = []  # a layer's attention of the last position, heads averaged, (L,)
        self.streams: list[Array] = []  # the residual stream of the last position, (D,)

    def __call__(self, what: str, layer: int, value: Array) -> None:
        if what == "embedding":
            self.embedding = value
        elif what == "attention_weights":
            self.looks.append(value[:, -1].mean(axis=0))
        elif what == "residual":
            self.streams.append(value[-1])


def _layers(llama: Llama, arrays: Mapping[str, Array], seen: _Seen, ids: list[int]) -> tuple[LayerView, ...]:
    """The logit lens (nostalgebraist 2020) of every layer at once, with where it looks."""
    hidden = reference.final_norm(llama.config, arrays, np.stack(seen.streams))  # (layers, D)
    probabilities = reference.softmax(reference.logits(llama.config, arrays, hidden))
    best = probabilities.argmax(axis=-1)
    piece = llama.tokenizer.piece
    views = []
    for layer, (id, looks) in enumerate(zip(best.tolist(), seen.looks, strict=True)):
        top = np.argsort(-looks, kind="stable")[:SHOWN_LOOKS]
        attention = tuple((piece(ids[at]), float(looks[at])) for at in top)
        views.append(LayerView(layer, id, piece(id), float(probabilities[layer, id]), attention))
    return tuple(views)
