"""Votes of models whose strengths are known: what ratings and their intervals are worth is seen on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from camelid.arena.battles import TIE, UNKNOWN, A, B, Battles
from camelid.arena.pairing import CHANCE, Matrix, Rules, Tally, active_chances, pair_chances
from camelid.errors import OptionError

Column = NDArray[np.float64]
STEPS = 100  # how often active sampling looks at the votes so far
SECONDS = 60.0  # between two votes


def half_wins(difference: Column, ties: float) -> tuple[Column, Column]:
    """(chance of A, of a tie); the mean score, a tie counting a half, is Bradley–Terry's, so half wins are right."""
    p = _logistic(difference)
    tie = 2 * ties * np.minimum(p, 1 - p)
    return p - tie / 2, tie


def davidson(difference: Column, ties: float) -> tuple[Column, Column]:
    """Davidson 1970: a tie is as likely as ν√(p_A p_B); `ties` is its chance between equals, ν = 2·ties/(1 − ties)."""
    nu = 2 * ties / (1 - ties)
    root = np.exp(_natural(difference) / 2)
    total = root + 1 / root + nu
    return root / total, nu / total


def rao_kupper(difference: Column, ties: float) -> tuple[Column, Column]:
    """Rao and Kupper 1967: A wins by a margin θ; `ties` is the chance between equals, θ = (1 + ties)/(1 − ties)."""
    theta = np.log((1 + ties) / (1 - ties))
    d = _natural(difference)
    a, b = 1 / (1 + np.exp(theta - d)), 1 / (1 + np.exp(theta + d))
    return a, 1 - a - b


OUTCOMES: dict[str, Callable[[Column, float], tuple[Column, Column]]] = {
    "half-wins": half_wins,
    "davidson": davidson,
    "rao-kupper": rao_kupper,
}


def _natural(difference: Column) -> Column:
    """A difference on Elo's scale as log odds."""
    return difference * (math.log(10) / 400)


def _logistic(difference: Column) -> Column:
    return 1 / (1 + np.exp(-_natural(difference)))


def simulate(
    strengths: Mapping[str, float],
    n: int,
    *,
    ties: float = 0.0,
    outcome: str = "half-wins",
    voters: int = 0,
    rules: Rules | None = None,
    active: float = 0.0,
    seed: int = 0,
) -> Battles:
    """N votes in order of time; the same arguments give the same votes.

    Args:
        strengths: rating of each model on Elo's scale: 400 more are ten wins to one.
        n: number of votes.
        ties: chance of a tie between two equals, below 1.
        outcome: name in `OUTCOMES`: how ties come about.
        voters: number of voters, each as likely to cast any vote; 0: not said.
        rules: how pairs are drawn; every pair alike if left out.
        active: share of the draws that go where a vote tells most; `numbers["chance"]` has the chance of each draw.
        seed: of the generator.

    Raises:
        OptionError: fewer than two models, a strength that is no number, and other arguments out of range.
    """
    _check(strengths, n, ties, outcome, voters)
    generator = np.random.default_rng(seed)
    models = tuple(sorted(strengths))
    rules = rules or Rules(dict.fromkeys(models, 1.0))
    if unknown := sorted(set(rules.weights) - set(models)):
        raise OptionError(f"rules: {unknown[0]} has no strength", param="rules")
    rating = np.array([strengths[name] for name in models], float)
    a, b, chance, winner = np.zeros(n, np.int32), np.zeros(n, np.int32), np.zeros(n), np.zeros(n, np.int8)
    tally = Tally(models, np.zeros((len(models),) * 2), np.zeros((len(models),) * 2))
    even = pair_chances(rules)
    place = {name: number for number, name in enumerate(models)}
    numbered = np.array([(place[x], place[y]) for x, y in even], np.int32)
    for rows in _steps(n, active):
        chances = active_chances(even, tally, active) if active else even
        pairs, chance[rows] = _draw_many(numbered, np.fromiter(chances.values(), float), len(a[rows]), generator)
        a[rows], b[rows] = pairs[:, 0], pairs[:, 1]
        winner[rows] = _vote(rating[pairs[:, 0]] - rating[pairs[:, 1]], outcome, ties, generator)
        if active:
            _count(tally, pairs, winner[rows])
    return Battles(
        models,
        a,
        b,
        winner,
        time=SECONDS * np.arange(n, dtype=np.float64),
        voter=generator.integers(voters, size=n, dtype=np.int32) if voters else np.full(n, UNKNOWN, np.int32),
        voters=tuple(f"voter {number:0{len(str(voters))}}" for number in range(1, voters + 1)),
        numbers={CHANCE: chance},
    )


def _check(strengths: Mapping[str, float], n: int, ties: float, outcome: str, voters: int) -> None:
    """Raises OptionError for what cannot be simulated."""
    if len(strengths) < 2:
        raise OptionError(f"strengths: at least two models are needed, got {len(strengths)}", param="strengths")
    for name, strength in strengths.items():
        if not math.isfinite(strength):
            raise OptionError(f"strength of {name}: must be a number, got {strength}", param="strengths")
    if n < 1:
        raise OptionError(f"votes: must be at least 1, got {n}", param="votes")
    if not 0 <= ties < 1:
        raise OptionError(f"ties: must be from 0 to below 1, got {ties}", param="ties")
    if outcome not in OUTCOMES:
        raise OptionError(f"outcome: {outcome!r} is none of {', '.join(OUTCOMES)}", param="outcome")
    if voters < 0:
        raise OptionError(f"voters: must be 0 or more, got {voters}", param="voters")


def _steps(n: int, active: float) -> list[slice]:
    """All votes at once, or the steps between which active sampling looks."""
    size = math.ceil(n / STEPS) if active else n
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _draw_many(
    pairs: NDArray[np.int32], chances: Column, n: int, generator: np.random.Generator
) -> tuple[NDArray[np.int32], Column]:
    """(n, 2) models on sides A and B, and the chance of each pair."""
    drawn = generator.choice(len(pairs), size=n, p=chances / chances.sum())
    swapped = generator.integers(2, size=n) == 1
    sides = np.where(swapped[:, None], pairs[drawn][:, ::-1], pairs[drawn])
    return sides.astype(np.int32), chances[drawn]


def _vote(difference: Column, outcome: str, ties: float, generator: np.random.Generator) -> NDArray[np.int8]:
    """A winner for each difference of strengths."""
    a, tie = OUTCOMES[outcome](difference, ties)
    drawn = generator.random(len(difference))
    return np.where(drawn < a, A, np.where(drawn < a + tie, TIE, B)).astype(np.int8)


def _count(tally: Tally, pairs: NDArray[np.int32], winner: NDArray[np.int8]) -> None:
    """Add votes to a tally, in place."""
    won: Matrix = np.where(winner == TIE, 0.5, winner == A)
    a, b = pairs[:, 0], pairs[:, 1]
    np.add.at(tally.score, (a, b), won)
    np.add.at(tally.score, (b, a), 1 - won)
    tally.votes[:] = tally.score + tally.score.T
