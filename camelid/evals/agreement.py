"""How often a reward model prefers what people preferred, and how well it knows when it does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

BINS = 10  # of how sure the model is, from one half to one
_Z = 1.959963984540054  # of a two-sided 95 % interval


@dataclass(frozen=True)
class Judged:
    """The rewards of a pair, and its grade if people gave one."""

    grade: str | None
    chosen: float
    rejected: float

    @property
    def sureness(self) -> float:
        """σ of the distance of both: how likely, the model says, people prefer what it prefers."""
        return 1 / (1 + math.exp(-min(700.0, abs(self.chosen - self.rejected))))

    @property
    def agrees(self) -> bool:
        """Whether the chosen answer has the larger reward; equal rewards agree with nobody."""
        return self.chosen > self.rejected


@dataclass(frozen=True)
class Share:
    """A share of n pairs with Wilson's 95 % interval (Wilson 1927)."""

    n: int
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Bin:
    """Pairs of which the model is about as sure: how many, how sure it is in the mean, and how often it is right."""

    n: int
    sureness: float
    share: float


@dataclass(frozen=True)
class Agreement:
    """What came of all pairs.

    Attributes:
        overall, grades: how often the model agrees, of all and by grade.
        ties: pairs whose answers have equal rewards.
        calibration_error: mean distance of sureness and share over `bins` (Guo et al. 2017, arXiv:1706.04599).
        left_out: why pairs were not judged → how many.
    """

    overall: Share
    grades: Mapping[str, Share]
    ties: int
    calibration_error: float
    bins: Sequence[Bin]
    left_out: Mapping[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The contract for programs."""
        own = {"n": self.overall.n, "accuracy": self.overall.share, "low": self.overall.low, "high": self.overall.high}
        return own | {name: value for name, value in asdict(self).items() if name != "overall"}


def agreement(pairs: Sequence[Judged], left_out: Mapping[str, int] | None = None) -> Agreement:
    """Count over pairs; there is at least one."""
    grades: dict[str, list[Judged]] = {}
    bins: dict[int, list[Judged]] = {}
    for pair in pairs:
        if pair.grade is not None:
            grades.setdefault(pair.grade, []).append(pair)
        bins.setdefault(min(BINS - 1, int((pair.sureness - 0.5) * 2 * BINS)), []).append(pair)
    made = [_bin(bins[number]) for number in sorted(bins)]
    error = sum(each.n * abs(each.sureness - each.share) for each in made) / len(pairs)
    ties = sum(pair.chosen == pair.rejected for pair in pairs)
    by_grade = {grade: _share(own) for grade, own in grades.items()}
    return Agreement(_share(pairs), by_grade, ties, error, made, dict(left_out or {}))


def wilson(n_right: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of n (Wilson 1927, JASA 22); of none, all that it can be."""
    if n == 0:
        return 0.0, 1.0
    share, extra = n_right / n, _Z**2 / n
    middle = (share + extra / 2) / (1 + extra)
    half = _Z * math.sqrt(share * (1 - share) / n + extra / (4 * n)) / (1 + extra)
    return max(0.0, middle - half), min(1.0, middle + half)


def _share(pairs: Sequence[Judged]) -> Share:
    n_right = sum(pair.agrees for pair in pairs)
    return Share(len(pairs), n_right / len(pairs), *wilson(n_right, len(pairs)))


def _bin(pairs: Sequence[Judged]) -> Bin:
    n = len(pairs)
    return Bin(n, sum(pair.sureness for pair in pairs) / n, sum(pair.agrees for pair in pairs) / n)
