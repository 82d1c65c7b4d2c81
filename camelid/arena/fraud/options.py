"""What a person chooses when a log is searched for votes that are not a person's opinion."""

from __future__ import annotations

from pydantic import Field

from camelid.options import Options


class FraudOptions(Options):
    """Bounds and limits of the search."""

    alarm: float = Field(0.05, gt=0, lt=1, description="Bound on the chance that any honest voter is named.")
    taste: float = Field(0.1, ge=0, lt=0.5, description="By how much an honest expected score may differ.")
    few: int = Field(10, ge=0, description="Voters with fewer votes are judged together, too, as newcomers.")
    rounds: int = Field(3, ge=1, le=20, description="How often the search begins anew without the votes it found.")
    alike: float = Field(0.15, ge=0, lt=0.5, description="By how much two honest voters may agree more than usual.")
    fastest: float = Field(2.0, ge=0, description="Seconds in which nobody reads two answers.")
    hasty: int = Field(5, ge=1, description="So many votes faster than that are no person's.")
