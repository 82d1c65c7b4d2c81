"""Elo's scale, anchors and ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
POINTS = 400 / log(10)  # of one natural logarithm of odds: 400 points are ten to one
MEAN = 1000.0  # of all models, where no anchor is given


def anchored(models: Sequence[str], anchors: Mapping[str, float]) -> tuple[Floats, float]:
    """(M,) weights whose weighted mean of ratings is fixed, and the value that it is fixed at.

    One anchor fixes its own rating; several fix their mean; with none, the mean of all models is 1000. An anchor that
    is not among the models is left out.
    """
    chosen = np.array([name in anchors for name in models], dtype=np.float64)
    if not chosen.any():
        return np.full(len(models), 1 / max(len(models), 1)), MEAN
    return chosen / chosen.sum(), float(np.mean([anchors[name] for name in models if name in anchors]))


def ratings(strength: Floats, fixed: Floats, value: float, scale: float = POINTS) -> Floats:
    """(…, M) strengths as ratings whose mean by the weights `fixed` is `value`."""
    found: Floats = scale * (strength - (strength @ fixed)[..., None]) + value
    return found


def widths(covariance: Floats, fixed: Floats, level: float) -> Floats:
    """(M,) half of each rating's interval in points, from the strengths' (M, M) covariance: an anchor's is 0."""
    contrast = np.eye(len(fixed)) - fixed
    variance = np.einsum("ij,jk,ik->i", contrast, covariance, contrast, optimize=True)
    found: Floats = POINTS * z(level) * np.sqrt(np.maximum(variance, 0))
    return found


def z(level: float) -> float:
    """Standard deviations on each side that hold this share of a normal distribution: 1.96 for .95."""
    return NormalDist().inv_cdf((1 + level) / 2)


def middle(samples: Floats, level: float) -> tuple[Floats, Floats]:
    """Bounds of the middle share of resamples, (R, M) to (M,) each."""
    lower, upper = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return lower, upper


def ranks(lower: Floats, upper: Floats) -> NDArray[np.int64]:
    """(M,) 1 + the number of models whose lower bound is above this one's upper bound, as Chatbot Arena ranks."""
    above: NDArray[np.int64] = len(lower) - np.searchsorted(np.sort(lower), upper, side="right")
    return above + 1
