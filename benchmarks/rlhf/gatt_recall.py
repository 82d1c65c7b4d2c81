"""How long an instruction of the first turn holds: attributes that a model recalls, by turn (Llama 2, 3.3, table 30).

    python benchmarks/rlhf/gatt_recall.py MODEL [MODEL …] [--dialogues 50] [--turns 20]

Each dialogue begins with "Always act as NAME from now on." or "You enjoy HOBBY." behind a plain question, and goes on
with plain questions that the model answers. Beside every turn it is asked, in a branch of its own, who it is or what
it enjoys; the answer recalls the attribute if it has one of its words. Prints the share by turn of each model: the one
before `gatt` and the one after it, say. Greedy. About two minutes a model of 135M on two cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from camelid.hub.store import resolve
from camelid.tokens.templates.message import Message
from camelid.train.makers.asking import Asked, EngineWriter
from camelid.train.makers.ghost import KINDS, draw
from camelid.train.stages.gatt import recalled

QUESTIONS = (
    "How are you today?", "What is the weather like in spring?", "Name a river.", "What is two and two?",
    "Which colour do you like?", "What do people eat for breakfast?", "Tell me a fact about the moon.",
    "What is a good book?", "How does bread rise?", "What is a mountain?",
)  # fmt: skip
PROBES = {"figure": "Who are you?", "hobby": "What do you enjoy doing?"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--dialogues", type=int, default=50)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--max-tokens", type=int, default=40)
    args = parser.parse_args()
    for model in args.models:
        shares = recall(model, args.dialogues, args.turns, args.max_tokens)
        print(f"{model}: " + ", ".join(f"{turn}: {share:.0%}" for turn, share in enumerate(shares, 1)), flush=True)


def recall(model: str, dialogues: int, turns: int, max_tokens: int) -> list[float]:
    """The share of dialogues in which the attribute is recalled, by turn; only those that still have room count."""
    writer = EngineWriter(resolve(model), seed=0, max_tokens=max_tokens)
    kinds = {name: KINDS[name] for name in PROBES}
    drawn = []
    for number in range(4 * dialogues):  # those of one kind alone
        instruction = draw(kinds, 0, str(number), shortened=0)
        if len(instruction.attributes) == 1 and len(drawn) < dialogues:
            drawn.append(instruction)
    talks: list[list[Message]] = [[] for _ in drawn]
    shares = []
    for turn in range(turns):
        for at, (talk, instruction) in enumerate(zip(talks, drawn, strict=True)):
            question = QUESTIONS[(at + turn) % len(QUESTIONS)]
            talk.append(Message("user", question if turn else f"{question} {instruction.full}"))
        for talk, answer in zip(talks, _answers(writer, talks), strict=True):
            talk.append(Message("assistant", answer or "I see."))
        probes = [
            [*talk, Message("user", PROBES[next(iter(instruction.attributes))])]
            for talk, instruction in zip(talks, drawn, strict=True)
        ]
        found = [
            recalled(instruction.attributes, answer)
            for instruction, answer in zip(drawn, _answers(writer, probes), strict=True)
            if answer is not None
        ]
        shares.append(sum(each or 0.0 for each in found) / max(1, len(found)))
    return shares


def _answers(writer: EngineWriter, talks: Sequence[Sequence[Message]]) -> list[str | None]:
    """One each, greedy; None where the context is full."""
    asked = {at: Asked(tuple(talk), 1, 0.0) for at, talk in enumerate(talks) if writer.fits(talk)}
    found = {each.key: written[0].text for each, written in writer.write({a.key: a for a in asked.values()}.values())}
    return [found[asked[at].key] if at in asked else None for at in range(len(talks))]


if __name__ == "__main__":
    main()
