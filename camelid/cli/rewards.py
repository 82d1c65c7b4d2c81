"""Rewards by code that `camelid train` knows: right answers, as the benchmarks judge them, and forms of answers.

Training lies below the benchmarks, so that their scorers are handed in from here.
"""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from camelid.errors import FormatError

if TYPE_CHECKING:
    from camelid.evals.scorers.math_process import Comparer
    from camelid.train.run_stage import CodeReward


def code_rewards() -> Mapping[str, CodeReward]:
    """By name, as a recipe has them behind `code:`."""
    from camelid.train.rewards.forms import CodeRewards

    return CodeRewards({"gsm8k": gsm8k, "gsm8k-form": gsm8k_form, "math": math})


def gsm8k(answer: str, about: Mapping[str, Any]) -> float:
    """1 where the answer's number is that of the data set's: behind its last announcement, else the last of all.

    Raises:
        FormatError: the prompt has no right answer, or none that ends in a number.
    """
    from camelid.evals.scorers.gsm8k import fixed

    return float(fixed(answer, _gold(about), flexible=True).right is True)


def gsm8k_form(answer: str, about: Mapping[str, Any]) -> float:
    """1 where a final answer is announced: `#### 18`, `The answer is 18.`, a box."""
    from camelid.evals.scorers.gsm8k import extracted_fixed

    return float(extracted_fixed(answer) is not None)


def math(answer: str, about: Mapping[str, Any]) -> float:
    """1 where the answer equals what the last box of the right one holds, or the right one itself if it has no box.

    Raises:
        FormatError: the prompt has no right answer. MissingError: SymPy is not installed.
    """
    from camelid.evals.scorers.math import fixed, gold_answer

    gold = _gold(about)
    return float(fixed(answer, gold_answer(gold) if "\\boxed" in gold else gold, _comparer()).right is True)


@cache
def _comparer() -> Comparer:
    from camelid.evals.scorers.math_process import Comparer

    comparer = Comparer(latex=False)
    atexit.register(comparer.close)
    return comparer


def _gold(about: Mapping[str, Any]) -> str:
    gold = about.get("answer", about.get("solution"))
    if gold is None:
        named = ", ".join(name for name in about if name not in ("id", "source", "licence")) or "nothing"
        raise FormatError(f"prompt {about.get('id', '')}: no right answer; it needs a field answer, and has {named}")
    return str(gold)
