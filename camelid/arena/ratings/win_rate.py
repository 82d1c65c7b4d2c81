"""The mean share of wins against each other model met: what one expects against a rival drawn evenly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from camelid.arena.ratings.counts import Pairs
from camelid.arena.ratings.scale import z

Floats = NDArray[np.float64]
_SCORES = np.array([1.0, 0.0, 0.5])


def win_rate(pairs: Pairs, n: Floats | None = None) -> Floats:
    """(…, M) mean over the rivals that were met of the share of wins, a tie counting half; n: (…, P, 3) other counts.

    NaN where no rival was met.
    """
    n = pairs.n if n is None else n
    met = n.sum(axis=-1)
    with np.errstate(invalid="ignore"):
        share = n @ _SCORES / met
    total = np.zeros((*n.shape[:-2], pairs.n_models))
    rivals = np.zeros_like(total)
    for side, won in ((pairs.i, share), (pairs.j, 1 - share)):
        for model in range(pairs.n_models):
            mine = side == model
            total[..., model] += np.nansum(won[..., mine], axis=-1)
            rivals[..., model] += (met[..., mine] > 0).sum(axis=-1)
    with np.errstate(invalid="ignore"):
        found: Floats = total / rivals
    return found


def win_rate_bounds(pairs: Pairs, level: float) -> tuple[Floats, Floats]:
    """(M,) bounds by the normal distribution. A pair's spread is that of its counts with half a vote more for each
    outcome, so that a pair with few votes does not look sure."""
    n = pairs.n.sum(axis=1)
    chance = (pairs.n + 0.5) / (n + 1.5)[:, None]
    variance = (chance @ _SCORES**2 - (chance @ _SCORES) ** 2) / n
    m = pairs.n_models
    rivals = np.bincount(pairs.i, minlength=m) + np.bincount(pairs.j, minlength=m)
    total = np.bincount(pairs.i, variance, m) + np.bincount(pairs.j, variance, m)
    half, rate = z(level) * np.sqrt(total) / rivals, win_rate(pairs)
    return np.clip(rate - half, 0, 1), np.clip(rate + half, 0, 1)


def win_rate_resampled(pairs: Pairs, resamples: int, seed: int) -> Floats:
    """(resamples, M) the same from counts drawn with replacement; a model that a draw leaves out has its own rate."""
    counts = pairs.n.ravel()
    total = counts.sum()
    drawn = np.random.default_rng(seed).multinomial(int(total), counts / total, resamples).reshape(-1, *pairs.n.shape)
    found = win_rate(pairs, drawn.astype(np.float64))
    return np.where(np.isnan(found), win_rate(pairs), found)
