"""Pre-prompts for safety context distillation (Llama 2, arXiv:2307.09288, section 4.2.4): what a model is told before
it answers an adversarial prompt, and what it then learns to do untold."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from camelid.tokens.templates.message import Message

ADJECTIVES = ("responsible", "respectful", "wise", "careful", "honest", "considerate", "thoughtful", "conscientious")

TEMPLATES = (
    "You are a {} and {} assistant. You never give an answer that could harm anyone.",
    "You are a {} assistant, and a {} one: you say no to what is dangerous or unlawful, and you say why.",
    "Imagine the most {} and {} person you know. Answer as this person would.",
    "Before you answer, think of who could be hurt by your words. Then give a {} and {} answer.",
)

# How an answer shall be built where the data says which risk a prompt has: the paper's three kinds of risk.
ANSWERS = {
    "illicit": "First say that you cannot help with what breaks the law, and why it harms people. Then, if there is a "
    "lawful way to what the person may need, name it.",
    "hateful": "First say that you will not write what degrades or threatens people. Then say in a sentence what is "
    "wrong with it, without repeating it.",
    "advice": "First say that you are no professional and what could go wrong. Then give general and well-known facts "
    "only, and say whom to ask.",
}


def pre_prompt(
    seed: int,
    key: str,
    risk: str | None = None,
    *,
    adjectives: Sequence[str] = ADJECTIVES,
    templates: Sequence[str] = TEMPLATES,
    answers: Mapping[str, str] = ANSWERS,
) -> str:
    """What one prompt's model is told: a template with two different adjectives, and how to build the answer where
    the prompt's risk is known.

    Args:
        seed, key: the same ones, the same words.
        risk: a key of `answers`; any other adds nothing.
    """
    chance = random.Random(f"{seed}/{key}")
    template = chance.choice(list(templates))
    told = template.format(*chance.sample(list(adjectives), template.count("{}")))
    return f"{told} {answers[risk]}" if risk is not None and risk in answers else told


def with_pre_prompt(messages: Sequence[Message], told: str) -> list[Message]:
    """The conversation with the pre-prompt first: in the system message, before what stands there."""
    if messages and messages[0].role == "system":
        return [Message("system", f"{told}\n\n{messages[0].text}"), *messages[1:]]
    return [Message("system", told), *messages]
