"""Records become ids and a mask: which tokens are learned, and what is done with what is too long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camelid.data.chats.examples import Example
from camelid.data.chats.options import Form, TooLong
from camelid.data.chats.records import ChatRecord, MisfitError, Turn, to_messages
from camelid.errors import OptionError
from camelid.tokens.templates.chat_format import ChatFormat, Rendered
from camelid.tokens.tokenizer import Tokenizer

READ, LEARNED, SECOND = 0, 1, 2
"""Bits of a mask: a token that is learned; the first token of a preference's rejected conversation."""

TOO_LONG = "longer than the context"
CUT = "turns cut from the beginning"


@dataclass(frozen=True)
class Encoded:
    """A record as a data folder keeps it.

    Attributes:
        ids: (T,) int64; of a preference the chosen conversation, then the rejected one.
        mask: (T,) uint8, of the bits above.
        messages: as they were encoded, after cutting.
        n_cut: messages that were cut from the beginning.
    """

    ids: NDArray[np.int64]
    mask: NDArray[np.uint8]
    messages: Sequence[Turn]
    n_cut: int = 0


@dataclass(frozen=True)
class Encoder:
    """Encodes records of one form.

    Attributes:
        tokenizer: of the model.
        chat_format: of the model.
        form: of the records.
        context: most tokens of a conversation, or of a prompt with the opening of its answer.
        too_long: what happens to longer ones.
    """

    tokenizer: Tokenizer
    chat_format: ChatFormat
    form: Form
    context: int
    too_long: TooLong = "drop"

    def __call__(self, record: ChatRecord) -> Encoded:
        """Encode.

        Raises:
            MisfitError: the chat format refuses the conversation, nothing of it is learned, or it is too long.
            OptionError: it is too long, and that is an error.
        """
        messages = list(record.messages)
        while True:
            examples = self._examples(messages, record)
            longest = max(len(example.ids) for example in examples)
            if longest <= self.context:
                break
            if self.too_long == "error":
                raise OptionError(
                    f"has {longest} tokens and the context {self.context}; raise the context, or set "
                    'too_long = "drop" or "cut"',
                    param="too_long",
                )
            shorter = without_first_turn(messages) if self.too_long == "cut" else None
            if shorter is None:
                raise MisfitError(TOO_LONG)
            messages = shorter
        masks = [example.learned.astype(np.uint8) * LEARNED for example in examples]
        for mask in masks[1:]:
            mask[0] |= SECOND
        ids = np.concatenate([example.ids for example in examples])
        return Encoded(ids, np.concatenate(masks), messages, len(record.messages) - len(messages))

    def _examples(self, messages: Sequence[Turn], record: ChatRecord) -> list[Example]:
        if self.form == "prompts":
            return [self.prompt(messages, record)]
        if record.chosen is None or record.rejected is None:
            return [self.conversation(messages, record)]
        return self._pair(messages, record)

    def pair(self, record: ChatRecord) -> tuple[Example, Example]:
        """A preference's two conversations, of which the last answer alone is learned.

        Raises:
            MisfitError: it is none, one is too long, or the chat format refuses it.
        """
        if record.chosen is None or record.rejected is None:
            raise MisfitError("no preference")
        chosen, rejected = self._pair(record.messages, record)
        if max(len(chosen.ids), len(rejected.ids)) > self.context:
            raise MisfitError(TOO_LONG)
        return chosen, rejected

    def _pair(self, messages: Sequence[Turn], record: ChatRecord) -> list[Example]:
        assert record.chosen is not None
        assert record.rejected is not None
        earlier = [{**turn, "weight": 0} if turn["role"] == "assistant" else turn for turn in messages]
        pair = [self.conversation([*earlier, last], record) for last in (record.chosen, record.rejected)]
        if np.array_equal(pair[0].ids, pair[1].ids):
            raise MisfitError("both answers are the same")
        return pair

    def prompt(self, messages: Sequence[Turn], record: ChatRecord) -> Example:
        """Messages up to the opening of the next answer; nothing of it is learned."""
        ids = np.array(self._render(messages, record, opens=True).ids, np.int64)
        return Example(ids, np.zeros(len(ids), np.bool_))

    def conversation(self, messages: Sequence[Turn], record: ChatRecord) -> Example:
        """Messages with their last answer; what assistants said is learned, where a message has no weight of 0."""
        rendered = self._render(messages, record, opens=False)
        try:
            mask = np.array(rendered.mask, np.bool_)
        except OptionError as error:
            raise MisfitError(f"the chat format shows no mask: {_line(error)}") from None
        weights = [turn.get("weight", 1) for turn in messages if turn["role"] == "assistant"]
        if not all(weights):
            mask = _weighted(mask, weights)
        if not mask.any():
            raise MisfitError("no token of it is learned")
        return Example(np.array(rendered.ids, np.int64), mask)

    def _render(self, messages: Sequence[Turn], record: ChatRecord, opens: bool) -> Rendered:
        try:
            return self.chat_format.render(
                self.tokenizer, to_messages(messages), tools=record.tools, add_generation_prompt=opens
            )
        except OptionError as error:
            raise MisfitError(f"the chat format refuses it: {_line(error)}") from None


def without_first_turn(messages: Sequence[Turn]) -> list[Turn] | None:
    """Messages without the first question and all that answers it; a system message stays. None if there is but one."""
    start = 1 if messages[0]["role"] == "system" else 0
    asked = [number for number, turn in enumerate(messages) if turn["role"] == "user" and number > start]
    return [*messages[:start], *messages[asked[0] :]] if asked else None


def _weighted(mask: NDArray[np.bool_], weights: Sequence[int]) -> NDArray[np.bool_]:
    """A mask without the answers whose weight is 0: each answer is one run of it."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    starts, stops = edges[::2], edges[1::2]
    if len(starts) != len(weights):
        raise MisfitError("the chat format does not show which answer is whose")
    kept = np.zeros_like(mask)
    for start, stop, weight in zip(starts, stops, weights, strict=True):
        kept[start:stop] = bool(weight)
    return kept


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
