"""A run that learns from its own answers, on a tiny model that chats: what tests of such stages begin with."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np

from camelid.recipe import read_recipe
from camelid.train.events import Event, Step
from camelid.train.parallel import Parallel
from camelid.train.rewards.forms import CodeRewards
from camelid.train.run import train
from camelid.train.run_stage import RunStage
from camelid.weights.open import open_weights
from tests.train.chatty import WORDS, make_chat_model

TOGETHER = """
import sys
from pathlib import Path
from camelid.recipe import read_recipe
from camelid.train.parallel import Parallel
from camelid.train.run import train
from camelid.train.run_stage import RunStage
from tests.train.stages.asking import REWARDS
name, tensor, recipe, run, *changes = sys.argv[1:]
with Parallel(int(tensor)) as parallel:
    list(train(RunStage(read_recipe(recipe, changes), name, Path(run), parallel, REWARDS)))
"""
"""A rank's program; arguments: stage, tensor_parallel, recipe, run, changes."""


def vowels(answer: str, about: Any) -> float:
    """Share of the letters a, e, i, o, u."""
    return sum(answer.count(letter) for letter in "aeiou") / 8


REWARDS = CodeRewards({"vowels": vowels, "lost": lambda answer, about: math.nan})


def make_run(folder: Path, recipe: str, n_prompts: int, **model: Any) -> Path:
    """A run's folder with a base to begin from, prompts, and `reason.toml` of this text, whose {base} is that base."""
    folder.mkdir(exist_ok=True)
    make_chat_model(folder / "base", **model)
    draw = random.Random(0)
    asked = [f"{number} {' '.join(draw.choices(WORDS, k=3))}?" for number in range(n_prompts)]
    rows = [{"prompt": text, "answer": str(number)} for number, text in enumerate(asked)]
    (folder / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "reason.toml").write_text(recipe.format(base=json.dumps(str(folder / "base"))), encoding="utf-8")
    return folder / "reason"


def stage_of(run: Path, *changes: str) -> RunStage:
    """The recipe's only stage."""
    recipe = read_recipe(run.parent / "reason.toml", changes)
    return RunStage(recipe, recipe.stages[0], run, Parallel(), REWARDS)


def events(run: Path, *changes: str, **more: Any) -> list[Event]:
    """Of a session."""
    return list(train(stage_of(run, *changes), **more))


def steps(told: list[Event]) -> list[Step]:
    """Those of the events that are steps."""
    return [event for event in told if isinstance(event, Step)]


def numbers(folder: Path) -> dict[str, Any]:
    """A model's tensors."""
    return {name: tensor.array() for name, tensor in open_weights(folder).tensors.items()}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two models have the same bits."""
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def written(run: Path, step: int) -> list[dict[str, Any]]:
    """The answers that a generation from this step on learns from."""
    (path,) = run.glob(f"*/rollouts/step{step}.0.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]
