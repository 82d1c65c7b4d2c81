"""How often a reward model agrees with people who voted on models' answers, as LLMFAO's voters did (ties left out).

    PYTHONPATH=. python benchmarks/rlhf/reward_votes.py runs-hh/hh/reward LLMFAO [--picture votes.png]

LLMFAO is a folder with prompts.jsonl, results.jsonl and crowd-comparisons.csv. Each vote counts once. Votes on the same
prompt are no independent draws, so the interval is a bootstrap over prompts (95 %, percentiles); Wilson's, which takes
votes as independent, stands beside it and is too narrow. For comparison: how often the longer answer won. An answer
longer than the model's context is left out and counted.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.rlhf.calibration import draw
from camelid.engine.reward import RewardModel
from camelid.evals.agreement import Judged, agreement, wilson
from camelid.hub.store import resolve
from camelid.tokens.templates.message import Message

Key = tuple[int, str]
"""Prompt and model."""
DRAWS = 10_000


class Vote(NamedTuple):
    """What somebody preferred."""

    prompt: int
    better: str
    worse: str


def read_votes(folder: Path, n_prompts: int | None) -> tuple[list[Vote], int]:
    """Votes on the first so many prompts, and how many ties there were."""
    with (folder / "crowd-comparisons.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    first = sorted({int(row["prompt"]) for row in rows})[:n_prompts]
    rows = [row for row in rows if int(row["prompt"]) in first]
    others = {"left": "right", "right": "left"}
    decided = [row for row in rows if row["winner"] in others]
    votes = [Vote(int(row["prompt"]), row[row["winner"]], row[others[row["winner"]]]) for row in decided]
    return votes, len(rows) - len(decided)


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def rewards_of(model: RewardModel, prompts: Mapping[int, str], answers: Mapping[Key, str]) -> dict[Key, float]:
    """The reward of each answer that fits into the context."""
    ids = {
        key: model.ids([Message("user", prompts[key[0]]), Message("assistant", text)]) for key, text in answers.items()
    }
    fitting = {key: each for key, each in ids.items() if len(each) <= model.context}
    return dict(zip(fitting, model.scores(fitting.values()), strict=True))


def interval(votes: Sequence[Vote], agrees: Callable[[Vote], bool], seed: int = 0) -> list[float]:
    """95 % of what comes of prompts drawn anew."""
    numbers = sorted({vote.prompt for vote in votes})
    counts = {number: [0, 0] for number in numbers}
    for vote in votes:
        counts[vote.prompt][0] += agrees(vote)
        counts[vote.prompt][1] += 1
    table = np.array([counts[number] for number in numbers])
    drawn = np.random.default_rng(seed).integers(0, len(numbers), (DRAWS, len(numbers)))
    right, n = table[drawn].sum(1).T
    return [float(each) for each in np.quantile(right / n, (0.025, 0.975))]


def share(votes: Sequence[Vote], agrees: Callable[[Vote], bool]) -> dict[str, Any]:
    """How often, with both intervals."""
    n_right = sum(agrees(vote) for vote in votes)
    return {
        "share": n_right / len(votes),
        "over_prompts": interval(votes, agrees),
        "wilson": wilson(n_right, len(votes)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("votes", type=Path)
    parser.add_argument("--picture", type=Path, help="the calibration, as .png, .svg or .pdf")
    parser.add_argument("--prompts", type=int, help="only the first so many prompts")
    given = parser.parse_args()
    votes, ties = read_votes(given.votes, given.prompts)
    chosen = {vote.prompt for vote in votes}
    prompts = {row["id"]: row["text"] for row in read_lines(given.votes / "prompts.jsonl")}
    answers = {(row["prompt"], row["name"]): row["result"] for row in read_lines(given.votes / "results.jsonl")}
    answers = {key: text for key, text in answers.items() if key[0] in chosen}
    rewards = rewards_of(RewardModel.open(resolve(given.model)), prompts, answers)
    judged = [vote for vote in votes if all((vote.prompt, name) in rewards for name in (vote.better, vote.worse))]

    def reward(vote: Vote) -> tuple[float, float]:
        return rewards[vote.prompt, vote.better], rewards[vote.prompt, vote.worse]

    def length(vote: Vote) -> tuple[int, int]:
        return len(answers[vote.prompt, vote.better]), len(answers[vote.prompt, vote.worse])

    calibration = agreement([Judged(None, *reward(vote)) for vote in judged]).as_json()
    found = {
        "votes": len(judged),
        "ties_left_out": ties,
        "too_long": len(votes) - len(judged),
        "answers": len(rewards),
        "reward_model": share(judged, lambda vote: reward(vote)[0] > reward(vote)[1]),
        "longer_answer": share(judged, lambda vote: length(vote)[0] > length(vote)[1]),
        "calibration_error": calibration["calibration_error"],
        "bins": calibration["bins"],
    }
    if given.picture is not None:
        draw({"LLMFAO": found}, given.picture)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
