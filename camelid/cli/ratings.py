"""NAME=RATING on the command line."""

from __future__ import annotations

from collections.abc import Sequence

from camelid.errors import OptionError


def ratings_by_name(flag: str, texts: Sequence[str] | None) -> dict[str, float]:
    """Name → rating, from what a flag that may be repeated was given; the last one of a name counts.

    Raises:
        OptionError: a text of another form.
    """
    return dict(_rating(flag, text) for text in texts or ())


def _rating(flag: str, text: str) -> tuple[str, float]:
    name, sign, rating = text.rpartition("=")
    try:
        if name and sign:
            return name, float(rating)
    except ValueError:
        pass
    raise OptionError(f"--{flag}: {text!r}: give NAME=RATING, as gpt-4=1200", param=flag)
