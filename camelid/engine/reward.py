"""A reward model: one number for a conversation that ends with an answer.

The number is the hidden state after the answer's last token times the scalar head. Which token that is, follows from
where the answer ends, never from a search for an id; there is no padding, and an answer has the same reward alone and
among others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camelid.engine.engine import Engine
from camelid.engine.load import choose_backend
from camelid.engine.options import EngineOptions
from camelid.engine.request import Request, Rows
from camelid.errors import OptionError
from camelid.tokens.templates.chat_format import ChatFormat, Message, choose_format
from camelid.tokens.tokenizer import Tokenizer
from camelid.weights.open import open_weights
from camelid.weights.weights import Weights

MOST_OPEN = 256  # conversations that the engine has at a time


class RewardModel:
    """A model with a scalar head, as transformers' LlamaForSequenceClassification with one label.

    Attributes:
        weights: as they were opened.
        chat_format: how a conversation is written.
        context: most tokens of a conversation.
    """

    def __init__(self, weights: Weights, backend: str = "auto", options: EngineOptions | None = None) -> None:
        """See `open`."""
        if not weights.config.scalar_head:
            raise OptionError(
                f"{weights.path}: writes and has no scalar head; train a reward model from it, or name one",
                param="model",
            )
        self.weights, options = weights, options or EngineOptions()
        self._score: NDArray[np.float32] = weights.tensors["score"].array()[0]
        self._engine = Engine(choose_backend(_trunk(weights), backend, options), options)
        self.context = self._engine.context
        self.chat_format: ChatFormat = choose_format(
            weights.tokenizer, weights.chat_template, None, dict(weights.named_templates)
        )

    @classmethod
    def open(cls, path: Path | str, backend: str = "auto", options: EngineOptions | None = None) -> RewardModel:
        """Open a reward model's folder.

        Raises:
            OptionError: it has no scalar head, or no chat format.
            MissingError, FormatError, UnsupportedError, ResourceError: it cannot be opened.
        """
        return cls(open_weights(path), backend, options)

    @property
    def tokenizer(self) -> Tokenizer:
        """Of the model."""
        return self.weights.tokenizer

    def scores(self, conversations: Iterable[Sequence[int]]) -> list[float]:
        """The reward of each: ids up to the last token of the answer.

        Raises:
            ContextError: a conversation is longer than the context.
            OptionError: one has no ids.
            NumericsError: what was computed is not finite.
        """
        requests = (
            Request(ids=tuple(int(id) for id in ids), wants="hidden", rows=range(len(ids) - 1, len(ids)))
            for ids in conversations
        )
        found: dict[int, float] = {}
        for index, outcome in self._engine.stream_all(requests, MOST_OPEN):
            assert isinstance(outcome, Rows)
            found[index] = float(np.dot(outcome.rows[0].astype(np.float64), self._score))
        return [found[index] for index in range(len(found))]

    def score_answers(self, messages: Sequence[Message], answers: Sequence[str]) -> list[float]:
        """The reward of each answer to a conversation.

        Raises:
            OptionError: the chat format refuses the conversation, or shows not what an assistant wrote.
        """
        return self.scores(self.ids([*messages, Message("assistant", answer)]) for answer in answers)

    def ids(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """A conversation that ends with an answer, as `scores` takes it.

        Raises:
            OptionError: the chat format refuses the conversation, or shows not what an assistant wrote.
        """
        rendered = self.chat_format.render(self.tokenizer, messages, tools=tools, add_generation_prompt=False)
        return up_to_answer(rendered.ids, rendered.mask)


def up_to_answer(ids: Sequence[int], learned: Sequence[bool]) -> list[int]:
    """Ids up to the last one that an assistant wrote, which ends its turn: what a template writes behind it (a line
    end) is not there yet when a model has just answered.

    Raises:
        OptionError: an assistant wrote nothing.
    """
    wrote = np.flatnonzero(np.asarray(learned))
    if not len(wrote):
        raise OptionError("messages: there is no answer in them; end with the assistant's", param="messages")
    return list(ids[: wrote[-1] + 1])


def _trunk(weights: Weights) -> Weights:
    """The same layers as a model whose logits nobody asks for."""
    config = replace(weights.config, scalar_head=False, ties_embeddings=True)
    tensors = {name: tensor for name, tensor in weights.tensors.items() if name != "score"}
    return replace(weights, config=config, tensors=tensors)
