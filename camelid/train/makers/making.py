"""Answers to many prompts, written and judged by all ranks, each line kept: what is asked again after a kill is only
what is not there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from camelid.train.makers.asking import Asked, Writer, Written
from camelid.train.makers.judging import Answered, Judge
from camelid.train.makers.lines import Lines

JUDGED = 256  # answers that are judged together: what a kill may cost, and what a reward model reads at once


@dataclass(frozen=True)
class Question:
    """A prompt, asked so and judged so.

    Attributes:
        asked: what the model is given.
        messages: what the judge sees before the answer: the prompt itself, without what it is told beside.
        about: what the data says of it.
    """

    asked: Asked
    messages: tuple[Any, ...]
    about: Mapping[str, Any] = field(default_factory=dict)


def answer_all(questions: Sequence[Question], lines: Lines, writer: Writer, judge: Judge | None) -> None:
    """Write and judge what is not among the lines yet.

    A line has `answers`: text, finished, tokens, and with a judge what they are worth.

    Raises:
        CamelidError: as the writer and the judge do.
    """
    open_ = {each.asked.key: each for each in questions if each.asked.key not in lines}
    waiting: list[tuple[Question, list[Written]]] = []

    def keep() -> None:
        scores = _judge(judge, waiting)
        for question, written in waiting:
            own = [next(scores) for _ in written]
            answers = [
                {"text": each.text, "finished": each.finished, "tokens": each.n_tokens, **score}
                for each, score in zip(written, own, strict=True)
            ]
            lines.add(question.asked.key, {"temperature": question.asked.temperature, "answers": answers})
        waiting.clear()

    for asked, written in writer.write(each.asked for each in open_.values()):
        waiting.append((open_[asked.key], written))
        if sum(len(own) for _, own in waiting) >= JUDGED:
            keep()
    keep()


def _judge(judge: Judge | None, waiting: Sequence[tuple[Question, list[Written]]]) -> Iterator[dict[str, float]]:
    answered = [
        Answered(tuple(question.messages), each.text, question.about) for question, own in waiting for each in own
    ]
    if judge is None:
        return iter([{} for _ in answered])
    return iter([score.as_json() for score in judge.scores(answered)])
