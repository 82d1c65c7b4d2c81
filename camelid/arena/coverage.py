"""What intervals are worth: on boards whose strengths are known, how many hold the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from camelid.arena.ratings import RateOptions, rate
from camelid.arena.simulate import simulate
from camelid.errors import OptionError


@dataclass(frozen=True)
class Covered:
    """Over many boards.

    Attributes:
        boards: how many.
        strengths: what the models are, mean 1000.
        held: share of each model's intervals that held its strength.
        half_width: mean half width of each model's interval, in points.
        error: root mean square of rating less strength, in points.
    """

    boards: int
    strengths: Mapping[str, float]
    held: Mapping[str, float]
    half_width: Mapping[str, float]
    error: Mapping[str, float]

    @property
    def share(self) -> float:
        """Of all intervals."""
        return float(np.mean(list(self.held.values())))


def coverage(
    strengths: Mapping[str, float], votes: int, boards: int, options: RateOptions | None = None, **how: Any
) -> Covered:
    """Simulate boards and rate them.

    Args:
        strengths: on Elo's scale.
        votes: of each board.
        boards: how many; their seeds count up from `how`'s.
        options: how they are rated; no anchors, Bradley–Terry with or without ties.
        how: what `simulate` takes: ties, outcome, rules, active, seed.

    Raises:
        OptionError: as `simulate` and `rate`; ratings that are on no scale of strengths.
    """
    options = options or RateOptions()
    if options.method not in ("bt", "bt-ties") or options.anchors:
        raise OptionError("coverage: only bt and bt-ties, without anchors, estimate strengths", param="method")
    if boards < 1:
        raise OptionError(f"boards: must be at least 1, got {boards}", param="boards")
    seed = how.pop("seed", 0)
    middle = float(np.mean(list(strengths.values()))) if strengths else 0.0
    truth = {name: strength - middle + 1000 for name, strength in sorted(strengths.items())}
    held, width, error = (np.zeros(len(truth)) for _ in range(3))
    for board in range(boards):
        rows = {row.name: row for row in rate(simulate(truth, votes, seed=seed + board, **how), options).rows}
        if missing := next((name for name in truth if name not in rows), None):
            raise OptionError(f"votes: {votes} are too few: {missing} has none", param="votes")
        each = [(rows[name].lower, rows[name].upper, rows[name].rating, true) for name, true in truth.items()]
        lower, upper, rating, true = np.array(each).T
        held += (lower <= true) & (true <= upper)
        width += (upper - lower) / 2
        error += (rating - true) ** 2
    columns = (held / boards, width / boards, np.sqrt(error / boards))
    return Covered(boards, truth, *(dict(zip(truth, column.tolist(), strict=True)) for column in columns))
