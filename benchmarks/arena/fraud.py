"""Injected votes on LLMFAO's 8,931: what they move, what the defence finds, and whom it names wrongly.

    python benchmarks/arena/fraud.py FOLDER [--target 'LLaMA-2-Chat (7B)'] [--repeats 3] [--honest 100] [--json FILE]

FOLDER holds `crowd-comparisons.csv`. `--honest`: so many logs with the same voters, pairs and questions, whose votes
are drawn from the board, each voter off by a taste of its own up to the one allowed: how often is anybody named?
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from camelid.arena.battles import TIE, A, B, Battles
from camelid.arena.fraud.influence import Fit, first_place, neighbours
from camelid.arena.fraud.options import FraudOptions
from camelid.arena.fraud.rigging import rig
from camelid.arena.fraud.search import Found, find_fraud
from camelid.arena.logs import read_battles
from camelid.arena.ratings import Counts, rate
from camelid.arena.ratings.counts import Pairs
from camelid.arena.ratings.links import sigmoid

ATTACKS = (("fresh", 5), ("cloned", 40), ("omnipresent", 50), ("omnipresent", 200), ("omnipresent", 343))
SHARES = (0.01, 0.05, 0.2)
TIES = 0.39  # of LLMFAO's votes


def place(battles: Battles, target: str) -> int:
    """By rating, from 1."""
    return [row.name for row in rate(battles).rows].index(target) + 1


def moved(before: Battles, after: Battles) -> float:
    """Mean number of places by which models moved."""
    places = [{row.name: k for k, row in enumerate(rate(each).rows)} for each in (before, after)]
    return float(np.mean([abs(places[0][name] - k) for name, k in places[1].items()]))


def attacked(votes: Battles, clean: Found, target: str, attack: str, each: int, share: float, seed: int) -> Any:
    """One attack and its defence, as numbers; the defended board beside that of the untouched log, defended too."""
    rigged = rig(votes, target, round(share * len(votes)), attack, each=each, seed=seed)
    found = find_fraud(rigged)
    added = np.arange(len(rigged)) >= len(votes)
    honest = {suspect.voter for suspect in found.suspects} & set(votes.voters)
    defended = rigged.take(~found.suspicious)
    riggers = len(rigged.voters) - len(votes.voters)
    return {
        "place": place(rigged, target),
        "place_defended": place(defended, target),
        "moved": moved(votes, rigged),
        "moved_defended": moved(votes.take(~clean.suspicious), defended),
        "votes_found": float(found.suspicious[added].mean()),
        "riggers": riggers,
        "riggers_named": len(found.suspects) - len(honest),
        "honest_named": len(honest),
        "honest_newly_named": len(honest - {suspect.voter for suspect in clean.suspects}),
        "honest_votes_lost": int(found.suspicious[~added].sum()),
    }


def sentence(mean: dict[str, float]) -> str:
    """Means over repeats, for people."""
    return (
        f"place {mean['place']:4.1f}, defended {mean['place_defended']:4.1f}; models move {mean['moved']:.2f} places, "
        f"defended {mean['moved_defended']:.2f}; votes found {mean['votes_found']:4.0%}, riggers named "
        f"{mean['riggers_named']:.1f} of {mean['riggers']:.0f}; honest voters named {mean['honest_named']:.1f} "
        f"(newly {mean['honest_newly_named']:.1f}), honest votes lost {mean['honest_votes_lost']:.0f}"
    )


def honest_log(votes: Battles, taste: float, seed: int) -> Battles:
    """The same ballots, filled in by voters each of whom is off the board by a taste of its own, for some models."""
    generator = np.random.default_rng(seed)
    counts = Counts.of(votes)
    strength = Fit.of(Pairs.of(counts)).strength
    lean = generator.uniform(-1, 1, (len(votes.voters), len(votes.models)))
    p = sigmoid(strength[votes.a] - strength[votes.b])
    p = np.clip(p + taste * (lean[votes.voter, votes.a] - lean[votes.voter, votes.b]) / 2, 0.01, 0.99)
    tie = 2 * TIES * np.minimum(p, 1 - p)
    drawn = generator.random(len(votes))
    winner = np.where(drawn < p - tie / 2, A, np.where(drawn < p + tie / 2, TIE, B))
    return replace(votes, winner=winner.astype(np.int8))


def show_influence(votes: Battles) -> None:
    """Which few votes would change places at the top."""
    first = first_place(votes)
    if first is not None:
        print(
            f"first place: {len(first.votes)} of {len(votes)} votes make {first.lower} first instead of {first.upper}"
        )
    for each in neighbours(votes, 10):
        if each is not None:
            print(f"  {each.upper} ({each.before:.1f} points above) and {each.lower}: {len(each.votes)} votes")


def main() -> None:
    """Print a row for each attack."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--target", default="LLaMA-2-Chat (7B)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--honest", type=int, default=100)
    parser.add_argument("--json", type=Path)
    choices = parser.parse_args()
    votes = read_battles([choices.folder / "crowd-comparisons.csv"])
    show_influence(votes)
    clean = find_fraud(votes)
    places = [place(each, choices.target) for each in (votes, votes.take(~clean.suspicious))]
    print(f"untouched: {choices.target} at place {places[0]}, defended {places[1]}")
    print(f"  {len(clean.suspects)} of {clean.voters} voters named, {clean.suspicious.sum()} votes")
    for suspect in clean.suspects:
        print(f"  voter {suspect.voter}: {'; '.join(suspect.reasons)}")
    results: dict[str, Any] = {"untouched": clean.as_json()}
    for attack, each in ATTACKS:
        for share in SHARES:
            runs = [attacked(votes, clean, choices.target, attack, each, share, k) for k in range(choices.repeats)]
            mean = {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}
            results[f"{attack}, {each} votes each, {share:.0%}"] = mean
            print(f"{attack:<11} × {each:3} {share:4.0%}: {sentence(mean)}", flush=True)
    taste = FraudOptions().taste
    alarms = [bool(find_fraud(honest_log(votes, taste, k)).suspicious.any()) for k in range(choices.honest)]
    results["honest_logs"], results["honest_alarms"] = len(alarms), sum(alarms)
    print(
        f"honest logs within taste {taste}: {sum(alarms)} of {len(alarms)} with anybody named; bound {clean.alarm:.0%}"
    )
    if choices.json:
        choices.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
