"""Answers to GSM8K: a number at the end of a chain of thought (Cobbe et al. 2021, arXiv 2110.14168).

`compat` copies lm-eval 0.4.13 character for character, with what is odd about it; `fixed` does what was meant. Both
have a strict filter, which wants the form that the shots show, and a flexible one: the last number of the text.

What `compat` copies:

- "The answer is 18" with nothing behind it yields 1, "The answer is 8" yields nothing: the pattern ends in a dot that
  stands for any character.
- "The answer is $18." yields nothing: the strict pattern knows no dollar sign.
- The *first* strict match counts; texts are compared as texts, so that 18.0 and 18.00 are not 18.
- The flexible pattern takes "18.50." whole, loses one final dot, and takes a lone "..." for a number.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

from camelid.errors import FormatError
from camelid.evals.scorers.numbers import number_at_start, numbers_in, written
from camelid.evals.scorers.scored import Scored

STRICT_COMPAT = {
    "gsm8k": r"#### (\-?[0-9\.\,]+)",
    "gsm8k_cot": r"The answer is (\-?[0-9\.\,]+).",
    "gsm8k_cot_self_consistency": r"The answer is (\-?[0-9\.\,]*[0-9]+)",
    "gsm8k_cot_llama": r"The final answer is ((-?[$0-9.,]{2,})|(-?[0-9]+))",
    "example_model_solutions": r"A: (\-?[0-9\.\,]+)",
}
"""Strict patterns by lm-eval's task, and that of the answers published with the data set."""

FLEXIBLE_COMPAT = r"(-?[$0-9.,]{2,})|(-?[0-9]+)"
INVALID = "[invalid]"
IGNORED_COMPAT = (",", r"\$", r"(?s).*#### ", r"\.$")

# What announces the final answer: the shots' own words, and what chat models make of them.
ANNOUNCED = re.compile(
    r"(?:####|(?:^|\n)\s*A:|\\boxed\s*\{|(?:the|so the|final)\s+(?:final\s+)?answer\b\s*(?:is|=|:|would be)?)"
    r"[\s:=*_`~≈]*(?:\\[(\[]\s*)?(?:approximately\s|about\s|only\s)?\s*(?:\\?\$(?=[*\s]))?[*\s]*",
    re.IGNORECASE,
)


def extracted_compat(text: str, pattern: str, pick: int = 0) -> str | None:
    """lm-eval's `regex` filter: the `pick`-th match, of it the first group that is not empty; None without one."""
    matches = re.findall(pattern, text)
    if not matches:
        return None
    found = matches[pick]
    if isinstance(found, tuple):
        found = next((group for group in found if group), INVALID)
    return None if found == INVALID else found.strip()


def as_compared_compat(answer: str) -> str:
    """What lm-eval's `exact_match` compares: no commas, dollars, text up to `#### ` or final dot; lower case."""
    for pattern in IGNORED_COMPAT:
        answer = re.sub(pattern, "", answer)
    return answer.lower()


def compat(text: str, gold: str, task: str = "gsm8k", *, flexible: bool = False) -> Scored:
    """As lm-eval 0.4.13 judges it, oddities included.

    Args:
        text: the model's answer, cut at the task's stop strings.
        gold: the data set's `answer`, or what follows its `#### `.
        task: a name of `STRICT_COMPAT`; the flexible filter is the same for all.
    """
    answer = extracted_compat(text, FLEXIBLE_COMPAT, -1) if flexible else extracted_compat(text, STRICT_COMPAT[task], 0)
    if answer is None:
        return Scored(None)
    compared = as_compared_compat(answer)
    return Scored(compared == as_compared_compat(gold), compared)


def majority_compat(answers: Sequence[str], gold: str, task: str = "gsm8k_cot_self_consistency") -> Scored:
    """As lm-eval votes: on extracted texts, where "no answer" is a candidate like any other; of a tie the first."""
    extracted = [extracted_compat(text, STRICT_COMPAT[task], 0) for text in answers]
    winner = Counter(extracted).most_common(1)[0][0] if extracted else None
    if winner is None:
        return Scored(None)
    compared = as_compared_compat(winner)
    return Scored(compared == as_compared_compat(gold), compared)


def extracted_fixed(text: str, *, flexible: bool = False) -> Fraction | None:
    """The final answer as a number, behind its last announcement: `#### 18`, `The answer is $18.`, `A: 18`, a box.

    Args:
        flexible: where nothing is announced, the last number of the text.
    """
    announced = None
    for match in ANNOUNCED.finditer(text):
        rest = text[match.end() :].split("\n", 1)[0]
        if "=" in (sentence := re.split(r"[.!?](?:\s|$)", rest, maxsplit=1)[0]):
            rest = sentence.rsplit("=", 1)[1].lstrip(" *_$\\(")
        found = number_at_start(rest)
        announced = found[0] if found else announced
    if announced is not None or not flexible:
        return announced
    return next((value for value, _ in reversed(list(numbers_in(text)))), None)


def gold_value(gold: str) -> Fraction:
    """The number behind `#### ` of the data set's answer, or of what follows it.

    Raises:
        FormatError: it is not a number.
    """
    found = number_at_start(gold.rsplit("####", 1)[-1].strip())
    if found is None or found[1].strip():
        raise FormatError(f"gold answer {gold[-40:]!r}: no number behind '#### '; GSM8K's answers end in one")
    return found[0]


def fixed(text: str, gold: str, *, flexible: bool = False, percentage: bool = False) -> Scored:
    """As it was meant: numbers are compared as numbers, and the last announced answer counts.

    Signs of money and per cent, units, thousands commas and final dots change nothing; 50% is 50, as the golds mean it.

    Args:
        percentage: a hundredth and a hundredfold of the gold are right too, as ToRA counts (arXiv 2309.17452).
    """
    value = extracted_fixed(text, flexible=flexible)
    if value is None:
        return Scored(None)
    right = gold_value(gold)
    accepted = (right, right / 100, right * 100) if percentage else (right,)
    return Scored(value in accepted, written(value))


def majority_fixed(answers: Sequence[str], gold: str, *, flexible: bool = False) -> Scored:
    """Majority vote over values (Wang et al. 2022, arXiv 2203.11171).

    What cannot be read has no vote; of a tie the value that was given first.
    """
    values = [value for text in answers if (value := extracted_fixed(text, flexible=flexible)) is not None]
    if not values:
        return Scored(None)
    winner = Counter(values).most_common(1)[0][0]
    return Scored(winner == gold_value(gold), written(winner))
