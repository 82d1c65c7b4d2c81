"""What a person chooses for a board."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from camelid.options import Options

PAIR_VOTES = 50  # arena-rank's


class RateOptions(Options):
    """How votes become ratings, and how sure these are."""

    method: str = Field("bt", description="bt, bt-ties, elo, newman or win-rate.")
    anchors: dict[str, float] = Field({}, description="Ratings that models have by definition.")
    style: bool = Field(False, description="Take length, headers, lists and bold text out of the ratings.")
    covariates: tuple[str, ...] = Field((), description="Further columns of the log to take out of the ratings.")
    category: str | None = Field(None, description="Rate these battles only.")
    intervals: Literal["sandwich", "model", "bootstrap", "both"] = Field(
        "sandwich",
        description="sandwich (right even if the model is not), model (from its curvature alone), bootstrap (from "
        "resamples) or both: sandwich and bootstrap.",
    )
    level: float = Field(0.95, gt=0, lt=1, description="Share of intervals that hold the true rating.")
    resamples: int = Field(100, ge=2, le=100_000, description="Of the bootstrap.")
    seed: int = Field(0, ge=0, description="Of the bootstrap.")
    reweighted: bool = Field(False, description="A vote weighs 1 / max(votes of its pair, 50).")
    ties: Literal["davidson", "rao-kupper"] = Field("davidson", description="The model of ties of bt-ties.")
    k: float = Field(4.0, gt=0, description="Elo: most points that one vote moves.")
    style_ridge: float = Field(0.5, ge=0, description="Holds coefficients of style near 0; weighs as so many votes.")
    min_votes: int = Field(30, ge=0, description="A model with fewer votes is named in a warning.")

    @property
    def pair_votes(self) -> int:
        """Votes from which on a pair weighs no more; 0: every vote weighs 1."""
        return PAIR_VOTES if self.reweighted else 0
