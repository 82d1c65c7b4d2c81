"""Five million votes to a board, each time in a fresh process, from a columnar log; arena-rank in turns.

    python benchmarks/arena/ratings.py [--battles N] [--models N] [--rounds N] [--arena-rank PYTHON] [--json FILE]

What is timed is a process from its start to its end: imports, reading, counting, ratings and both intervals. PYTHON is
an interpreter that has arena-rank; it reads the same columns as numbers from a file of NumPy's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

_READ = """
import sys, time
import numpy as np
from camelid.arena.battles import Battles
from camelid.arena.ratings import Counts, RateOptions, rate, rate_counts
def battles(path):
    kept = np.load(path, mmap_mode="r")
    n = len(kept)
    names = tuple(f"model {k:03d}" for k in range(int(sys.argv[2])))
    unsaid = np.broadcast_to(np.float64(np.nan), n)
    return Battles(names, kept["a"], kept["b"], kept["winner"], unsaid, np.broadcast_to(np.int32(-1), n))
"""
_CASES = {
    "ratings, sandwich and 100 resamples": 'rate(battles(sys.argv[1]), RateOptions(intervals="both"))',
    "the same with ties of their own": 'rate(battles(sys.argv[1]), RateOptions(method="bt-ties", intervals="both"))',
    "Newman": 'rate(battles(sys.argv[1]), RateOptions(method="newman"))',
    "style control, four columns": """
from dataclasses import replace
rows = battles(sys.argv[1])
x = np.load(sys.argv[3], mmap_mode="r")
names = ("tokens", "headers", "lists", "bold")
rate(replace(rows, numbers={name: x[k] for k, name in enumerate(names)}), RateOptions(style=True))
""",
}
_OPENED = """
from camelid.arena.logs import open_battles
from camelid.arena.ratings import RateOptions, rate
import sys
from pathlib import Path
rate(open_battles(Path(sys.argv[4])), RateOptions(intervals="both"))
"""
_SAVED = """
from pathlib import Path
from camelid.arena.logs import save_battles
save_battles(battles(sys.argv[1]), Path(sys.argv[3]))
"""
_VOTE = """
counts = Counts.of(battles(sys.argv[1]))
rate_counts(counts)
times = []
for k in range(50):
    start = time.perf_counter()
    counts.add(k % 7, 8 + k % 5, k % 4)
    rate_counts(counts)
    times.append(time.perf_counter() - start)
print(sorted(times)[24], max(times))
"""
_ARENA_RANK = """
import sys
import numpy as np, pandas as pd
from arena_rank.models.bradley_terry import BradleyTerry
from arena_rank.utils.data_utils import PairDataset
kept = np.load(sys.argv[1])
names = np.array(["model_a", "model_b", "tie", "both_bad"])
frame = pd.DataFrame({"model_a": kept["a"], "model_b": kept["b"], "winner": names[kept["winner"]]})
data = PairDataset.from_pandas(frame)
BradleyTerry(n_competitors=len(data.competitors)).compute_ratings_and_cis(data)
"""


def main() -> None:
    """Draw the log, run each case in turn, print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--battles", type=int, default=5_000_000)
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arena-rank", metavar="PYTHON")
    parser.add_argument("--json", type=Path)
    choices = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log, columns, whole = (str(Path(folder, name)) for name in ("log.npy", "columns.npy", "log.battles"))
        _draw(choices.battles, choices.models, log, columns)
        cases = {name: [sys.executable, "-c", _READ + code] for name, code in _CASES.items()}
        if _save_whole(log, choices.models, whole):
            cases["ratings and both, from camelid's own .battles"] = [sys.executable, "-c", _OPENED]
        if choices.arena_rank:
            cases["arena-rank: ratings and sandwich"] = [choices.arena_rank, "-c", _ARENA_RANK]
        times: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(choices.rounds):
            for name, command in cases.items():
                start = time.perf_counter()
                subprocess.run([*command, log, str(choices.models), columns, whole], check=True)
                times[name].append(time.perf_counter() - start)
        for name, each in times.items():
            print(f"{name:<48} {median(each):7.2f} s  ({min(each):.2f} to {max(each):.2f})")
        vote = [sys.executable, "-c", _READ + _VOTE, log, str(choices.models)]
        middle, most = map(float, subprocess.run(vote, check=True, capture_output=True, text=True).stdout.split())
        print(f"{'one vote more, board anew':<48} {middle * 1000:7.1f} ms (at most {most * 1000:.1f})")
    if choices.json:
        found = {"seconds": times, "vote_ms": middle * 1000, "machine": os.uname().nodename}
        choices.json.write_text(json.dumps(found, indent=2) + "\n")


def _draw(n: int, m: int, log: str, columns: str) -> None:
    """A fifth ties, strengths of a spread as the Chatbot Arena's has."""
    rng = np.random.default_rng(0)
    strength = rng.normal(0, 0.6, m)
    rows = np.empty(n, dtype=[("a", "<i4"), ("b", "<i4"), ("winner", "i1")])
    rows["a"] = rng.integers(0, m, n)
    rows["b"] = (rows["a"] + rng.integers(1, m, n)) % m
    won = rng.random(n) < 1 / (1 + np.exp(strength[rows["b"]] - strength[rows["a"]]))
    rows["winner"] = np.where(rng.random(n) < 0.2, 2, np.where(won, 0, 1))
    np.save(log, rows)
    np.save(columns, np.stack([rng.exponential(size, (n, 2)).round() for size in (300, 2, 5, 4)]))


def _save_whole(log: str, m: int, path: str) -> bool:
    """The same as camelid's columnar log; False where this camelid has none."""
    try:
        from camelid.arena.logs import save_battles
    except ImportError:
        return False
    code = _READ + _SAVED
    subprocess.run([sys.executable, "-c", code, log, str(m), path], check=True)
    return save_battles is not None


if __name__ == "__main__":
    main()
