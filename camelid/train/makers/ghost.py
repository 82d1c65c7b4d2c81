"""Ghost Attention: an instruction for a whole conversation, and what is learned of it (Llama 2, arXiv:2307.09288, 3.3).

The instruction stands behind every question while an answer is sampled, so that the answer follows it. Of what is
learned from, it stands in the first turn alone; the loss is zero on all earlier turns, their answers included, for
these were not written under it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from camelid.tokens.templates.message import Message

Place = Literal["user", "system"]


@dataclass(frozen=True)
class Kind:
    """A kind of constraint: how it is said in full and in short; `{}` is what is drawn from `choices`."""

    full: str
    short: str
    choices: tuple[str, ...]


# The paper's three kinds. Its lists were asked of the model itself, so that no name is unknown to it; these are short
# and well known, and a recipe can bring its own.
KINDS: dict[str, Kind] = {
    "hobby": Kind(
        "You enjoy {}.",
        "Hobby: {}.",
        ("tennis", "chess", "gardening", "hiking", "cooking", "painting", "photography", "swimming", "reading",
         "fishing", "cycling", "dancing", "singing", "sailing", "skiing", "yoga"),
    ),
    "language": Kind(
        "Always speak in {}.",
        "Language: {}.",
        ("French", "Spanish", "German", "Italian", "Portuguese", "English", "Dutch", "Latin"),
    ),
    "figure": Kind(
        "Always act as {} from now on.",
        "Figure: {}.",
        ("Napoleon", "Albert Einstein", "William Shakespeare", "Cleopatra", "Isaac Newton", "Marie Curie",
         "Leonardo da Vinci", "Abraham Lincoln", "Julius Caesar", "Charles Darwin", "Mozart", "Socrates"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Instruction:
    """What shall hold for a whole conversation.

    Attributes:
        full: as the model is told while it writes.
        kept: as it stands in what is learned from, shortened or not.
        attributes: kind → what was drawn.
    """

    full: str
    kept: str
    attributes: Mapping[str, str]


def draw(kinds: Mapping[str, Kind], seed: int, key: str, shortened: float = 0.5) -> Instruction:
    """The instruction of one conversation: some of the kinds, each alike likely to be there, in random order.

    Args:
        kinds: to choose from.
        seed, key: the same ones, the same instruction.
        shortened: how often what is kept is the short form.
    """
    chance = random.Random(f"{seed}/{key}")
    names = chance.sample(sorted(kinds), chance.randint(1, len(kinds)))
    attributes = {name: chance.choice(kinds[name].choices) for name in names}
    full = " ".join(kinds[name].full.format(value) for name, value in attributes.items())
    short = " ".join(kinds[name].short.format(value) for name, value in attributes.items())
    return Instruction(full, short if chance.random() < shortened else full, attributes)


def while_sampling(messages: Sequence[Message], instruction: str) -> list[Message]:
    """The conversation with the instruction behind every question."""
    return [_with(message, instruction) if message.role == "user" else message for message in messages]


def learned_from(messages: Sequence[Message], instruction: str, answer: str, place: Place) -> list[dict[str, Any]]:
    """The conversation as it is learned: the instruction in its first turn alone, and only the last answer counts.

    Args:
        messages: ending with a question, without the instruction.
        answer: to the last question.
        place: of the instruction: behind the first question, or in the system message.

    Returns:
        messages as JSON; `weight` 0 marks an answer that is not learned.
    """
    turns = list(messages)
    first = next(at for at, message in enumerate(turns) if message.role == "user")
    if place == "user":
        turns[first] = _with(turns[first], instruction)
    elif turns[0].role == "system":
        turns[0] = _with(turns[0], instruction)
    else:
        turns.insert(0, Message("system", instruction))
    said: list[dict[str, Any]] = []
    for message in turns:
        weight = {"weight": 0} if message.role == "assistant" else {}
        said.append({"role": message.role, "content": message.text, **weight})
    return [*said, {"role": "assistant", "content": answer}]


def _with(message: Message, instruction: str) -> Message:
    return Message(message.role, f"{message.text} {instruction}" if message.text else instruction)
