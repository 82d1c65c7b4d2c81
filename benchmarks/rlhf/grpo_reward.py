"""Whether GRPO learns a reward that code checks: the default model, three seeds, the curve of each.

    python benchmarks/rlhf/grpo_reward.py [--steps 40] [--seeds 0 1 2] [--beta 0.04] [--out FOLDER]

The reward is 1 for an answer of at most 20 words (`code:most-words:20`), and 1 more for one that ends as a sentence
does (`code:ends-well`), so from 0 to 2. Prompts are questions about Python's standard library, which every machine has.
Told: the mean reward of the first and of the last five steps with its standard error over answers, the largest
divergence from the reference (k3, nats a token, limit 1), and the mean length of answers. A seed has learned where the
gain is more than five of its standard errors and the limit was kept. About ten minutes a seed on two cores; each runs
`camelid train`, so that a killed one goes on with `--out` of before. Appends a line to benchmarks/results/grpo.jsonl.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from camelid.train.report.metrics import Metrics, read_metrics

RESULTS = Path(__file__).parent.parent / "results" / "grpo.jsonl"
EDGE = 5  # steps at either end that are compared
PROMPTS, ANSWERS, LIMIT = 4, 8, 1.0

RECIPE = f"""
name = "short-{{seed}}"
seed = {{seed}}
base = {{model}}
stages = ["grpo"]

[grpo]
steps = {{steps}}
prompts_per_generation = {PROMPTS}
answers = {ANSWERS}
max_tokens = 64
context = 256
lr = {{lr}}
beta = {{beta}}
kl_limit = {LIMIT}
save_every = 10
reward = {{{{ "code:most-words:20" = 1.0, "code:ends-well" = 1.0 }}}}

[[grpo.data.sources]]
name = "questions"
kind = "docstrings"
max_documents = 400
"""


def learn(seed: int, args: argparse.Namespace, out: Path) -> Metrics:
    """Train one seed, or go on with it."""
    recipe = out / f"short-{seed}.toml"
    recipe.write_text(
        RECIPE.format(seed=seed, model=json.dumps(args.model), steps=args.steps, lr=args.lr, beta=args.beta),
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "camelid", "train", str(recipe), "--out", str(out / "runs")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return read_metrics(out / "runs" / f"short-{seed}" / "grpo")


def told(metrics: Metrics) -> dict[str, float | bool]:
    """What a curve says at both ends."""
    columns = metrics.columns
    edge = min(EDGE, len(metrics) // 2)
    rewards, deviations = columns["reward"], columns["reward_deviation"]
    first, last = sum(rewards[:edge]) / edge, sum(rewards[-edge:]) / edge
    squares = [value**2 for value in (*deviations[:edge], *deviations[-edge:])]
    error = math.sqrt(sum(squares) / (edge**2 * PROMPTS * ANSWERS))
    kl = max(columns["kl"], default=0.0) if "kl" in columns else math.nan
    return {
        "first": first,
        "last": last,
        "error": error,
        "most_kl": kl,
        "tokens_first": sum(columns["answer_tokens"][:edge]) / edge,
        "tokens_last": sum(columns["answer_tokens"][-edge:]) / edge,
        "learned": last - first > 5 * error and not kl > LIMIT,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2:135m-instruct")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--lr", type=float, default=5e-6)
    parser.add_argument("--beta", type=float, default=0.04)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="Where the runs lie; a folder that goes away, if not given.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as gone:
        out = args.out or Path(gone)
        out.mkdir(parents=True, exist_ok=True)
        curves, found = {}, {}
        for seed in args.seeds:
            metrics = learn(seed, args, out)
            curves[seed], found[seed] = list(metrics.columns["reward"]), told(metrics)
            print(
                f"seed {seed}: " + ", ".join(f"{name} {value:.4g}" for name, value in found[seed].items()), flush=True
            )
            print("  " + " ".join(f"{value:.2f}" for value in curves[seed]), flush=True)
    line = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": platform.machine(),
        "options": {name: str(value) for name, value in vars(args).items()},
        "found": found,
        "rewards": curves,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    if not all(each["learned"] for each in found.values()):
        sys.exit("not every seed has learned")


if __name__ == "__main__":
    main()
