"""The likeliest strengths by Newton's method on the counts of pairs, and how sure they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from camelid.arena.ratings.counts import Pairs
from camelid.arena.ratings.graph import all_reach
from camelid.arena.ratings.links import Link, Slopes, sigmoid
from camelid.errors import NumericsError

Floats = NDArray[np.float64]
_ROUNDS = 200
_RIDGE, _RIDGE_SHARE = 1e-5, 0.01
_FAR = 40.0  # e^40 to one
_CLOSE = 1e-11  # of a strength, in natural logarithms of odds: 2e-9 of a point


def fit(link: Link, pairs: Pairs, imagined: float = 0.0, start: Floats | None = None) -> Floats:
    """(M + 1,) the likeliest strengths, mean 0, and the parameter of ties.

    Args:
        link: the model of votes.
        pairs: what was voted.
        imagined: ties of every model with an average one that are imagined, so that strengths stay finite where no
            likeliest ones are.
        start: where to begin.

    Raises:
        NumericsError: no end in 200 steps.
    """
    m = pairs.n_models
    n = pairs.n * pairs.weight[:, None]
    at = np.append(np.zeros(m), link.start) if start is None else start
    value = _value(link, pairs, n, at, imagined)
    for _ in range(_ROUNDS):
        slope, curvature = _gradient(link, pairs, n, at, imagined)
        step = np.linalg.solve(curvature, slope)
        step[:m] -= step[:m].mean() if not imagined else 0.0
        if not np.isfinite(step).all():
            break
        if np.abs(step).max() < _CLOSE:
            return at + step
        shorter = 1.0
        while not (new := _value(link, pairs, n, at + shorter * step, imagined)) >= value - 1e-12 * abs(value):
            shorter /= 2
            if shorter < 1e-12:
                return at
        at, value = at + shorter * step, new
    raise NumericsError("ratings: the fit has no end; are there models that only win or only lose?")


def likeliest(link: Link, pairs: Pairs, start: Floats | None = None) -> tuple[Floats, float]:
    """The fit, and the weight of the tie of each model with an average one that was imagined, as much as a
    usual vote has: 0 but where nothing is the likeliest."""
    if all_reach(pairs.beaten()):
        try:
            at = fit(link, pairs, start=start)
        except (NumericsError, np.linalg.LinAlgError):  # ties may leave no likeliest strengths where wins alone do
            pass
        else:
            if np.abs(at).max() < _FAR:
                return at, 0.0
    one = float(pairs.n.sum(axis=1) @ pairs.weight / pairs.n.sum())
    return fit(link, pairs, one), one


def _value(link: Link, pairs: Pairs, n: Floats, at: Floats, imagined: float) -> float:
    strength = at[:-1]
    d = strength[pairs.i] - strength[pairs.j]
    value = float(np.vdot(n, link.log_likelihood(d, float(at[-1]))))
    if imagined:
        value -= imagined * float(np.sum(np.logaddexp(0, strength) + np.logaddexp(0, -strength))) / 2
    return value


def _gradient(link: Link, pairs: Pairs, n: Floats, at: Floats, imagined: float) -> tuple[Floats, Floats]:
    """Slope and curvature, with what is not known (a constant, ties where there is no parameter of them) held at 0."""
    strength = at[:-1]
    slopes = link.slopes(strength[pairs.i] - strength[pairs.j], float(at[-1]))
    slope = np.append(pairs.add_up(np.einsum("pk,pk->p", n, slopes.d)), float(np.vdot(n, slopes.t)))
    curvature = _curvature(link, pairs, n, slopes)
    m = pairs.n_models
    if imagined:
        p = sigmoid(strength)
        slope[:m] -= imagined * (p - 0.5)
        curvature[np.arange(m), np.arange(m)] += imagined * p * (1 - p)
    else:
        curvature[:m, :m] += curvature[:m, :m].trace() / m**2
    return slope, curvature


def newman_scale(pairs: Pairs) -> float:
    """Geometric mean of strengths as Newman's iteration leaves it, begun with 1 for all and v = ½ (Newman 2023,
    arXiv:2207.00076, equations 22 and 25). It says nothing about models; other programs print strengths on it."""
    m = pairs.n_models
    won, tied = np.zeros((m, m)), np.zeros((m, m))
    n = pairs.n * pairs.weight[:, None]
    won[pairs.i, pairs.j], won[pairs.j, pairs.i] = n[:, 0], n[:, 1]
    tied[pairs.i, pairs.j] = tied[pairs.j, pairs.i] = n[:, 2]
    half, strength, v = won + tied / 2, np.ones(m), 0.5
    for _ in range(10_000):
        root = np.sqrt(np.outer(strength, strength))
        both = strength[:, None] + strength
        whole = both + 2 * v * root
        gained = (half * (strength + v * root) / whole).sum(axis=1)
        new = gained / (half.T * (1 + v * np.sqrt(strength / strength[:, None])) / whole).sum(axis=1)
        v = (tied * both / whole).sum() / 2 / ((won * root / whole).sum() * 2)
        done = np.abs(new / strength - 1).max() < 1e-12
        strength = new
        if done:
            break
    return float(np.exp(np.log(strength).mean()))


def _curvature(link: Link, pairs: Pairs, n: Floats, slopes: Slopes) -> Floats:
    m = pairs.n_models
    curvature = np.zeros((m + 1, m + 1))
    curvature[:m, :m] = pairs.spread(np.einsum("pk,pk->p", n, slopes.dd))
    if link.has_ties:
        curvature[:m, m] = curvature[m, :m] = pairs.add_up(np.einsum("pk,pk->p", n, slopes.dt))
        curvature[m, m] = np.vdot(n, slopes.tt)
    else:
        curvature[m, m] = 1.0
    return curvature


def curvature_inverse(link: Link, pairs: Pairs, at: Floats, imagined: float = 0.0) -> Floats:
    """(M + 1, M + 1) covariance of strengths and ties if the link is right and votes weigh 1, as R's glm has it."""
    _, curvature = _gradient(link, pairs, pairs.n * pairs.weight[:, None], at, imagined)
    found: Floats = np.linalg.inv(curvature).astype(np.float64)
    return found


def sandwich(link: Link, pairs: Pairs, at: Floats, imagined: float = 0.0) -> Floats:
    """(M + 1, M + 1) covariance of strengths and ties, to be used in differences of strengths.

    It holds even if the link is not quite right: H⁻¹ B H⁻¹ with H the curvature and B the sum of squared slopes of
    single votes (Huber 1967; White 1982).

    Without a parameter of ties, H has a `ridge`.
    """
    n, m = pairs.n * pairs.weight[:, None], pairs.n_models
    _, curvature = _gradient(link, pairs, n, at, imagined)
    if not link.has_ties:
        own = pairs.add_up_both(n.sum(axis=1) * link.slopes(at[pairs.i] - at[pairs.j], 0.0).dd[:, 0])
        total = float(pairs.n.sum()) if (pairs.weight == 1).all() else 1.0
        curvature[np.arange(m), np.arange(m)] += ridge(total, own)
    slopes = link.slopes(at[pairs.i] - at[pairs.j], float(at[-1]))
    squared = pairs.n * (pairs.weight**2)[:, None]
    spread = np.zeros((m + 1, m + 1))
    spread[:m, :m] = pairs.spread(np.einsum("pk,pk->p", squared, slopes.d**2))
    if link.has_ties:
        spread[:m, m] = spread[m, :m] = pairs.add_up(np.einsum("pk,pk->p", squared, slopes.d * slopes.t))
        spread[m, m] = np.vdot(squared, slopes.t**2)
    inverse = np.linalg.inv(curvature)
    return inverse @ spread @ inverse


def ridge(total: float, own: Floats) -> float:
    """What arena-rank adds to the curvature before it is inverted: 1e-5 × votes (1e-5 if re-weighted).

    That would make a model with few votes among very many look sure, so here it is no more than a hundredth of any
    model's own curvature.
    """
    return min(_RIDGE * total, _RIDGE_SHARE * float(own.min()))


def resampled(link: Link, pairs: Pairs, at: Floats, resamples: int, seed: int, imagined: float = 0.0) -> Floats:
    """(resamples, M + 1) fits to as many votes as there are, drawn from them with replacement: one multinomial draw of
    the counts each (Efron 1979). Where a draw has no likeliest strengths, one tie of every model is imagined."""
    rng = np.random.default_rng(seed)
    counts = pairs.n.ravel()
    total = counts.sum()
    found = np.empty((resamples, len(at)))
    for row in found:
        drawn = rng.multinomial(int(total), counts / total).astype(np.float64).reshape(pairs.n.shape)
        some = pairs.with_n(drawn)
        row[:] = fit(link, some, imagined, at) if imagined else likeliest(link, some, at)[0]
    return found
