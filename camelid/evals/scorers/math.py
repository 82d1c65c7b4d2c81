"""Answers to MATH (Hendrycks et al. 2021, arXiv 2103.03874): a value in LaTeX, boxed or behind Minerva's phrase.

`compat` is lm-eval 0.4.13's `exact_match` of `minerva_math`; `fixed` reads values with a parser of its own:

- `compat` only finds what stands between "Final Answer: The final answer is" and ". I hope it is correct."; `fixed`
  also takes the last box, and "the answer is …".
- `compat` calls answers that SymPy cannot read (intervals, sets, matrices, text) wrong, if they are not the gold to the
  letter. An earlier state of its file did even then: `identical=False`.
- `compat` drops all before the last `=` and cuts units out of words.
- `fixed` says "unparsable" of an answer that it cannot read; equal to nothing, but for the same text.
"""

from __future__ import annotations

import re

from camelid.errors import FormatError
from camelid.evals.scorers.math_latex import MOST_CHARACTERS, Unreadable, plain, read
from camelid.evals.scorers.math_minerva import final_answer, last_box, normalised
from camelid.evals.scorers.math_process import Comparer
from camelid.evals.scorers.scored import Scored

ANNOUNCED = re.compile(r"answer\s*(?:is|:|=)\s*(?!\s*the\s+(?:final\s+)?answer)(\S.*)", re.IGNORECASE)


def gold_answer(solution: str) -> str:
    """What the last box of the published solution holds.

    Raises:
        FormatError: there is none.
    """
    answer = last_box(solution)
    if answer is None:
        raise FormatError(f"solution {solution[-60:]!r}: no \\boxed answer; MATH's solutions have one")
    return answer


def compat(text: str, gold: str, comparer: Comparer, *, identical: bool = True) -> Scored:
    """As lm-eval judges it.

    Args:
        gold: what `gold_answer` gives.
        identical: whether the same text is right even where SymPy cannot read it, as in 0.4.13.
    """
    found = final_answer(text)
    if found is None:
        return Scored(None)
    answer, wanted = normalised(found), normalised(gold)
    same = identical and bool(answer) and answer == wanted
    return Scored(same or comparer.equal("latex", answer, wanted) is True, answer)


def extracted(text: str) -> str | None:
    """The answer of a text: behind Minerva's phrase, in the last box, or behind "the answer is"; None without one."""
    found = final_answer(text + " ")
    if found is not None:
        box = last_box(found)
        return box if box is not None else found
    if (box := last_box(text)) is not None:
        return box
    announced = ANNOUNCED.findall(text)
    if not announced:
        return None
    rest = announced[-1].strip()
    formula = re.match(r"\$+([^$]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", rest)
    if formula:
        return next(group for group in formula.groups() if group)
    return re.split(r"\.(?:\s|$)", rest, maxsplit=1)[0].strip() or None


def fixed(text: str, gold: str, comparer: Comparer) -> Scored:
    """As it was meant: the same text, or the same value.

    Args:
        gold: what `gold_answer` gives.
    """
    found = extracted(text)
    if found is None or len(found) > MOST_CHARACTERS:
        return Scored(None)
    answer = plain(found)
    if re.sub(r"\s", "", answer) == re.sub(r"\s", "", plain(gold)) and answer:
        return Scored(True, answer)
    try:
        read(found)
    except (Unreadable, RecursionError):
        return Scored(None, answer)
    return Scored(comparer.equal("values", found, gold), answer)
