"""Votes to a board, by any of the methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from camelid.arena.battles import Battles
from camelid.arena.ratings.board import Board, Coefficient, Row
from camelid.arena.ratings.categories import in_category
from camelid.arena.ratings.counts import Counts, Pairs
from camelid.arena.ratings.covariates import rate_with_columns
from camelid.arena.ratings.elo import elo, elo_resampled
from camelid.arena.ratings.fit import curvature_inverse, likeliest, newman_scale, resampled, sandwich
from camelid.arena.ratings.links import LINKS, Link
from camelid.arena.ratings.options import RateOptions
from camelid.arena.ratings.scale import POINTS, anchored, middle, ranks, ratings, widths, z
from camelid.arena.ratings.threads import one_thread
from camelid.arena.ratings.warn import warnings
from camelid.arena.ratings.win_rate import win_rate, win_rate_bounds, win_rate_resampled
from camelid.errors import OptionError, one_of

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """(M,) ratings with their bounds, and what else a method found."""

    rating: Floats
    lower: Floats
    upper: Floats
    bootstrap: tuple[Floats, Floats] | None = None
    coefficients: tuple[Coefficient, ...] = ()
    imagined: bool = False  # ties, since no strengths are the likeliest


@dataclass(frozen=True)
class Method:
    """A way from votes to ratings.

    Attributes:
        label: what it is, for people.
        rate: the work; the battles are those counted.
        needs_battles: the order of votes counts, so counts are not enough.
        has_anchors: ratings are on Elo's scale, where a constant may be added.
        has_curvature: ratings are the likeliest of a model.
        takes: choices that it has a use for.
    """

    label: str
    rate: Callable[[Counts, Battles | None, RateOptions], Estimate]
    needs_battles: bool = False
    has_anchors: bool = True
    has_curvature: bool = True
    takes: frozenset[str] = field(default_factory=frozenset)


def rate(battles: Battles, options: RateOptions | None = None) -> Board:
    """Rate the models of a log.

    Raises:
        OptionError: an unknown method, category or anchor; a choice that the method has no use for; no votes.
    """
    options = options or RateOptions()
    _check(options, battles.models)
    if options.category is not None:
        battles = battles.take(in_category(battles, options.category))
    return _board(Counts.of(battles), battles, options)


def rate_counts(counts: Counts, options: RateOptions | None = None) -> Board:
    """Rate from counts alone, so that a board follows each vote.

    Raises:
        OptionError: as `rate`; a method, category or column that needs the battles themselves.
    """
    options = options or RateOptions()
    _check(options, counts.models)
    if METHODS[options.method].needs_battles or options.category or options.style or options.covariates:
        raise OptionError("ratings: Elo, categories, style and columns need battles, not only their counts")
    return _board(counts, None, options)


def _check(options: RateOptions, models: tuple[str, ...]) -> None:
    if options.method not in METHODS:
        raise OptionError(
            f"method: {options.method!r}: no such method; {one_of(options.method, METHODS)}", param="method"
        )
    method = METHODS[options.method]
    if options.anchors and not method.has_anchors:
        raise OptionError(f"anchors: {options.method} is not on Elo's scale; leave anchors out", param="anchors")
    for name in options.anchors:
        if name not in models:
            raise OptionError(
                f"anchors: {name!r} is not in the log; {one_of(name, models or ('none',))}", param="anchors"
            )
    for choice in ("style", "covariates", "reweighted"):
        if getattr(options, choice) and choice not in method.takes:
            able = sorted(name for name, each in METHODS.items() if choice in each.takes)
            raise OptionError(f"{choice}: {options.method} has no use for it; {one_of('', able)}", param=choice)
    if options.intervals == "model" and not method.has_curvature:
        raise OptionError(f"intervals: {options.method} has no model; choose sandwich or bootstrap", param="intervals")
    if (options.style or options.covariates) and options.intervals != "sandwich":
        raise OptionError("intervals: with style or columns only sandwich", param="intervals")


def _board(counts: Counts, battles: Battles | None, options: RateOptions) -> Board:
    rated = counts.rated()
    if not rated.models:
        where = f" in category {options.category!r}" if options.category else ""
        raise OptionError(f"ratings: no vote between two models{where}; nothing can be rated")
    with one_thread():
        found = METHODS[options.method].rate(rated, battles, options)
    places = ranks(found.lower, found.upper)
    rows = []
    for k in sorted(range(len(rated.models)), key=lambda k: (-found.rating[k], rated.models[k])):
        rating, lower, upper = (float(column[k]) for column in (found.rating, found.lower, found.upper))
        both = None if found.bootstrap is None else (float(found.bootstrap[0][k]), float(found.bootstrap[1][k]))
        rows.append(Row(rated.models[k], rating, lower, upper, int(places[k]), int(rated.votes[k]), both))
    said = warnings(counts, rated, battles, options, found.imagined)
    return Board(options.method, rated.n_votes, tuple(rows), found.coefficients, tuple(said))


def _by_counts(link_name: str) -> Callable[[Counts, Battles | None, RateOptions], Estimate]:
    def run(counts: Counts, battles: Battles | None, options: RateOptions) -> Estimate:
        if options.style or options.covariates:
            assert battles is not None
            rating, lower, upper, found, imagined = rate_with_columns(counts, battles, options)
            return Estimate(rating, lower, upper, None, found, imagined)
        link = LINKS[link_name if link_name != "ties" else options.ties]
        return _likeliest(link, counts, options)

    return run


def _likeliest(link: Link, counts: Counts, options: RateOptions) -> Estimate:
    pairs = Pairs.of(counts, options.pair_votes)
    if link.has_ties and not (pairs.n[:, 2].any() and pairs.n[:, :2].any()):
        link = LINKS["half-wins"]  # nothing to learn about ties from
    at, imagined = likeliest(link, pairs)
    fixed, value = anchored(counts.models, options.anchors)
    rating = ratings(at[:-1], fixed, value)
    covariance = (curvature_inverse if options.intervals == "model" else sandwich)(link, pairs, at, imagined)
    half = widths(covariance[:-1, :-1], fixed, options.level)

    def draw() -> Floats:
        return ratings(resampled(link, pairs, at, options.resamples, options.seed, imagined)[:, :-1], fixed, value)

    ties = _of_ties(link, at, covariance, options)
    return _bounded(rating, (rating - half, rating + half), draw, options, ties, imagined > 0)


def _bounded(
    rating: Floats,
    bounds: tuple[Floats, Floats],
    draw: Callable[[], Floats],
    options: RateOptions,
    coefficients: tuple[Coefficient, ...] = (),
    imagined: bool = False,
) -> Estimate:
    """With the bounds that were asked for; resamples are drawn only then."""
    drawn = middle(draw(), options.level) if options.intervals in ("bootstrap", "both") else None
    if options.intervals == "bootstrap" and drawn is not None:
        bounds, drawn = drawn, None
    return Estimate(rating, *bounds, drawn, coefficients, imagined)


def _of_ties(link: Link, at: Floats, covariance: Floats, options: RateOptions) -> tuple[Coefficient, ...]:
    if not link.has_ties:
        return ()
    half = z(options.level) * float(np.sqrt(covariance[-1, -1]))
    tie = float(at[-1])
    return (Coefficient("ties", tie, tie - half, tie + half),)


def _newman(counts: Counts, battles: Battles | None, options: RateOptions) -> Estimate:
    """Newman 2023 (arXiv:2207.00076) is Davidson's model with another name for strength: e to its logarithm."""
    found = _likeliest(LINKS["davidson"], counts, options.with_(ties="davidson"))
    pairs = Pairs.of(counts, options.pair_votes)
    usual = not found.imagined and pairs.n[:, 2].any() and pairs.n[:, :2].any()
    scale = newman_scale(pairs) if usual else 1.0

    def strengths(rating: Floats) -> Floats:
        return np.asarray(scale * np.exp((rating - 1000) / POINTS))

    drawn = None if found.bootstrap is None else (strengths(found.bootstrap[0]), strengths(found.bootstrap[1]))
    rating, lower, upper = (strengths(each) for each in (found.rating, found.lower, found.upper))
    return Estimate(rating, lower, upper, drawn, found.coefficients, found.imagined)


def _elo(counts: Counts, battles: Battles | None, options: RateOptions) -> Estimate:
    """Bounds come from resamples whatever is asked: no curvature belongs to ratings that follow an order."""
    assert battles is not None
    kept = np.array([battles.models.index(name) for name in counts.models])
    rating = elo(battles, options.k)[kept]
    samples = elo_resampled(battles, options.k, options.resamples, options.seed)[:, kept]
    if options.anchors:
        fixed, value = anchored(counts.models, options.anchors)
        rating, samples = ratings(rating, fixed, value, 1.0), ratings(samples, fixed, value, 1.0)
    return Estimate(rating, *middle(samples, options.level))


def _win_rate(counts: Counts, battles: Battles | None, options: RateOptions) -> Estimate:
    pairs = Pairs.of(counts)

    def draw() -> Floats:
        return win_rate_resampled(pairs, options.resamples, options.seed)

    return _bounded(win_rate(pairs), win_rate_bounds(pairs, options.level), draw, options)


METHODS = {
    "bt": Method("Bradley–Terry", _by_counts("half-wins"), takes=frozenset({"style", "covariates", "reweighted"})),
    "bt-ties": Method("Bradley–Terry with ties", _by_counts("ties"), takes=frozenset({"reweighted"})),
    "elo": Method("Online Elo", _elo, needs_battles=True, has_curvature=False),
    "newman": Method("Newman", _newman, has_anchors=False, takes=frozenset({"reweighted"})),
    "win-rate": Method("Average win rate", _win_rate, has_anchors=False, has_curvature=False),
}
