"""A whole iteration of PPO beside TRL 1.12's trainer, in turns: answers, rewards, the reference, and the steps.

    python benchmarks/rlhf/ppo.py MODEL-FOLDER --trl PYTHON [--rounds 3] [--iterations 3]

MODEL-FOLDER is in Hugging Face's form; PYTHON is one that has TRL 1.12 and transformers (later TRL has no PPO). Both
get the same 32 questions an iteration, write answers of up to 64 tokens at temperature 1, judge them by a reward model
of the same size (a head of random numbers), learn from them once in 4 minibatches in bf16 with float32 masters, and
stay near a frozen reference. TRL's values are a second whole model, ours a head; TRL pads. Each turn is a process of
its own whose first iteration is not counted. Told: seconds an iteration, median, lowest to highest, and the ratio.
Appends a line to benchmarks/results/ppo.jsonl.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent.parent / "results" / "ppo.jsonl"
PROMPTS, TOKENS, MINIBATCHES = 32, 64, 4
THINGS = ("lists", "rivers", "bread", "the moon", "chess", "trees", "numbers", "ships", "rain", "cities")
RECIPE = """
name = "ppo"
base = {model}
stages = ["ppo"]

[ppo]
steps = {steps}
prompts_per_generation = {prompts}
minibatches = {minibatches}
max_tokens = {tokens}
context = 256
lr = 3e-6
beta = 0.05
save_every = 0
log_to = []
kl_limit = 1000
reward = {reward}

[[ppo.data.sources]]
name = "questions"
kind = "jsonl"
path = {questions}
"""


def questions() -> list[str]:
    return [f"Tell me {n + 2} things about {THINGS[n % len(THINGS)]}, please." for n in range(PROMPTS)]


def camelid(args: argparse.Namespace, folder: Path) -> list[float]:
    """Seconds of each iteration, from the times of the steps that `camelid train` shows."""
    (folder / "questions.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in questions()))
    values = {"model": json.dumps(str(args.model)), "reward": json.dumps(str(args.reward))}
    values |= {"steps": MINIBATCHES * (args.iterations + 1), "prompts": PROMPTS, "minibatches": MINIBATCHES}
    recipe = folder / "ppo.toml"
    recipe.write_text(
        RECIPE.format(**values, tokens=TOKENS, questions=json.dumps(str(folder / "questions.jsonl"))), encoding="utf-8"
    )
    from camelid.recipe import read_recipe
    from camelid.train.events import Step
    from camelid.train.life import live
    from camelid.train.parallel import Parallel
    from camelid.train.run_stage import RunStage

    stage = RunStage(read_recipe(str(recipe)), "ppo", folder / "run", Parallel())
    ends = [time.perf_counter()]
    for _, event in live([stage]):
        if isinstance(event, Step) and event.step % MINIBATCHES == 0:
            ends.append(time.perf_counter())
    return np.diff(ends[1:]).tolist()


def trl(args: argparse.Namespace, folder: Path) -> list[float]:
    """The same by TRL's trainer."""
    import torch
    from datasets import Dataset
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        TrainerCallback,
    )
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    from camelid.machine import keep_freed_memory

    keep_freed_memory()
    tokenizer = AutoTokenizer.from_pretrained(args.model, padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    ids = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
        )
        for text in questions()
    ]
    data = Dataset.from_dict({"input_ids": ids * (args.iterations + 2)})
    policy, reference = (AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32) for _ in range(2))
    reward, value = (
        AutoModelForSequenceClassification.from_pretrained(args.reward, num_labels=1, dtype=torch.float32)
        for _ in range(2)
    )
    for model in (reward, value):
        model.config.pad_token_id = tokenizer.pad_token_id
    ends = [time.perf_counter()]

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    config = PPOConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=PROMPTS // MINIBATCHES,
        gradient_accumulation_steps=MINIBATCHES,
        num_mini_batches=MINIBATCHES,
        num_ppo_epochs=1,
        total_episodes=PROMPTS * (args.iterations + 1),
        response_length=TOKENS,
        local_rollout_forward_batch_size=PROMPTS,
        temperature=1.0,
        num_sample_generations=0,
        gradient_checkpointing=False,
        bf16=True,
        use_cpu=True,
        save_strategy="no",
        report_to=[],
    )
    PPOTrainer(
        args=config,
        processing_class=tokenizer,
        model=policy,
        ref_model=reference,
        reward_model=reward,
        value_model=value,
        train_dataset=data,
        eval_dataset=data.select(range(2)),
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=[Clock()],
    ).train()
    return np.diff(ends[1:]).tolist()


def turn(python: str, who: str, args: argparse.Namespace) -> list[float]:
    command = [python, __file__, str(args.model), "--turn", who, "--iterations", str(args.iterations)]
    done = subprocess.run([*command, "--reward", str(args.reward)], stdout=subprocess.PIPE, text=True, check=True)
    return [float(each) for each in json.loads(done.stdout.splitlines()[-1])]


def with_a_score(model: Path, out: Path) -> Path:
    """The same model with a head of random numbers, as a reward model."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

    set_seed(0)
    AutoModelForSequenceClassification.from_pretrained(model, num_labels=1).save_pretrained(out)
    AutoTokenizer.from_pretrained(model).save_pretrained(out)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--trl", help="Python that has TRL 1.12.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--reward", type=Path)
    parser.add_argument("--turn", choices=["camelid", "trl"], help="Be one turn of one of them.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.turn:
            seconds = (camelid if args.turn == "camelid" else trl)(args, Path(folder))
            print(json.dumps(seconds))
            return
        args.reward = args.reward or with_a_score(args.model, Path(folder) / "reward")
        took: dict[str, list[float]] = {"camelid": [], "trl": []}
        ratios = []
        for _ in range(args.rounds):
            ours, theirs = turn(sys.executable, "camelid", args), turn(args.trl or sys.executable, "trl", args)
            took["camelid"] += ours
            took["trl"] += theirs
            ratios.append(statistics.median(theirs) / statistics.median(ours))
            print(f"camelid {statistics.median(ours):.1f} s, TRL {statistics.median(theirs):.1f} s", flush=True)
    for who, seconds in took.items():
        print(f"{who}: {statistics.median(seconds):.2f} s an iteration ({min(seconds):.2f} to {max(seconds):.2f})")
    print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    line = {"date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "machine": platform.machine()}
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**line, "seconds": took, "ratios": ratios}) + "\n")


if __name__ == "__main__":
    main()
