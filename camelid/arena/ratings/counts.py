"""Votes counted by pair and winner: all that ratings without an order in time need, however many votes there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from camelid.arena.battles import BOTH_BAD, TIE, WINNERS, A, B, Battles
from camelid.errors import UnsupportedError

Floats = NDArray[np.float64]
MOST_MODELS = 4000  # the table takes 32 bytes for each pair


@dataclass(frozen=True)
class Counts:
    """How often each winner was voted for, by who was on side A and who on B.

    Attributes:
        models: (M,) names.
        table: (M, M, 4) int64, votes by model on side A, model on side B, winner (`WINNERS`).
    """

    models: tuple[str, ...]
    table: NDArray[np.int64]

    @classmethod
    def of(cls, battles: Battles) -> Self:
        """Count N votes at once.

        Raises:
            UnsupportedError: more than 4,000 models.
        """
        m = len(battles.models)
        if m > MOST_MODELS:
            raise UnsupportedError(f"ratings: {m:,} models; at most {MOST_MODELS:,} can be rated together")
        places = battles.a * np.int32(m) + battles.b
        places *= np.int32(len(WINNERS))
        places += battles.winner
        return cls(battles.models, np.bincount(places, minlength=m * m * len(WINNERS)).reshape(m, m, len(WINNERS)))

    def add(self, a: int, b: int, winner: int, n: int = 1) -> None:
        """One vote more (or, with n=-1, one taken back), in place."""
        self.table[a, b, winner] += n

    @property
    def wins(self) -> Floats:
        """(M, M): how often the first was voted better than the second."""
        return (self.table[:, :, A] + self.table[:, :, B].T).astype(np.float64)

    @property
    def ties(self) -> Floats:
        """(M, M), symmetric: votes for neither, of both kinds."""
        one_way = self.table[:, :, TIE] + self.table[:, :, BOTH_BAD]
        return (one_way + one_way.T).astype(np.float64)

    @property
    def votes(self) -> NDArray[np.int64]:
        """(M,): battles of each model against others."""
        n = self.table.sum(axis=2)
        both: NDArray[np.int64] = (n + n.T).sum(axis=1) - 2 * n.diagonal()
        return both

    @property
    def n_votes(self) -> int:
        """Battles between two different models."""
        return int(self.votes.sum()) // 2

    @property
    def n_with_itself(self) -> int:
        """Battles of a model with itself, which say nothing."""
        return int(np.trace(self.table.sum(axis=2)))

    def rated(self) -> Self:
        """The models that have met another one."""
        kept = np.flatnonzero(self.votes)
        return type(self)(tuple(self.models[k] for k in kept), self.table[np.ix_(kept, kept)])


@dataclass(frozen=True)
class Pairs:
    """P pairs of M models that have met.

    Attributes:
        n_models: M.
        i, j: (P,) the two models, i < j.
        n: (P, 3) votes for i, for j, for neither.
        weight: (P,) what a vote of the pair weighs.
    """

    n_models: int
    i: NDArray[np.int64]
    j: NDArray[np.int64]
    n: Floats
    weight: Floats

    @classmethod
    def of(cls, counts: Counts, reweighted: int = 0) -> Self:
        """From counts; `reweighted`: a vote weighs 1 / max(votes of its pair, this), so that frequent pairs do not
        decide; 0: every vote weighs 1."""
        wins, ties = counts.wins, counts.ties
        i, j = np.nonzero(np.triu(wins + wins.T + ties, 1))
        n = np.stack([wins[i, j], wins[j, i], ties[i, j]], axis=1)
        weight = 1 / np.maximum(n.sum(axis=1), reweighted) if reweighted else np.ones(len(i))
        return cls(len(counts.models), i, j, n, weight)

    def with_n(self, n: Floats) -> Pairs:
        """The same pairs with other counts."""
        return Pairs(self.n_models, self.i, self.j, n, self.weight)

    @property
    def weights(self) -> Floats:
        """(M, M): what a vote between two models weighs; 1 where they never met."""
        matrix = np.ones((self.n_models, self.n_models))
        matrix[self.i, self.j] = matrix[self.j, self.i] = self.weight
        return matrix

    def spread(self, values: Floats) -> Floats:
        """(P,) values of pairs as the (M, M) matrix that they add up to: + on the diagonal, - for each pair."""
        matrix = np.zeros((self.n_models, self.n_models))
        matrix[self.i, self.j] = matrix[self.j, self.i] = -values
        np.fill_diagonal(matrix, -matrix.sum(axis=1))
        return matrix

    def add_up(self, values: Floats) -> Floats:
        """(P,) values that speak for i and against j, added up for each of the M models."""
        m = self.n_models
        found: Floats = np.bincount(self.i, values, m).astype(np.float64)
        found -= np.bincount(self.j, values, m)
        return found

    def add_up_both(self, values: Floats) -> Floats:
        """(P,) values of pairs, added up for each of the M models, whichever side it is on."""
        m = self.n_models
        found: Floats = np.bincount(self.i, values, m).astype(np.float64)
        found += np.bincount(self.j, values, m)
        return found

    def beaten(self, n: Floats | None = None) -> NDArray[np.bool_]:
        """(M, M): the first has won against the second, or tied with it."""
        n = self.n if n is None else n
        matrix = np.zeros((self.n_models, self.n_models), dtype=bool)
        matrix[self.i, self.j] = n[:, 0] + n[:, 2] > 0
        matrix[self.j, self.i] = n[:, 1] + n[:, 2] > 0
        return matrix
