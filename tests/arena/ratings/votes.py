"""Votes for tests: from tallies, at random, and LLMFAO's where CAMELID_TEST_DATA is."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from camelid.arena.battles import UNKNOWN, Battles

CHAIN = [("A", "B", 2, 0, 3), ("A", "D", 1, 0, 4), ("B", "C", 5, 0, 3), ("C", "D", 1, 0, 3)]  # arena-rank's own test
TIES = [("A", "B", 6, 2, 2), ("B", "C", 5, 2, 3), ("A", "C", 7, 1, 2)]


def tallied(rows: list[tuple[str, str, int, int, int]]) -> Battles:
    """From (first, second, first's wins, ties, second's wins)."""
    a, b, winner = [], [], []
    for first, second, won, tied, lost in rows:
        a += [first] * (won + tied + lost)
        b += [second] * (won + tied + lost)
        winner += ["model_a"] * won + ["tie"] * tied + ["model_b"] * lost
    return Battles.of(a, b, winner)


def drawn(rng: np.random.Generator, m: int, n: int, tie: float = 0.2) -> Battles:
    """n votes between m models of random strengths, some of them ties of either kind."""
    strength = rng.normal(0, 0.7, m)
    a = rng.integers(0, m, n).astype(np.int32)
    b = ((a + rng.integers(1, m, n)) % m).astype(np.int32)
    won = rng.random(n) < 1 / (1 + np.exp(strength[b] - strength[a]))
    winner = np.where(rng.random(n) < tie, rng.integers(2, 4, n), np.where(won, 0, 1)).astype(np.int8)
    names = tuple(f"model {k:02d}" for k in range(m))
    return Battles(names, a, b, winner, np.arange(n, dtype=np.float64), np.full(n, UNKNOWN, np.int32))


def data(*parts: str) -> Path:
    """A file of the real data; the test is skipped where it is absent."""
    path = Path(os.environ.get("CAMELID_TEST_DATA", "/nowhere"), *parts)
    if not path.exists():
        pytest.skip(f"CAMELID_TEST_DATA has no {'/'.join(parts)}")
    return path


def llmfao() -> Battles:
    """8,931 votes of people (CC BY 4.0, dustalov/llmfao)."""
    with data("llmfao", "crowd-comparisons.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = {"left": "model_a", "right": "model_b", "tie": "tie"}
    winner = [names[row["winner"]] for row in rows]
    return Battles.of([row["left"] for row in rows], [row["right"] for row in rows], winner)


def golden(kind: str) -> dict[str, float]:
    """What evalica found by one of its algorithms (its own file of expected values)."""
    with data("ratings", "llmfao-golden.csv").open(encoding="utf-8", newline="") as file:
        return {row["item"]: float(row["score"]) for row in csv.DictReader(file) if row["algorithm"] == kind}
