"""Rejection sampling: several answers to each prompt, and the best one is learned (arXiv:2307.09288, 3.2.3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from camelid.errors import OptionError
from camelid.recipe import stage_kind
from camelid.tokens.templates.message import Message
from camelid.train.makers.asking import Asked, Writer, seed_of
from camelid.train.makers.best_of import expected_max
from camelid.train.makers.judging import Answered, Judge
from camelid.train.makers.lines import read_lines
from camelid.train.makers.making import Question
from camelid.train.makers.selection import select, with_earlier
from camelid.train.makers.stage import ANSWERS, Asking, JudgeOptions, MakerOptions, MakerStage, Making

MANY_CUT = 0.1  # share of answers; more is said
JUDGED = 256  # earlier answers that are judged together


class RejectionOptions(MakerOptions, JudgeOptions):
    """How answers are chosen, and how they are learned.

    The paper's best temperature for 10 to 100 answers was 1.2 to 1.3, and was sought anew in each iteration; a small
    model's is lower, so that the search begins lower here.
    """

    answers: int = Field(8, gt=0, le=1024, description="Answers to each prompt.")
    temperatures: tuple[float, ...] = Field(
        (0.6, 0.8, 1.0, 1.2, 1.3), min_length=1, description="The best of these is sought, and used."
    )
    search_prompts: int = Field(64, gt=0, description="Prompts that it is sought on.")
    keep: Literal["best-of-all", "last"] = Field(
        "best-of-all",
        description="What stays of earlier iterations: the best answer of all to each prompt (from the paper's third "
        "version on, for skills had been forgotten), or nothing.",
    )

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        if not all(0 <= temperature <= 100 for temperature in self.temperatures):
            raise OptionError(f"temperatures: must be from 0 to 100, got {list(self.temperatures)}")
        if self.answers > 1 and 0 in self.temperatures:
            raise OptionError("temperatures: at 0 all answers to a prompt are the same; leave 0 out")


class Rejection(MakerStage):
    """Learns the best of several answers to each prompt."""

    Options = RejectionOptions

    @classmethod
    def judged_by(cls, options: RejectionOptions) -> Sequence[str]:
        return options.judges()

    @classmethod
    def make(cls, making: Making, folder: Path) -> tuple[Sequence[Mapping[str, Any]], Mapping[str, Any]]:
        options: RejectionOptions = making.options  # type: ignore[assignment]  # of this stage
        judge, writer = making.judge(options), making.writer()
        asked, left_out = _fitting(making.asked(), writer)
        temperature, searched = _best_temperature(making, folder, asked, writer, judge)
        questions = [_question(each, options.answers, temperature) for each in asked]
        found = making.answers(questions, folder, writer, judge)
        selected = select(making.stage.name, questions, found.__getitem__)
        cut = selected.counts["unfinished"] / selected.counts["answers"]
        if cut > MANY_CUT:
            making.note(f"{cut:.0%} of the answers were cut at max_tokens, {options.max_tokens}, and count for nothing")
        if options.keep == "best-of-all":
            earlier = making.parallel.from_first(lambda: list(_earlier(making, judge)))
            selected = with_earlier(selected, earlier)
        about = {"temperature": temperature, "searched": searched, **left_out}
        return selected.rows, {**about, **selected.record()}


def _fitting(asked: Sequence[Asking], writer: Writer) -> tuple[list[Asking], dict[str, int]]:
    """The prompts that differ and leave room for an answer, and how many do not."""
    distinct = list({Asked(each.messages, 1, 1.0).key: each for each in asked}.values())
    fitting = [each for each in distinct if writer.fits(each.messages)]
    counts = {"same_prompts": len(asked) - len(distinct), "too_long": len(distinct) - len(fitting)}
    if not fitting:
        raise OptionError("prompts: none leaves room for an answer; raise context")
    return fitting, {name: count for name, count in counts.items() if count}


def _question(asking: Asking, n: int, temperature: float) -> Question:
    return Question(Asked(asking.messages, n, temperature), asking.messages, asking.about)


def _best_temperature(
    making: Making, folder: Path, asked: Sequence[Asking], writer: Writer, judge: Judge
) -> tuple[float, list[dict[str, float]]]:
    """The temperature whose best answers have the highest mean reward, on some prompts; of equal ones the lowest."""
    options: RejectionOptions = making.options  # type: ignore[assignment]
    temperatures = sorted(set(options.temperatures))
    if len(temperatures) == 1:
        return temperatures[0], []
    seed = making.stage.recipe.seed
    order = sorted(range(len(asked)), key=lambda at: seed_of(seed, f"search {asked[at].about.get('id')} {at}"))
    some = [asked[at] for at in order[: options.search_prompts]]
    means = {}
    for temperature in temperatures:
        questions = [_question(each, options.answers, temperature) for each in some]
        found = making.answers(questions, folder, writer, judge)
        rewards = [[answer["reward"] for answer in found[question.key]["answers"]] for question in questions]
        means[temperature] = sum(expected_max(own, len(own)) for own in rewards) / len(rewards)
        making.note(f"temperature {temperature:g}: best of {options.answers} {means[temperature]:.4g} on {len(some)}")
    best = max(temperatures, key=lambda temperature: means[temperature])
    return best, [{"temperature": temperature, "max": mean} for temperature, mean in means.items()]


def _earlier(making: Making, judge: Judge) -> Iterator[dict[str, Any]]:
    """What earlier iterations have chosen, the oldest first, judged by the judge of now."""
    stages = making.stage.recipe.stages
    before = stages[: stages.index(making.stage.name)] if making.stage.name in stages else ()
    for name in before:
        path = making.stage.run / name / ANSWERS
        if stage_kind(name) != stage_kind(making.stage.name) or not path.is_file():
            continue
        rows = [row for row in read_lines(path) if row.get("stage") == name]  # older ones stand in their own file
        for start in range(0, len(rows), JUDGED):
            some = rows[start : start + JUDGED]
            answered = [
                Answered(
                    tuple(Message(turn["role"], turn["content"]) for turn in row["messages"][:-1]),
                    row["messages"][-1]["content"],
                    row.get("about", {}),
                )
                for row in some
            ]
            for row, score in zip(some, judge.scores(answered), strict=True):
                yield {**row, "reward": score.reward}


STAGE = Rejection
