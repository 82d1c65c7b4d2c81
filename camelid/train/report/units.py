"""Times, counts and bytes in words for people."""

from __future__ import annotations

from camelid.files import size_text


def duration(seconds: float) -> str:
    """Seconds in two units at most: 42 s, 3 min 5 s, 2 h 10 min, 5 d 3 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def count(number: float) -> str:
    """A large number in three digits: 812, 4.1k, 2.05M, 6.74B, 2T."""
    for power, letter in ((12, "T"), (9, "B"), (6, "M"), (3, "k")):
        if number >= 0.9995 * 10**power:
            return f"{number / 10**power:.3g}{letter}"
    return f"{number:.0f}"


def memory(n_bytes: float) -> str:
    """Bytes in words; nothing for none."""
    return size_text(n_bytes) if n_bytes else ""
