"""Attacks on a board, to see what a defence is worth: votes that lift one model, by voters who pretend to be many.

Min, Pang, Du, Liu, Lin 2025 (Improving your model ranking on Chatbot Arena by vote rigging, ICML, arXiv:2501.17858):
votes in battles of the target alone are slow; `omnipresent` ones use every battle. All attackers here know which model
answered, the worst case.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camelid.arena.battles import TIE, UNKNOWN, A, B, Battles
from camelid.arena.fraud.influence import Fit
from camelid.arena.ratings.counts import Counts, Pairs
from camelid.errors import OptionError, one_of

SCRIPT_TARGET = 4  # every so-manieth vote of a script is for the target
LOOKS = 20  # how often omnipresent voters look at the board
Ints = NDArray[np.int64]
Votes = tuple[Ints, Ints, Ints, Ints]  # side A, side B, winner, prompt


def fresh(battles: Battles, target: int, n: int, each: int, generator: np.random.Generator) -> Votes:
    """New voters of few votes, all in battles of the target, all for it."""
    return *_for_target(battles, target, n, generator), _prompts(battles, n, generator)


def cloned(battles: Battles, target: int, n: int, each: int, generator: np.random.Generator) -> Votes:
    """One script under many names: votes of an honest voter as they are, and a quarter for the target."""
    known = battles.voter[battles.voter != UNKNOWN]
    votes = np.bincount(known, minlength=1)
    rows = np.arange(len(battles))
    if len(known) and votes.max() >= each:
        rows = np.flatnonzero(battles.voter == generator.choice(np.flatnonzero(votes >= each)))
    n_target = -(-each // SCRIPT_TARGET)
    rows = generator.choice(rows, each - n_target, replace=len(rows) < each)
    a, b, winner = _for_target(battles, target, n_target, generator)
    prompt = battles.prompt[rows] if len(battles.prompt) else np.full(len(rows), UNKNOWN)
    script = (
        np.r_[battles.a[rows], a],
        np.r_[battles.b[rows], b],
        np.r_[battles.winner[rows], winner],
        np.r_[prompt, _prompts(battles, n_target, generator)],
    )
    place = generator.permutation(each)[np.arange(n) % each]
    a, b, winner, prompt = (column[place].astype(np.int64) for column in script)
    return a, b, winner, prompt


def omnipresent(battles: Battles, target: int, n: int, each: int, generator: np.random.Generator) -> Votes:
    """Votes in battles as they come, each as it lifts the target most towards the model above it, by its influence."""
    rows = generator.integers(len(battles), size=n)
    a, b = battles.a[rows].astype(np.int64), battles.b[rows].astype(np.int64)
    winner, counts, strength = np.full(n, TIE, np.int64), Counts.of(battles), None
    size = -(-n // LOOKS)
    for start in range(0, n, size):
        fit = Fit.of(Pairs.of(counts), strength)
        strength = fit.strength
        row = fit.inverse[target] - fit.inverse[_rival(strength, target)]
        for k in range(start, min(start + size, n)):
            winner[k] = A if row[a[k]] >= row[b[k]] else B
            counts.add(a[k], b[k], winner[k])
    return a, b, winner, _prompts(battles, n, generator)


@dataclass(frozen=True)
class Attack:
    """A way to rig, and how many votes each of its voters casts if nothing else is said."""

    votes: Callable[[Battles, int, int, int, np.random.Generator], Votes]
    each: int


ATTACKS = {"fresh": Attack(fresh, 5), "cloned": Attack(cloned, 40), "omnipresent": Attack(omnipresent, 200)}


def rig(battles: Battles, target: str, n: int, attack: str, *, each: int | None = None, seed: int = 0) -> Battles:
    """The log with n votes more after its end, of voters named `rigger 1` …, who vote in turns at the log's own pace.

    Args:
        battles: the log; models, pairs and questions of the attack are of it.
        target: the model to be lifted.
        n: votes to add.
        attack: name in `ATTACKS`.
        each: votes of each rigger; what is usual for the attack if left out.
        seed: of the generator.

    Raises:
        OptionError: no such attack or model; nothing to add; an empty log.
    """
    if attack not in ATTACKS:
        raise OptionError(f"attack: {attack!r}; {one_of(attack, ATTACKS)}", param="attack")
    if target not in battles.models:
        raise OptionError(f"target: {target!r}; {one_of(target, battles.models or ('none',))}", param="target")
    each = ATTACKS[attack].each if each is None else each
    if n < 1 or each < 1 or not len(battles):
        raise OptionError(f"attack: {n} votes, {each} of each voter, on a log of {len(battles)}: at least 1 of each")
    generator = np.random.default_rng(seed)
    a, b, winner, prompt = ATTACKS[attack].votes(battles, battles.models.index(target), n, each, generator)
    voter = np.arange(n) // each
    names = tuple(f"rigger {k}" for k in range(1, int(voter.max()) + 2))
    added: dict[str, Any] = {"a": a, "b": b, "winner": winner, "voter": voter + len(battles.voters), "prompt": prompt}
    added["time"] = _times(battles, n, generator)
    joined = {
        name: np.r_[column, added[name].astype(column.dtype)]
        for name in added
        if len(column := getattr(battles, name)) == len(battles)
    }
    return replace(battles, **joined, **_unsaid(battles, n), voters=battles.voters + names)


def _times(battles: Battles, n: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """(n,) times after the log's end, uneven, in no order."""
    time = np.sort(battles.time)
    gap = max(10.0, float(np.median(np.diff(time)))) if len(time) > 1 else 10.0
    return generator.permutation(time[-1] + gap * np.cumsum(generator.uniform(0.5, 1.5, n)))


def _unsaid(battles: Battles, n: int) -> dict[str, Any]:
    """The columns that an attack says nothing about, longer by n."""
    longer: dict[str, Any] = {}
    for name, nothing in (("language", UNKNOWN), ("turns", 0)):
        column = getattr(battles, name)
        longer[name] = np.r_[column, np.full(n, nothing, column.dtype)] if len(column) == len(battles) else column
    if len(battles.ids) == len(battles):
        longer["ids"] = np.r_[battles.ids, [f"rigged {k}" for k in range(1, n + 1)]]
    longer["numbers"] = {
        name: np.concatenate([column, np.full((n, *column.shape[1:]), np.nan)])
        for name, column in battles.numbers.items()
    }
    return longer


def _for_target(battles: Battles, target: int, n: int, generator: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """(a, b, winner) of n battles of the target, against models as often as these are in the log; it wins all."""
    met = np.bincount(np.r_[battles.a, battles.b], minlength=len(battles.models)).astype(float)
    met[target] = 0
    rival = generator.choice(len(met), size=n, p=met / met.sum())
    left = generator.integers(2, size=n) == 0
    return np.where(left, target, rival), np.where(left, rival, target), np.where(left, A, B)


def _prompts(battles: Battles, n: int, generator: np.random.Generator) -> Ints:
    """(n,) questions of the log."""
    if not len(battles.prompt):
        return np.full(n, UNKNOWN)
    return battles.prompt[generator.integers(len(battles), size=n)].astype(np.int64)


def _rival(strength: NDArray[np.float64], target: int) -> int:
    """The model just above the target; the second, where the target is first."""
    order = np.argsort(-strength)
    place = int(np.flatnonzero(order == target)[0])
    return int(order[place - 1] if place else order[1])
