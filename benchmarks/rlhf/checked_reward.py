"""Whether GRPO or PPO learns a reward that code checks: the default model, several seeds, the curve of each.

    python benchmarks/rlhf/checked_reward.py grpo|ppo [--seeds 0 1 2] [--beta 0.04] [--out FOLDER] [--picture FILE]

The reward is 1 for an answer of at most 20 words (`code:most-words:20`), and 1 more for one that ends as a sentence
does (`code:ends-well`), so from 0 to 2. Prompts are questions about Python's standard library, which every machine has.
Told: the mean reward of the first and of the last five generations with its standard error over answers, the largest
divergence from the reference (nats a token, limit 1), the mean length of answers, and the last answers themselves: a
reward like this one is hacked by saying next to nothing, which `--beta 0 --lr 2e-5` shows, and what a larger beta does
about it. A seed has learned where the gain is more than five of its standard errors and the limit was kept. Each
runs `camelid train`, so that a killed one goes on with `--out` of before. Appends to benchmarks/results/rewards.jsonl.
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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from camelid.train.report.metrics import Metrics, read_metrics

RESULTS = Path(__file__).parent.parent / "results" / "rewards.jsonl"
EDGE = 5  # generations at either end that are compared
ANSWERS = 32  # of a generation

RECIPE = """
name = "{name}"
seed = {seed}
base = {model}
stages = ["{stage}"]

[{stage}]
steps = {steps}
{table}
max_tokens = 64
context = 256
lr = {lr}
beta = {beta}
kl_limit = {limit}
save_every = 10
log_to = []
reward = {{ "code:most-words:20" = 1.0, "code:ends-well" = 1.0 }}

[[{stage}.data.sources]]
name = "questions"
kind = "docstrings"
max_documents = 400
"""
TABLES = {
    "grpo": "prompts_per_generation = 4\nanswers = 8",
    "ppo": "prompts_per_generation = 32\nminibatches = 1\nupdates = 2",
}


def learn(seed: int, args: argparse.Namespace, out: Path) -> tuple[Metrics, list[dict[str, Any]]]:
    """Train one seed, or go on with it; its curves, and the last answers."""
    name = f"short-{args.stage}-{args.beta:g}-{args.lr:g}-{seed}"
    values = {"name": name, "seed": seed, "stage": args.stage, "table": TABLES[args.stage], **vars(args)}
    values |= {"model": json.dumps(args.model), "limit": args.limit}
    recipe = out / f"{name}.toml"
    recipe.write_text(RECIPE.format(**values), encoding="utf-8")
    command = [sys.executable, "-m", "camelid", "train", str(recipe), "--out", str(out / "runs")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    folder = out / "runs" / name / args.stage
    written = max((folder / "rollouts").iterdir(), key=lambda path: int(path.stem.partition(".")[0][4:]))
    return read_metrics(folder), [json.loads(line) for line in written.read_text(encoding="utf-8").splitlines()]


def told(metrics: Metrics, limit: float) -> dict[str, float | bool]:
    """What a curve says at both ends."""
    columns = metrics.columns
    edge = min(EDGE, len(metrics) // 2)
    rewards, deviations = columns["reward"], columns["reward_deviation"]
    first, last = sum(rewards[:edge]) / edge, sum(rewards[-edge:]) / edge
    squares = [value**2 for value in (*deviations[:edge], *deviations[-edge:])]
    error = math.sqrt(sum(squares) / (edge**2 * ANSWERS))
    kl = max(columns["kl"], default=0.0) if "kl" in columns else math.nan
    return {
        "first": first,
        "last": last,
        "error": error,
        "most_kl": kl,
        "tokens_first": sum(columns["answer_tokens"][:edge]) / edge,
        "tokens_last": sum(columns["answer_tokens"][-edge:]) / edge,
        "learned": last - first > 5 * error and not kl > limit,
    }


def draw(curves: Mapping[str, Metrics], out: Path) -> None:
    """Reward, divergence and length of answers, a line for each run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    for axes, (name, label) in zip(
        figure.subplots(1, 3),
        (("reward", "mean reward, 0 to 2"), ("kl", "divergence, nats a token"), ("answer_tokens", "tokens an answer")),
        strict=True,
    ):
        for run, metrics in curves.items():
            axes.plot(metrics.columns.get(name, []), label=run, linewidth=1.2)
        axes.set_title(label, fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
    figure.axes[0].legend(fontsize=7, frameon=False)
    figure.savefig(out, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=TABLES)
    parser.add_argument("--model", default="smollm2:135m-instruct")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--lr", type=float, default=1e-5)
    parser.add_argument("--beta", type=float, default=0.04)
    parser.add_argument("--limit", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="Where the runs lie; a folder that goes away, if not given.")
    parser.add_argument("--picture", type=Path, help="The curves, as .png or .svg.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as gone:
        out = args.out or Path(gone)
        out.mkdir(parents=True, exist_ok=True)
        curves, found = {}, {}
        for seed in args.seeds:
            curves[f"seed {seed}"], answers = learn(seed, args, out)
            found[seed] = told(curves[f"seed {seed}"], args.limit)
            print(f"seed {seed}: " + ", ".join(f"{name} {value:.4g}" for name, value in found[seed].items()))
            print("  " + " ".join(f"{value:.2f}" for value in curves[f"seed {seed}"].columns["reward"]))
            for answer in answers[:4]:
                print("  " + json.dumps(answer["answer"], ensure_ascii=False)[:160], flush=True)
    if args.picture:
        draw(curves, args.picture)
    line = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": platform.machine(),
        "options": {name: str(value) for name, value in vars(args).items()},
        "found": found,
        "rewards": {run: list(metrics.columns["reward"]) for run, metrics in curves.items()},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    if not all(each["learned"] for each in found.values()):
        sys.exit("not every seed has learned")


if __name__ == "__main__":
    main()
