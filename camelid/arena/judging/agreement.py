"""How far judges and people agree, with intervals.

Agreement is the chance that two votes on the same question and pair of models are equal, one of each group, or of two
voters of one group (Zheng et al. 2023, arXiv 2306.05685, 4.2). Setup S1 has ties, S2 leaves them out: chance alone
gives a third and a half. Cohen's kappa and Krippendorff's alpha (nominal) take chance away. Intervals: bootstrap over
the units, so that votes on the same pair stay together.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from camelid.arena.logs.read import read_logged
from camelid.arena.logs.vote import Vote
from camelid.errors import OptionError

log = logging.getLogger(__name__)
Floats = NDArray[np.float64]
By = Literal["question", "battle"]
Unit = tuple[str, str, str]
_OUTCOMES = 3  # first of the pair by name, second, tie


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Agreement:
    """Of two groups of votes, or of one among itself.

    Attributes:
        setup: S1 with ties, S2 without.
        units: questions and pairs on which both voted; `pairs`: pairs of votes.
        per_vote: every pair of votes counts alike; `per_pair`: every unit does.
        kappa: Cohen's, of the pairs of votes.
        alpha: Krippendorff's, of all votes of both groups together.
    """

    setup: str
    units: int
    pairs: int
    per_vote: Estimate
    per_pair: Estimate
    kappa: Estimate
    alpha: Estimate

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def blind_votes(path: Path) -> list[Vote]:
    """The votes of a log that count: nothing is said against them, and the names were hidden. What is left out is told
    in a line, by reason."""
    votes: list[Vote] = []
    left_out: Counter[str] = Counter()
    for _, vote, reason, _ in read_logged([path]):
        if reason is None and vote.anony:
            votes.append(vote)
        else:
            left_out[reason or "the names were shown"] += 1
    for reason, count in left_out.items():
        log.warning("%s: %s votes left out: %s", path, f"{count:,}", reason)
    return votes


def count_units(votes: Iterable[Vote], by: By = "question") -> dict[Unit, list[int]]:
    """Unit → votes for the model that is first by name, for the other, and ties of both kinds.

    Raises:
        OptionError: a vote without question, or id.
    """
    units: dict[Unit, list[int]] = {}
    for vote in votes:
        key = vote.prompt if by == "question" else vote.id
        if key is None:
            raise OptionError(f"agreement: a vote has no {'question' if by == 'question' else 'id'}", param="by")
        a, b = sorted((vote.model_a, vote.model_b))
        if a != b:
            outcome = {"model_a": vote.model_a, "model_b": vote.model_b}.get(vote.winner)
            units.setdefault((key, a, b), [0] * _OUTCOMES)[2 if outcome is None else int(outcome == b)] += 1
    return units


def agreement(
    first: Iterable[Vote],
    second: Iterable[Vote] | None = None,
    ties: bool = True,
    by: By = "question",
    resamples: int = 1000,
    seed: int = 0,
) -> Agreement:
    """Agreement of two groups; with one, of its voters among themselves.

    Raises:
        OptionError: no unit has two votes to compare.
    """
    one = count_units(first, by)
    two = None if second is None else count_units(second, by)
    keys = sorted(one if two is None else one.keys() & two.keys())
    x = _table([one[key] for key in keys], ties)
    y = x if two is None else _table([two[key] for key in keys], ties)
    same = two is None
    total = x.sum(1) * (x.sum(1) - 1) if same else x.sum(1) * y.sum(1)
    kept = total > 0
    if not kept.any():
        raise OptionError(f"agreement: no {by} and pair of models has two votes to compare; give logs that share some")
    figures = _Figures(x[kept], None if same else y[kept], total[kept])
    n = int(kept.sum())
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)
    found = []
    for values, samples in zip(figures.of(np.ones((1, n))), figures.of(drawn), strict=True):
        low, high = np.nanquantile(samples, (0.025, 0.975)) if np.isfinite(samples).any() else (np.nan, np.nan)
        found.append(Estimate(float(values[0]), float(low), float(high)))
    pairs = int(figures.total.sum()) // (2 if same else 1)
    return Agreement("S1" if ties else "S2", n, pairs, *found)


def _table(rows: list[list[int]], ties: bool) -> Floats:
    table = np.array(rows, np.float64).reshape(len(rows), _OUTCOMES)
    return table if ties else table[:, :2]


class _Figures:
    """Sums over units, of which every figure is a function; so resamples are products of matrices."""

    def __init__(self, x: Floats, y: Floats | None, total: Floats) -> None:
        self.total = total
        if y is None:
            self.agreeing = (x * (x - 1)).sum(1)
            self.margins = (x * (x.sum(1, keepdims=True) - 1),) * 2
            self.votes = x
        else:
            self.agreeing = (x * y).sum(1)
            self.margins = (x * y.sum(1, keepdims=True), y * x.sum(1, keepdims=True))
            self.votes = x + y
        n = self.votes.sum(1)
        self.disagreeing = (n**2 - (self.votes**2).sum(1)) / (n - 1)

    def of(self, weights: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """(samples, units) → per vote, per pair, kappa, alpha; each (samples,)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            pairs = weights @ self.total
            per_vote = weights @ self.agreeing / pairs
            per_pair = weights @ (self.agreeing / self.total) / weights.sum(1)
            left, right = (weights @ each / pairs[:, None] for each in self.margins)
            chance = (left * right).sum(1)
            kappa = (per_vote - chance) / (1 - chance)
            counts = weights @ self.votes
            n = counts.sum(1)
            expected = (n**2 - (counts**2).sum(1)) / (n - 1)
            alpha = 1 - weights @ self.disagreeing / expected
        return per_vote, per_pair, kappa, alpha
