"""Answers to many prompts, written and judged by all ranks, each line kept: what is asked again after a kill is only
what is not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camelid.tokens.templates.message import Message
from camelid.train.makers.asking import Asked, Writer, Written
from camelid.train.makers.judging import Answered, Judge
from camelid.train.makers.lines import Lines

if TYPE_CHECKING:
    from camelid.train.parallel import Parallel

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
    messages: tuple[Message, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Of its line among the answers."""
        return f"{self.asked.key}-{self.asked.temperature:g}"


Progress = Callable[[str, int, int], None]


def answer_together(
    questions: Sequence[Question],
    folder: Path,
    parallel: Parallel,
    writer: Writer,
    judge: Judge | None,
    progress: Progress | None = None,
) -> Lines:
    """Let every rank write and judge its share of what is not there yet; every rank calls this, and sees all lines.

    Args:
        questions: of all ranks; of equal ones only the first counts.
        folder: of the lines.
        progress: told how many of this rank's prompts are done, and of how many.

    Raises:
        CamelidError: as the writer and the judge do; every rank's, on all of them.
    """
    distinct = list({question.key: question for question in questions}.values())

    def own() -> None:
        with Lines(folder, parallel.rank) as lines:
            answer_all(distinct[parallel.rank :: parallel.n_ranks], lines, writer, judge, progress)

    parallel.each(own)
    with Lines(folder, parallel.rank) as lines:
        return lines


def answer_all(
    questions: Sequence[Question], lines: Lines, writer: Writer, judge: Judge | None, progress: Progress | None = None
) -> None:
    """Write and judge what is not among the lines yet.

    A line has `answers`: text, finished, tokens, and with a judge what they are worth.

    Raises:
        CamelidError: as the writer and the judge do.
    """
    missing = {id(each.asked): each for each in questions if each.key not in lines}
    done, waiting = len(questions) - len(missing), list[tuple[Question, list[Written]]]()
    for asked, written in writer.write(each.asked for each in missing.values()):
        waiting.append((missing[id(asked)], written))
        if progress is not None:
            progress("answers", done + len(waiting), len(questions))
        if sum(len(own) for _, own in waiting) >= JUDGED:
            done += _keep(waiting, lines, judge)
    _keep(waiting, lines, judge)


def _keep(waiting: list[tuple[Question, list[Written]]], lines: Lines, judge: Judge | None) -> int:
    """Judge what waits, and put it among the lines; returns how many prompts those were."""
    scores = _judge(judge, waiting)
    for question, written in waiting:
        answers = [
            {"text": each.text, "finished": each.finished, "tokens": each.n_tokens, **next(scores)} for each in written
        ]
        lines.add(question.key, {"answers": answers})
    n = len(waiting)
    waiting.clear()
    return n


def _judge(judge: Judge | None, waiting: Sequence[tuple[Question, list[Written]]]) -> Iterator[dict[str, float]]:
    answered = [Answered(question.messages, each.text, question.about) for question, own in waiting for each in own]
    if judge is None:
        return iter([{} for _ in answered])
    return iter([score.as_json() for score in judge.scores(answered)])
