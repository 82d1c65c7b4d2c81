"""What rating gives: one row for each model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """A model's place.

    Attributes:
        name: of the model.
        rating: on Elo's scale (400 points: ten to one), but for `newman` (strength) and `win-rate` (a share).
        lower, upper: the interval that holds the true rating, at the asked level.
        rank: 1 + the models whose lower bound is above this one's upper bound.
        votes: battles against others.
        bootstrap: the same interval by resampling, where both were asked for.
    """

    name: str
    rating: float
    lower: float
    upper: float
    rank: int
    votes: int
    bootstrap: tuple[float, float] | None = None


@dataclass(frozen=True)
class Coefficient:
    """What a column does to votes: log-odds for each standard deviation of the difference between the answers."""

    name: str
    value: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Board:
    """Models, best first.

    Attributes:
        method: name in `METHODS`.
        n_votes: battles that were rated.
        rows: by rating.
        coefficients: of style and other columns; of ties, for `bt-ties`.
        warnings: what makes the numbers say less than they seem to; a sentence each.
    """

    method: str
    n_votes: int
    rows: tuple[Row, ...]
    coefficients: tuple[Coefficient, ...] = ()
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For programs: method, n_votes and models; coefficients and warnings where there are any."""
        models: list[dict[str, Any]] = []
        for row in self.rows:
            model = {name: getattr(row, name) for name in ("name", "rating", "lower", "upper", "rank", "votes")}
            if row.bootstrap is not None:
                model["bootstrap_lower"], model["bootstrap_upper"] = row.bootstrap
            models.append(model)
        found: dict[str, Any] = {"method": self.method, "n_votes": self.n_votes, "models": models}
        if self.coefficients:
            found["coefficients"] = [vars(each) for each in self.coefficients]
        if self.warnings:
            found["warnings"] = list(self.warnings)
        return found
