"""What a judge model wrote, read as a rating or a preference: MT-bench (Zheng et al. 2023, arXiv 2306.05685).

`compat` reads as FastChat does: the first rating of the text, of any size, and of contradicting preferences A before B
before a tie. `fixed` takes the last mark, as a judge concludes, and a rating only between 1 and 10. What holds no mark
is unparsable.
"""

from __future__ import annotations

import re
from typing import Literal

Preference = Literal["A", "B", "tie"]
TIE_DELTA = 0.1
"""Two ratings that differ by no more are a tie (FastChat)."""

RATING = re.compile(r"\[\[(\d+\.?\d*)\]\]")
RATING_SINGLE = re.compile(r"\[(\d+\.?\d*)\]")
PREFERENCES: dict[str, Preference] = {"A": "A", "B": "B", "C": "tie"}
PREFERENCE = re.compile(r"\[\[([ABC])\]\]")


def rating_compat(text: str) -> float | None:
    """The first `[[n]]`, else the first `[n]`, whatever n is."""
    match = RATING.search(text) or RATING_SINGLE.search(text)
    return float(match[1]) if match else None


def rating_fixed(text: str) -> float | None:
    """The last `[[n]]`, else the last `[n]`, if it is between 1 and 10."""
    found = RATING.findall(text) or RATING_SINGLE.findall(text)
    rating = float(found[-1]) if found else None
    return rating if rating is not None and 1 <= rating <= 10 else None


def preference_compat(text: str) -> Preference | None:
    """`[[A]]` if it stands anywhere, else `[[B]]`, else `[[C]]` for a tie."""
    marks = set(PREFERENCE.findall(text))
    return next((PREFERENCES[mark] for mark in "ABC" if mark in marks), None)


def preference_fixed(text: str) -> Preference | None:
    """The last of `[[A]]`, `[[B]]` and `[[C]]`."""
    marks = PREFERENCE.findall(text)
    return PREFERENCES[marks[-1]] if marks else None


def both_orders(first: Preference | None, swapped: Preference | None) -> Preference | None:
    """What two judgements say together: a win needs both, one in each order of the answers; else it is a tie.

    Args:
        first: with the model's answer as A.
        swapped: with it as B, in the judge's own letters.
    """
    if first is None or swapped is None:
        return None
    agree = {first, swapped} == {"A", "B"} or first == swapped == "tie"
    return first if agree else "tie"


def preference_of_ratings(a: float | None, b: float | None) -> Preference | None:
    """A preference out of two ratings."""
    if a is None or b is None:
        return None
    return "tie" if abs(a - b) <= TIE_DELTA else "A" if a > b else "B"
