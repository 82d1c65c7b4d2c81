"""What post-training learns from: answers in conversations, preferred answers, and prompts to answer.

They lie in the shards of a data folder as documents do; a mask beside the ids says which of them an assistant wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

GRADES = ("significantly better", "better", "slightly better", "negligibly better")
"""How much better the chosen answer is, as Llama 2's annotators said (arXiv:2307.09288, section 3.2.1)."""


@dataclass(frozen=True)
class Example:
    """One conversation as ids.

    Attributes:
        ids: (T,) int64, with all control tokens of the chat format.
        learned: (T,) bool, the tokens that the model shall learn to write: answers and what ends them.
    """

    ids: NDArray[np.int64]
    learned: NDArray[np.bool_]


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, of which people preferred one; `learned` marks the last answer alone.

    Attributes:
        chosen, rejected: the whole conversations.
        grade: of `GRADES`; None if nobody said.
        chosen_safe, rejected_safe: whether the answer is safe; None if nobody said.
        about: what else is on record: id, source, licence.
    """

    chosen: Example
    rejected: Example
    grade: str | None = None
    chosen_safe: bool | None = None
    rejected_safe: bool | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Prompt:
    """A conversation that waits for an answer.

    Attributes:
        ids: (T,) int64, ending behind the opening of the assistant's turn.
        messages: the same as {"role", "content"}.
        about: what else is on record: id, source, `answer` (the right one), `safety` (whether it is a safety prompt).
    """

    ids: NDArray[np.int64]
    messages: tuple[Mapping[str, Any], ...]
    about: Mapping[str, Any] = field(default_factory=dict)
