"""Numbers as people and models write them, exact: 1,000 = 1000 = 1000.0 = $1,000.00, 3/4 = 0.75, 2 1/2 = 2.5."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

MOST_DIGITS = 200
"""A longer run of digits is no answer (models write 0.33333… without end), and would cost time."""

# A minus behind a digit, a letter or a bracket subtracts. Behind a comma of thousands come three digits.
NUMBER = re.compile(
    r"""(?: (?<![\w)\]}]) (?P<sign>[-−–]) \s* )? (?:\\?[$€£] \s*)? (?: (?<![\w)\]}]) (?P<inner>[-−–]) )? (?=\.?\d)
    (?P<whole> \d{1,3} (?:(?:,|\{,\}|\u202f|\u00a0)\d{3})++ (?!\d) | \d++ )? (?P<point>\.\d++)?
    (?: [eE](?P<power>[+-]?\d{1,2})(?![\w.]) )?
    (?: \s* (?:/|⁄) \s* (?P<under>\d++) (?![\d.]) | [ ] (?P<part>\d++) / (?P<of>\d++) (?![\d/]) )?
    """,
    re.VERBOSE,
)
RUNS_ON = re.compile(r"[,.]?\d|[/^*+]\s*\d|\s[-+*/×]\s*\d|[eE]\d")


def numbers_in(text: str) -> Iterator[tuple[Fraction, int]]:
    """The numbers of a text in order, each with the position behind it; not those of more than `MOST_DIGITS`."""
    for match in NUMBER.finditer(text):
        value = value_of(match)
        if value is not None:
            yield value, match.end()


def number_at_start(text: str) -> tuple[Fraction, str] | None:
    """The number that a text begins with, and the text behind it; None where there is none or it runs on (`1,2`)."""
    match = NUMBER.match(text)
    value = value_of(match) if match else None
    if match is None or value is None or RUNS_ON.match(text, match.end()):
        return None
    return value, text[match.end() :]


def value_of(match: re.Match[str]) -> Fraction | None:
    """The value of a match of `NUMBER`: exact; None for a zero below a fraction's line or too many digits."""
    if len(match[0]) > MOST_DIGITS:
        return None
    whole = re.sub(r"\D", "", match["whole"] or "") or "0"
    value = Fraction(whole + (match["point"] or ""))
    if match["power"]:
        value *= Fraction(10) ** int(match["power"])
    for over, under in ((None, match["under"]), (match["part"], match["of"])):
        if under is not None:
            if int(under) == 0:
                return None
            value = value / int(under) if over is None else value + Fraction(int(over), int(under))
    negative = bool(match["sign"]) != bool(match["inner"])
    return -value if negative else value


def written(value: Fraction) -> str:
    """A value as it is shown: `18`, `0.5`, `1/3`."""
    if value.denominator == 1:
        return str(value.numerator)
    decimal = f"{float(value):.12g}"
    return decimal if Fraction(decimal) == value else str(value)
