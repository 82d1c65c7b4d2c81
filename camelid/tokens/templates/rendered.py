"""A conversation as ids, and which of them an assistant wrote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from camelid.tokens.tokenizer import Tokenizer


class Rendered:
    """A conversation as ids.

    Attributes:
        ids: of the conversation.
    """

    def __init__(self, ids: list[int], mask: list[bool] | Callable[[], list[bool]]) -> None:
        self.ids = ids
        self._mask = mask

    @cached_property
    def mask(self) -> list[bool]:
        """For each id whether an assistant wrote it: what it said and called and the token that ends its turn, but no
        header or generation prompt. Found when it is first asked for.

        Raises:
            OptionError: the chat template does not show where the assistant's words are.
        """
        return self._mask() if callable(self._mask) else self._mask


class Writer:
    """Writes a conversation piece by piece.

    Attributes:
        ids, mask: what is written so far, as in `Rendered`.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.ids: list[int] = []
        self.mask: list[bool] = []

    def add(self, ids: Sequence[int], answer: bool = False) -> None:
        """Ids, which are an assistant's or not."""
        self.ids += ids
        self.mask += [answer] * len(ids)

    def add_text(self, before: str, answer: str, segment: bool = False) -> None:
        """Text that is cut into ids together, and of which `answer` is the assistant's.

        Args:
            before: what stands before the answer.
            answer: the assistant's words.
            segment: the text follows other ids (see `Tokenizer.encode_segment`).
        """
        spans = [(len(before), len(before) + len(answer))]
        ids, mask = self._tokenizer.encode_spans(before + answer, spans, segment=segment)
        self.ids += ids
        self.mask += mask

    def done(self) -> Rendered:
        """All that was written."""
        return Rendered(self.ids, self.mask)


def llama3_header(tokenizer: Tokenizer, role: str) -> list[int]:
    """The ids that open a turn in Llama 3's formats: the role between its marks, and a blank line."""
    special = tokenizer.special_ids
    opened = [special["<|start_header_id|>"], *tokenizer.encode_segment(role), special["<|end_header_id|>"]]
    return opened + tokenizer.encode_segment("\n\n")
