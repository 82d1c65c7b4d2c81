"""Do intervals hold the truth as often as they say? Simulated boards of known strengths, each rated anew.

python benchmarks/arena/coverage.py [--boards 1000] [--models 12] [--votes 4000] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from camelid.arena.pairing import Rules
from camelid.arena.ratings import RateOptions, rate
from camelid.arena.simulate import simulate


@dataclass(frozen=True)
class Case:
    """How votes are made, and how they are rated."""

    name: str
    options: RateOptions
    ties: float = 0.0
    outcome: str = "half-wins"
    active: float = 0.0
    rare: float = 1.0  # weight of the last model, which is as a fresh one


CASES = (
    Case("bt, no ties", RateOptions()),
    Case("bt, ties as half wins", RateOptions(), 0.25),
    Case("bt, active sampling", RateOptions(), 0.25, active=0.9),
    Case("bt, one model in a hundredth of battles", RateOptions(), 0.25, rare=0.06),
    Case("bt, re-weighted", RateOptions(reweighted=True), 0.25, rare=0.3),
    Case("bt, 200 resamples", RateOptions(intervals="bootstrap", resamples=200), 0.25),
    Case("bt-ties, davidson", RateOptions(method="bt-ties"), 0.3, "davidson"),
    Case("bt-ties, davidson, active sampling", RateOptions(method="bt-ties"), 0.3, "davidson", 0.9),
    Case("bt-ties, rao-kupper", RateOptions(method="bt-ties", ties="rao-kupper"), 0.3, "rao-kupper"),
)


@dataclass(frozen=True)
class Coverage:
    """Share of intervals that held the truth; of the rarest model's; their mean half width in points."""

    all: float
    last: float
    half: float


def cover(case: Case, boards: int, m: int, votes: int) -> Coverage:
    """Over many boards, each of its own strengths."""
    held, half = np.zeros((boards, m)), 0.0
    names = [f"model {k:02d}" for k in range(m)]
    rules = Rules({name: case.rare if name == names[-1] else 1.0 for name in names})
    for board in range(boards):
        truth = np.random.default_rng([board, 1]).normal(0, 100, m)
        battles = simulate(
            dict(zip(names, truth.tolist(), strict=True)),
            votes,
            ties=case.ties,
            outcome=case.outcome,
            rules=rules,
            active=case.active,
            seed=board,
        )
        truth += 1000 - truth.mean()
        rows = sorted(rate(battles, case.options.with_(seed=board)).rows, key=lambda row: row.name)
        held[board] = [row.lower <= value <= row.upper for row, value in zip(rows, truth, strict=True)]
        half += sum(row.upper - row.lower for row in rows) / (2 * m * boards)
    return Coverage(float(held.mean()), float(held[:, -1].mean()), half)


def main() -> None:
    """Print a row for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boards", type=int, default=1000)
    parser.add_argument("--models", type=int, default=12)
    parser.add_argument("--votes", type=int, default=4000)
    parser.add_argument("--json", type=Path)
    choices = parser.parse_args()
    found = {}
    for case in CASES:
        each = cover(case, choices.boards, choices.models, choices.votes)
        found[case.name] = asdict(each)
        print(f"{case.name:<42} {each.all:6.2%}  last model {each.last:6.2%}  ± {each.half:.1f} points", flush=True)
    if choices.json:
        choices.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
