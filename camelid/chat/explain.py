"""One step of generation in words: what each stage of the forward pass holds, and what sampling removes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from camelid.chat.activations import Flow, Pass
from camelid.chat.llama import Llama
from camelid.chat.results import NextTable
from camelid.chat.sampling_trace import follow
from camelid.engine.request import SamplingParams
from camelid.errors import OptionError

LONGEST = 1024
ROOM = 4 * 10**9  # bytes of intermediates that a prompt of this length may take
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


def explain(llama: Llama, table: NextTable, params: SamplingParams) -> Explanation:
    """Walk through the stages that lead from `table.prompt_ids` to the next token, sampled with `params`.

    Raises:
        OptionError: the prompt is longer than this can hold in view.
    """
    ids = list(table.prompt_ids)
    if len(ids) > LONGEST:
        raise OptionError(f"--explain: the prompt has {len(ids)} tokens; it shows prompts of up to {LONGEST}")
    flow = Flow(llama, LONGEST, kept_weights=0, kept_passes=ROOM)
    seen, piece = flow.read(ids), llama.tokenizer.piece
    embedding = seen.embedding[:, :SHOWN_DIMENSIONS].astype(float)
    tokens = tuple(TokenView(id, piece(id), tuple(row)) for id, row in zip(ids, embedding.tolist(), strict=True))
    steps = tuple(StepView(step.name, step.n_left, step.note) for step in follow(seen.logits, params, ids))
    return Explanation(llama.config.dim, tokens, _layers(flow, seen), steps)


def _layers(flow: Flow, seen: Pass) -> tuple[LayerView, ...]:
    """The logit lens of every layer, with where it looks."""
    piece = flow.llama.tokenizer.piece
    views = []
    for layer, lens in enumerate(flow.lens(seen, len(seen.ids) - 1)):
        looks = seen.last_looks(layer).mean(axis=0)
        most = np.argsort(-looks, kind="stable")[:SHOWN_LOOKS]
        attention = tuple((piece(seen.ids[at]), float(looks[at])) for at in most)
        id, probability = lens.top[0]
        views.append(LayerView(layer, id, piece(id), probability, attention))
    return tuple(views)
