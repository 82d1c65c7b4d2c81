"""What answers are worth: to reward models, gated as in Llama 2 (arXiv:2307.09288, section 3.2.2), or to code."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from camelid.errors import NumericsError
from camelid.tokens.templates.message import Message

if TYPE_CHECKING:
    from camelid.engine.reward import RewardModel
    from camelid.train.run_stage import CodeReward


UNSAFE = 0.15  # of being safe: below this probability safety has the say (arXiv:2307.09288, section 3.2.3)


@dataclass(frozen=True)
class Answered:
    """A conversation with the answer that is judged.

    Attributes:
        messages: the last one is not the assistant's.
        about: what the data says of the prompt: `safety` marks one of safety.
    """

    messages: tuple[Message, ...]
    answer: str
    about: Mapping[str, Any]


@dataclass(frozen=True)
class Score:
    """What one answer is worth.

    Attributes:
        reward: by which answers are chosen: of models a logit, of code what it returns.
        helpfulness, safety: what the models say; None where there is no such model.
    """

    reward: float
    helpfulness: float | None = None
    safety: float | None = None

    def as_json(self) -> dict[str, float]:
        """Without what is not there."""
        values = {"reward": self.reward, "helpfulness": self.helpfulness, "safety": self.safety}
        return {name: value for name, value in values.items() if value is not None}


class Judge(Protocol):
    """Scores answers."""

    def scores(self, answered: Sequence[Answered]) -> list[Score]:
        """One each.

        Raises:
            NumericsError: a reward is not a number.
        """


class ModelJudge:
    """One or two reward models.

    Args:
        helpfulness: of every answer.
        safety: of every answer, too; its score counts where the prompt is marked, or where it is low.
        threshold: the probability below which it is low.
    """

    def __init__(self, helpfulness: RewardModel, safety: RewardModel | None = None, threshold: float = UNSAFE) -> None:
        self._helpfulness, self._safety = helpfulness, safety
        self._threshold = threshold

    def scores(self, answered: Sequence[Answered]) -> list[Score]:
        helpful = _scores(self._helpfulness, answered)
        if self._safety is None:
            return [Score(_number(value, "the reward model"), value) for value in helpful]
        safe = _scores(self._safety, answered)
        found = []
        for each, help_score, safe_score in zip(answered, helpful, safe, strict=True):
            marked = bool(each.about.get("safety"))
            reward = gate(help_score, safe_score, marked, self._threshold)
            found.append(Score(_number(reward, "the reward model"), help_score, safe_score))
        return found


class CodeJudge:
    """A check by code, as whether a sum is right."""

    def __init__(self, name: str, check: CodeReward) -> None:
        self._name, self._check = name, check

    def scores(self, answered: Sequence[Answered]) -> list[Score]:
        return [Score(_number(float(self._check(each.answer, each.about)), self._name)) for each in answered]


def gate(helpfulness: float, safety: float, marked: bool, threshold: float = UNSAFE) -> float:
    """The logit of Llama 2's R_c: safety's where the prompt is marked or safety's probability is below the threshold,
    else helpfulness'."""
    return safety if marked or safety < math.log(threshold / (1 - threshold)) else helpfulness


def _scores(model: RewardModel, answered: Sequence[Answered]) -> list[float]:
    return model.scores(model.ids([*each.messages, Message("assistant", each.answer)]) for each in answered)


def _number(value: float, who: str) -> float:
    if not math.isfinite(value):
        raise NumericsError(f"reward: {who} gives {value} to an answer; nothing is chosen by it: train it again")
    return value
