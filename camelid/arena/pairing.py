"""Which two models meet: by FastChat's weights, or where a vote tells most; each pair's chance is exact and said."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Self

import numpy as np
from numpy.typing import NDArray

from camelid.arena.battles import TIE, A, Battles
from camelid.errors import OptionError

BOOST = 5.0  # of a boosted model's weight as the first, in FastChat
CHANCE = "chance"  # the column of `Battles.numbers` that holds `Drawn.chance`
Weights = dict[str, float]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Rules:
    """How often whom meets whom, by name.

    Attributes:
        weights: sampling weight of each model; a model that is not here is never drawn.
        boosted: drawn `BOOST` times as often as the first.
        outage: not drawn at all for now.
        targets: rivals of a model that share half of the total weight among them.
        strict: patterns, as `llama-*`; a model that is listed meets only models that match one of its own.
        apart: two models that never meet.
    """

    weights: Mapping[str, float]
    boosted: Collection[str] = ()
    outage: Collection[str] = ()
    targets: Mapping[str, Sequence[str]] = field(default_factory=dict)
    strict: Mapping[str, Sequence[str]] = field(default_factory=dict)
    apart: Collection[tuple[str, str]] = ()

    def __post_init__(self) -> None:
        """Raises OptionError: a weight that is negative or no number."""
        for name, weight in self.weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise OptionError(f"weight of {name}: must be 0 or more, got {weight}", param="weights")


@dataclass(frozen=True)
class Drawn:
    """Who answers on side A and who on side B, and the chance with which these two were drawn, on whatever sides."""

    a: str
    b: str
    chance: float


def plain_weight(rules: Rules, name: str) -> float:
    """Of a model as a rival: 0 in an outage."""
    return 0.0 if name in rules.outage else float(rules.weights.get(name, 0.0))


def first_weights(rules: Rules) -> Weights:
    """Of each model as the first: plain weight, boosted × `BOOST`."""
    return {name: plain_weight(rules, name) * (BOOST if name in rules.boosted else 1.0) for name in rules.weights}


def rival_weights(rules: Rules, first: str) -> Weights:
    """Of each model as the rival of `first`; a battle target gets half of the total weight by the number of targets."""
    targets = rules.targets.get(first, ())
    bonus = 0.5 * sum(first_weights(rules).values()) / len(targets) if targets else 0.0
    weights = {}
    for name in rules.weights:
        plain = plain_weight(rules, name)
        if plain > 0 and _may_meet(rules, first, name):
            weights[name] = bonus if name in targets else plain
    return weights


def _may_meet(rules: Rules, first: str, rival: str) -> bool:
    """Whether the lists allow it; no model meets itself by being drawn twice."""
    patterns = rules.strict.get(first)
    if patterns is not None and not any(fnmatchcase(rival, pattern) for pattern in patterns):
        return False
    return rival != first and (first, rival) not in rules.apart and (rival, first) not in rules.apart


def pair_chances(rules: Rules) -> dict[tuple[str, str], float]:
    """Chance of each two models, the names in order; they sum to 1. A single model meets itself.

    Raises:
        OptionError: no model can be drawn; one that can be has no rival.
    """
    firsts = {name: weight for name, weight in first_weights(rules).items() if weight > 0}
    if not firsts:
        raise OptionError("no model can be drawn: every weight is 0, or every model has an outage", param="weights")
    if len(firsts) == 1:
        return dict.fromkeys([(name, name) for name in firsts], 1.0)
    total = sum(firsts.values())
    chances: dict[tuple[str, str], float] = {}
    for first, weight in firsts.items():
        rivals = rival_weights(rules, first)
        if not rivals:
            raise OptionError(f"{first}: no model may meet it; see strict, apart and outage", param="strict")
        among = sum(rivals.values())
        for rival, share in rivals.items():
            pair = (min(first, rival), max(first, rival))
            chances[pair] = chances.get(pair, 0.0) + weight / total * share / among
    return chances


@dataclass(frozen=True)
class Tally:
    """Votes of each pair of M models.

    Attributes:
        models: (M,) names.
        votes: (M, M) symmetric counts.
        score: (M, M) wins of the row against the column, a tie counting a half.
    """

    models: tuple[str, ...]
    votes: Matrix
    score: Matrix

    @classmethod
    def of(cls, battles: Battles) -> Self:
        """Of all votes; both kinds of tie count a half."""
        m = len(battles.models)
        won = np.where(battles.winner >= TIE, 0.5, battles.winner == A)
        score = np.zeros((m, m))
        np.add.at(score, (battles.a, battles.b), won)
        np.add.at(score, (battles.b, battles.a), 1 - won)
        return cls(battles.models, score + score.T, score)


def vote_gain(votes: Matrix, score: Matrix) -> Matrix:
    """By how much one more vote narrows what is known of a pair: √(v/n) − √(v/(n+1)), with v a vote's variance.

    Chiang et al. 2024 (arXiv:2403.04132, section 5). Each pair begins with one win each way, so that v is never 0.
    """
    n = votes + 2
    p = (score + 1) / n
    return np.sqrt(p * (1 - p)) * (1 / np.sqrt(n) - 1 / np.sqrt(n + 1))


def active_chances(
    chances: Mapping[tuple[str, str], float], tally: Tally, share: float
) -> dict[tuple[str, str], float]:
    """`share` of all draws goes where a vote tells most, by `vote_gain` among the pairs that `chances` allows.

    The rest is drawn as before, so no pair's chance falls below (1 − share) of what it was, and 1/chance stays bounded.

    Raises:
        OptionError: a share that is not from 0 to 1.
    """
    if not 0 <= share <= 1:
        raise OptionError(f"active: must be from 0 to 1, got {share}", param="active")
    place = {name: number for number, name in enumerate(tally.models)}
    pairs = list(chances)
    votes, score = np.zeros(len(pairs)), np.zeros(len(pairs))
    for i, (a, b) in enumerate(pairs):
        if a in place and b in place:
            votes[i], score[i] = tally.votes[place[a], place[b]], tally.score[place[a], place[b]]
    gain = vote_gain(votes, score)
    gain /= gain.sum()
    return {pair: (1 - share) * chances[pair] + share * float(gain[i]) for i, pair in enumerate(pairs)}


def draw(chances: Mapping[tuple[str, str], float], generator: np.random.Generator) -> Drawn:
    """A pair by its chance; sides are swapped with probability ½."""
    pairs = list(chances)
    odds = np.fromiter(chances.values(), float, len(pairs))
    pair = pairs[int(generator.choice(len(pairs), p=odds / odds.sum()))]
    a, b = pair if generator.integers(2) == 0 else pair[::-1]
    return Drawn(a, b, chances[pair])


def draw_pair(rules: Rules, generator: np.random.Generator, tally: Tally | None = None, active: float = 0.0) -> Drawn:
    """What a new battle asks for: a pair by the rules; with a tally, `active` of all draws go where a vote tells most.

    Raises:
        OptionError: as `pair_chances` and `active_chances`.
    """
    chances = pair_chances(rules)
    if tally is not None and active:
        chances = active_chances(chances, tally, active)
    return draw(chances, generator)
