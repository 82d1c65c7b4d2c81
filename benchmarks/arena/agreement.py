"""How far GPT-3's and GPT-4's votes agree with people's on LLMFAO, and what style does to people's votes.

python benchmarks/arena/agreement.py FOLDER     # with LLMFAO's crowd-, gpt3- and gpt4-crowd-comparisons.csv
"""

from __future__ import annotations

import sys
from pathlib import Path

from camelid.arena.judging.agreement import Estimate, agreement, blind_votes
from camelid.arena.logs import read_battles, read_texts
from camelid.arena.ratings import RateOptions, rate
from camelid.arena.ratings.style import add_columns


def main(folder: Path) -> None:
    logs = {name: folder / f"{name}crowd-comparisons.csv" for name in ("", "gpt3-", "gpt4-")}
    votes = {name: blind_votes(path) for name, path in logs.items()}
    for title, one, two in (
        ("people, people", "", None),
        ("people, GPT-3", "", "gpt3-"),
        ("people, GPT-4", "", "gpt4-"),
        ("GPT-3, GPT-4", "gpt3-", "gpt4-"),
    ):
        for ties in (True, False):
            found = agreement(votes[one], None if two is None else votes[two], ties)
            figures = (found.per_vote, found.per_pair, found.kappa, found.alpha)
            print(
                f"{title:15} {found.setup} units {found.units:4} pairs {found.pairs:6}", *map(said, figures), sep="  "
            )
    people = logs[""]
    board = rate(add_columns(read_battles([people]), read_texts([people])), RateOptions(style=True))
    for each in board.coefficients:
        print(f"{each.name:8} {each.value:+.3f} ({each.lower:+.3f} to {each.upper:+.3f})")


def said(value: Estimate) -> str:
    return f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
