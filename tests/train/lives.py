"""The folder of a life: as if a model had gone through several stages."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from camelid.run_layout import SAMPLES
from camelid.train.report.metrics import MetricsWriter
from tests.train.report.test_metrics import step

RECIPE = """name = "life"
seed = 1
stages = ["pretrain", "sft", "rejection", "ppo", "ppo-2"]
"""
CURVE = [{"k": k, "max": 1.0 - 1.0 / k, "median": -0.1 / k} for k in range(1, 9)]


def made_life(folder: Path) -> Path:
    """Four stages, of which the last but one goes on and the last waits."""
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text(RECIPE)
    for stage, last in (("pretrain", 20), ("sft", 20), ("rejection", 20), ("ppo", 12)):
        (folder / stage).mkdir()
        about = {"answers": {"prompts": 500, "curve": CURVE}} if stage == "rejection" else {}
        with MetricsWriter(folder / stage, 20, **about) as record:
            for number in range(1, last + 1):
                plain = step(number, 3.0 / number)
                record.write(replace(plain, metrics={**plain.metrics, **_measured(stage, number)}))
    lines = []
    for number in (0, 4, 8, 12):
        for prompt in ("What is a llama?", "Write a <b>poem</b>."):
            answer = {"answer": f"Answer of step {number}.", "finished": number != 8, "tokens": 4}
            lines.append(json.dumps({"step": number, "prompt": prompt, **answer}) + "\n")
    (folder / "ppo" / SAMPLES).write_text("".join([*lines, '{"step": 12, "prom']))
    return folder


def _measured(stage: str, number: int) -> dict[str, float]:
    if stage != "ppo":
        return {"validation_loss": 3.1 / number} if number % 5 == 0 else {}
    own = {"reward": 0.1 * number, "kl": 0.01 * number, "entropy": 2.0 - 0.05 * number, "clip_share": 0.1}
    return {**own, "answer_length": 20.0 + number, **({"validation_reward": 0.09 * number} if number % 4 == 0 else {})}
