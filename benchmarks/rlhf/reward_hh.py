"""A reward model from real preferences: how often it agrees with people before and after, and how well it knows it.

It takes Anthropic's HH pairs (a .jsonl.gz with `chosen` and `rejected`), trains on all but the last 312, and measures
on those: before (a head of random numbers) and after. Both calibrations go into OUT/calibration.png.

    PYTHONPATH=. python benchmarks/rlhf/reward_hh.py harmless-base-test.jsonl.gz --out runs-hh [--set reward.lr=…]
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.rlhf.calibration import draw

HELD_OUT = 312
RECIPE = """
name = "hh"
base = {model}
stages = ["reward"]

[reward]
pairs = 32
context = 1024
lr = 2e-5
margins = "none"
save_every = 0
log_to = []

[[reward.data.sources]]
name = "hh"
kind = "jsonl"
path = "train.jsonl"
"""


def camelid(*arguments: str) -> str:
    found = subprocess.run([sys.executable, "-m", "camelid", *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return found.stdout


def agrees(model: str, file: Path) -> dict[str, Any]:
    found = json.loads(camelid("reward", model, "--file", str(file), "--json"))
    return {name: found[name] for name in ("n", "accuracy", "low", "high", "calibration_error", "bins", "left_out")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--model", default="smollm2:135m-instruct")
    parser.add_argument("--out", type=Path, default=Path("runs-hh"))
    parser.add_argument("--first", type=int, help="train on so many pairs only")
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    lines = gzip.decompress(given.pairs.read_bytes()).decode().splitlines()
    held = given.out / "held-out.jsonl"
    held.write_text("\n".join(lines[-HELD_OUT:]))
    (given.out / "train.jsonl").write_text("\n".join(lines[:-HELD_OUT][: given.first]))
    recipe = given.out / "hh.toml"
    recipe.write_text(RECIPE.format(model=json.dumps(given.model)))
    changes = [part for change in given.set for part in ("--set", change)]
    still = ("reward.steps=1", "reward.warmup_steps=0", "reward.warmup_share=0", "reward.lr=1e-30")
    as_it_begins = [part for change in still for part in ("--set", change)]
    camelid("train", str(recipe), "--out", str(given.out / "before"), *changes, *as_it_begins, "--json")
    found = {"before": agrees(str(given.out / "before" / "hh" / "reward"), held)}
    started = time.perf_counter()
    camelid("train", str(recipe), "--out", str(given.out), *changes, "--json")
    found["seconds"] = time.perf_counter() - started
    found["after"] = agrees(str(given.out / "hh" / "reward"), held)
    draw({name: found[name] for name in ("before", "after")}, given.out / "calibration.png")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
