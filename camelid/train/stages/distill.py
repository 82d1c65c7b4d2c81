"""Safety context distillation: answers under a safety pre-prompt are learned without it (Llama 2, arXiv:2307.09288,
section 4.2.4), on adversarial prompts only, and only where the safety model prefers them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from camelid.errors import OptionError
from camelid.train.makers.asking import Asked
from camelid.train.makers.making import Question
from camelid.train.makers.preprompts import ADJECTIVES, ANSWERS, TEMPLATES, pre_prompt, with_pre_prompt
from camelid.train.makers.stage import Asking, JudgeOptions, MakerOptions, MakerStage, Making


class DistillOptions(MakerOptions, JudgeOptions):
    """How safe answers come to be, and how they are learned. `reward` is the safety model."""

    temperature: float = Field(0.7, ge=0, le=100, description="Of both answers.")
    adjectives: tuple[str, ...] = Field(ADJECTIVES, min_length=2, description="Of an assistant that is safe.")
    templates: tuple[str, ...] = Field(TEMPLATES, min_length=1, description="Pre-prompts, with {} for each adjective.")
    risk_field: str = Field("risk", description="Where a prompt's record says its risk, a key of risk_answers.")
    risk_answers: dict[str, str] = Field(
        dict(ANSWERS), description="How an answer shall be built, by risk; added to the pre-prompt."
    )

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        for template in self.templates:
            holes = template.count("{}")
            if template.replace("{}", "").count("{") or template.replace("{}", "").count("}"):
                raise OptionError(f"templates: {template[:60]!r} has a brace that is no {{}}; write adjectives as {{}}")
            if holes > len(set(self.adjectives)):
                raise OptionError(f"templates: {template[:60]!r} wants {holes} adjectives; give more, or fewer {{}}")


class Distill(MakerStage):
    """Learns what the model says when it is told to be safe."""

    Options = DistillOptions

    @classmethod
    def judged_by(cls, options: DistillOptions) -> Sequence[str]:
        return options.judges()

    @classmethod
    def make(cls, making: Making, folder: Path) -> tuple[Sequence[Mapping[str, Any]], Mapping[str, Any]]:
        options: DistillOptions = making.options  # type: ignore[assignment]  # of this stage
        every = making.asked()
        marked = list({Asked(each.messages, 1, 1.0).key: each for each in every if each.about.get("safety")}.values())
        if not marked:
            raise OptionError(
                f"{making.stage.name}.prompts: none of {len(every)} is marked as adversarial; "
                'their records say it with "safety": true'
            )
        judge, writer = making.judge(options), making.writer()
        told, plain = _questions(making, marked)
        fits = [at for at, question in enumerate(told) if writer.fits(question.asked.messages)]
        asked = [question for at in fits for question in (told[at], plain[at])]
        found = making.answers(asked, folder, writer, judge)
        counts = {"prompts": len(every), "adversarial": len(marked), "too_long": len(marked) - len(fits)}
        counts |= {"kept": 0, "not_preferred": 0, "unfinished": 0}
        rows, gains = [], []
        for at in fits:
            (safe,), (usual,) = (found[question.key]["answers"] for question in (told[at], plain[at]))
            if not safe["finished"] or not safe["text"].strip():
                counts["unfinished"] += 1
            elif safe["reward"] <= usual["reward"]:
                counts["not_preferred"] += 1
            else:
                counts["kept"] += 1
                gains.append(safe["reward"] - usual["reward"])
                rows.append(_row(making.stage.name, plain[at], safe, usual))
        return rows, {**counts, "mean_gain": sum(gains) / len(gains) if gains else None}


def _questions(making: Making, marked: Sequence[Asking]) -> tuple[list[Question], list[Question]]:
    """Each prompt with a pre-prompt, and without; both are judged without."""
    options: DistillOptions = making.options  # type: ignore[assignment]
    told, plain = [], []
    for each in marked:
        asked = Asked(each.messages, 1, options.temperature)
        words = pre_prompt(
            making.stage.recipe.seed,
            asked.key,
            _risk(each, options.risk_field),
            adjectives=options.adjectives,
            templates=options.templates,
            answers=options.risk_answers,
        )
        under = Asked(tuple(with_pre_prompt(each.messages, words)), 1, options.temperature)
        told.append(Question(under, each.messages, each.about))
        plain.append(Question(asked, each.messages, each.about))
    return told, plain


def _risk(asking: Asking, field: str) -> str | None:
    risk = asking.about.get(field)
    return risk if isinstance(risk, str) else None


def _row(stage: str, question: Question, safe: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    said = [{"role": message.role, "content": message.text} for message in question.messages]
    return {
        "id": question.about.get("id"),
        "messages": [*said, {"role": "assistant", "content": safe["text"]}],
        "stage": stage,
        "reward": safe["reward"],
        "reward_without": usual["reward"],
    }


STAGE = Distill
