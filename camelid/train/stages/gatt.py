"""Ghost Attention: an instruction of the first turn holds for a whole dialogue (Llama 2, arXiv:2307.09288, 3.3)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from camelid.errors import OptionError
from camelid.tokens.templates.message import Message
from camelid.train.makers.asking import Asked, Writer
from camelid.train.makers.ghost import KINDS, Instruction, Kind, draw, learned_from, while_sampling
from camelid.train.makers.making import Question
from camelid.train.makers.stage import MakerOptions, MakerStage, Making

_WORD = re.compile(r"\w+")


class GattOptions(MakerOptions):
    """How dialogues under an instruction come to be, and how they are learned; `prompts` are whole dialogues."""

    temperature: float = Field(0.7, ge=0, le=100, description="Of the answers.")
    history: Literal["data", "own"] = Field(
        "data", description="Whose earlier answers a dialogue has: those of the data, or the model's own."
    )
    place: Literal["user", "system"] = Field(
        "user", description="Where the instruction stays: behind the first question, or in the system message."
    )
    kinds: tuple[Literal["hobby", "language", "figure"], ...] = Field(
        ("hobby", "language", "figure"), min_length=1, description="Kinds of constraints, combined at random."
    )
    hobbies: tuple[str, ...] = Field(KINDS["hobby"].choices, min_length=1, description="To draw from.")
    languages: tuple[str, ...] = Field(KINDS["language"].choices, min_length=1, description="To draw from.")
    figures: tuple[str, ...] = Field(KINDS["figure"].choices, min_length=1, description="To draw from.")
    shortened: float = Field(0.5, ge=0, le=1, description="How often the instruction stays in its short form.")

    def drawn_from(self) -> dict[str, Kind]:
        """The kinds with their lists."""
        lists = {"hobby": self.hobbies, "language": self.languages, "figure": self.figures}
        return {name: Kind(KINDS[name].full, KINDS[name].short, lists[name]) for name in self.kinds}


class Dialogue:
    """One dialogue on its way: its questions, and the answers so far."""

    def __init__(self, messages: Sequence[Message], instruction: Instruction, id: Any) -> None:
        self.instruction, self.id = instruction, id
        self.questions = [message for message in messages if message.role == "user"]
        self.given = list(messages)
        self.messages: list[Message] = []
        self.finished = True

    def up_to(self, turn: int, history: str) -> list[Message]:
        """What stands before the answer of a turn, counted from 0, without the instruction."""
        if history == "own":
            return [*self.messages, self.questions[turn]] if turn else self._first()
        ends = [at for at, message in enumerate(self.given) if message.role == "user"]
        return self.given[: ends[turn] + 1]

    def _first(self) -> list[Message]:
        at = next(at for at, message in enumerate(self.given) if message.role == "user")
        return self.given[: at + 1]


class Gatt(MakerStage):
    """Learns the last answers of dialogues whose instruction stands in the first turn alone."""

    Options = GattOptions
    form = "conversations"

    @classmethod
    def judged_by(cls, options: GattOptions) -> Sequence[str]:
        return ()

    @classmethod
    def make(cls, making: Making, folder: Path) -> tuple[Sequence[Mapping[str, Any]], Mapping[str, Any]]:
        options: GattOptions = making.options  # type: ignore[assignment]  # of this stage
        writer, dialogues = making.writer(), _dialogues(making, options)
        turns = max(len(each.questions) for each in dialogues)
        for turn in range(turns) if options.history == "own" else ():
            going = [each for each in dialogues if each.finished and turn < len(each.questions) - 1]
            _answer(making, folder, writer, going, {id(each): turn for each in going}, keep=True)
        last = [each for each in dialogues if each.finished]
        rows = _answer(making, folder, writer, last, {id(each): len(each.questions) - 1 for each in last})
        counts = {"dialogues": len(dialogues), "kept": len(rows), "unfinished": len(dialogues) - len(rows)}
        short = sum(each.instruction.kept != each.instruction.full for each in dialogues)
        recalled = [row["recalled"] for row in rows if row["recalled"] is not None]
        record = {**counts, "shortened": short, "turns": turns}
        return rows, {**record, "recall_while_sampling": sum(recalled) / len(recalled) if recalled else None}


def _dialogues(making: Making, options: GattOptions) -> list[Dialogue]:
    """Those of several questions, each with its instruction."""
    kinds, found = options.drawn_from(), []
    every = making.asked()
    for number, each in enumerate(every):
        messages = list(each.messages)
        while messages and messages[-1].role != "user":  # the answer that is written anew
            messages.pop()
        if sum(message.role == "user" for message in messages) < 2:
            continue
        if any(message.role not in ("system", "user", "assistant") for message in messages):
            continue
        key = f"{Asked(tuple(messages), 1, 1.0).key} {number}"
        instruction = draw(kinds, making.stage.recipe.seed, key, options.shortened)
        found.append(Dialogue(messages, instruction, each.about.get("id")))
    if not found:
        raise OptionError(
            f"{making.stage.name}.prompts: none of {len(every)} dialogues has two questions; an instruction that lasts "
            "needs more than one turn"
        )
    return found


def _answer(
    making: Making,
    folder: Path,
    writer: Writer,
    dialogues: Sequence[Dialogue],
    turns: Mapping[int, int],
    keep: bool = False,
) -> list[dict[str, Any]]:
    """The answers of one turn of each dialogue, under its instruction: kept in the dialogue, or as what is learned."""
    options: GattOptions = making.options  # type: ignore[assignment]
    asked: list[tuple[Dialogue, list[Message], Question]] = []
    for each in dialogues:
        before = each.up_to(turns[id(each)], options.history)
        under = tuple(while_sampling(before, each.instruction.full))
        if writer.fits(under):
            asked.append((each, before, Question(Asked(under, 1, options.temperature), tuple(before))))
        else:
            each.finished = False
    found = making.answers([question for _, _, question in asked], folder, writer, None)
    rows = []
    for each, before, question in asked:
        (answer,) = found[question.key]["answers"]
        if not answer["finished"] or not answer["text"].strip():
            each.finished = False
        elif keep:
            each.messages = [*before, Message("assistant", answer["text"])]
        else:
            messages = learned_from(before, each.instruction.kept, answer["text"], options.place)
            row = {"id": each.id, "messages": messages, "stage": making.stage.name}
            attributes = dict(each.instruction.attributes)
            rows.append({**row, "attributes": attributes, "recalled": recalled(attributes, answer["text"])})
    return rows


def recalled(attributes: Mapping[str, str], answer: str) -> float | None:
    """How many of the attributes that are told by words (figure, hobby) an answer names; None where there are none.

    A cheap measure: an answer may follow an instruction without naming it, so that only differences mean something.
    """
    said = set(_WORD.findall(answer.lower()))
    told = [value for name, value in attributes.items() if name != "language"]
    if not told:
        return None
    return sum(bool(set(_WORD.findall(value.lower())) & said) for value in told) / len(told)


STAGE = Gatt
