"""How a difference of strengths becomes a vote: the three models of two models' answers.

d is the first's strength less the second's, in natural logarithms of odds. Outcomes are: first better, second better,
neither. Each link says, for P pairs, what the likelihood, its slopes and its curvature are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Slopes:
    """Of the log-likelihood of one vote with each outcome.

    Attributes:
        d, t: (P, 3) first derivatives by the difference, and by the parameter of ties.
        dd, dt, tt: (P, 3) second derivatives, with a minus.
    """

    d: Floats
    t: Floats
    dd: Floats
    dt: Floats
    tt: Floats


class Link(Protocol):
    """A model of votes; `has_ties`: it has a parameter t for how often people tie."""

    has_ties: bool
    start: float

    def log_likelihood(self, d: Floats, t: float) -> Floats:
        """(P, 3) log-probabilities of the outcomes."""

    def slopes(self, d: Floats, t: float) -> Slopes:
        """First and second derivatives of `log_likelihood`."""


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + e^-x), without overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1 + small)


def _log_sigmoid(x: Floats) -> Floats:
    return np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x)))


def _columns(*each: Floats) -> Floats:
    return np.stack(np.broadcast_arrays(*each), axis=1)


class HalfWins:
    """Bradley and Terry 1952 (Biometrika 39): P(first) = sigmoid(d); a tie is half a win for each."""

    has_ties = False
    start = 0.0

    def log_likelihood(self, d: Floats, t: float) -> Floats:
        first, second = _log_sigmoid(d), _log_sigmoid(-d)
        return _columns(first, second, (first + second) / 2)

    def slopes(self, d: Floats, t: float) -> Slopes:
        p = sigmoid(d)
        zero = np.zeros((len(d), 3))
        return Slopes(_columns(1 - p, -p, 0.5 - p), zero, _columns(*[p * (1 - p)] * 3), zero, zero)


class Davidson:
    """Davidson 1970 (JASA 65): first, second and tie weigh e^(d/2), e^(-d/2) and e^t (Newman 2023: e^t = 2v)."""

    has_ties = True
    start = 0.0

    def log_likelihood(self, d: Floats, t: float) -> Floats:
        weights = _columns(d / 2, -d / 2, np.full_like(d, t))
        top = weights.max(axis=1, keepdims=True)
        return weights - top - np.log(np.exp(weights - top).sum(axis=1, keepdims=True))

    def slopes(self, d: Floats, t: float) -> Slopes:
        first, second, tie = np.exp(self.log_likelihood(d, t)).T
        mean = (first - second) / 2
        dd, dt, tt = (first + second) / 4 - mean**2, -mean * tie, tie * (1 - tie)
        return Slopes(
            _columns(0.5 - mean, -0.5 - mean, -mean),
            _columns(-tie, -tie, 1 - tie),
            *(_columns(*[each] * 3) for each in (dd, dt, tt)),
        )


class RaoKupper:
    """Rao and Kupper 1967 (JASA 62): the first wins with sigmoid(d - t), the second with sigmoid(-d - t), t > 0."""

    has_ties = True
    start = 0.5

    def log_likelihood(self, d: Floats, t: float) -> Floats:
        if t <= 0:
            return np.full((len(d), 3), -np.inf)
        first, second = _log_sigmoid(d - t), _log_sigmoid(-d - t)
        return _columns(first, second, first + second + 2 * t + np.log(-np.expm1(-2 * t)))

    def slopes(self, d: Floats, t: float) -> Slopes:
        a, b = sigmoid(d - t), sigmoid(-d - t)
        curved_a, curved_b = a * (1 - a), b * (1 - b)
        rest = -np.expm1(-2 * t)
        return Slopes(
            _columns(1 - a, b - 1, b - a),
            _columns(a - 1, b - 1, 2 / rest + a + b - 2),
            _columns(curved_a, curved_b, curved_a + curved_b),
            _columns(-curved_a, curved_b, curved_b - curved_a),
            _columns(curved_a, curved_b, curved_a + curved_b + 4 * np.exp(-2 * t) / rest**2),
        )


LINKS: dict[str, Link] = {"half-wins": HalfWins(), "davidson": Davidson(), "rao-kupper": RaoKupper()}
