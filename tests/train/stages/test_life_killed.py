"""A life with every kind of stage, killed at random moments by SIGKILL, has the bits of one that was left alone."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time

import numpy as np
import pytest

from camelid.recipe import stage_kinds
from camelid.run_layout import newest_checkpoint
from camelid.weights.open import open_weights
from tests.train.chatty import make_chat_model

DATA = """
[[{table}.sources]]
name = "questions"
kind = "docstrings"
max_documents = 40
longest = 20000
"""
STAGES = {
    "sft": "steps = 6\n" + DATA.format(table="sft.data"),
    "reward": "steps = 4\npairs = 4\n" + DATA.format(table="reward.data"),
    "rejection": 'steps = 3\nreward = "reward"\nanswers = 2\nmost_prompts = 4\nsearch_prompts = 2\nmax_tokens = 12\n'
    "temperatures = [0.7, 1.0]\n" + DATA.format(table="rejection.prompts"),
    "dpo": "steps = 4\npairs_per_step = 4\n" + DATA.format(table="dpo.data"),
    "ppo": 'steps = 4\nreward = "reward"\nmax_tokens = 12\nprompts_per_generation = 4\nminibatches = 2\n'
    + DATA.format(table="ppo.data"),
}
EVERY = (
    "context = 512\nbatch_tokens = 1024\nlr = 1e-3\nwarmup_steps = 0\ncompile = false\nsave_every = 1\nkeep_last = 2\n"
)
OWN_SIZE = ("reward", "dpo", "ppo")  # their batches follow from pairs and prompts
KILLS = 10


def write_recipe(folder):
    folder.mkdir()
    make_chat_model(folder / "base", context=512)
    names = [name for name in STAGES if name in stage_kinds()]
    text = f'name = "life"\nbase = "{folder / "base"}"\nstages = {names}\n'
    for name in names:
        every = EVERY.replace("batch_tokens = 1024\n", "") if name in OWN_SIZE else EVERY
        text += f"[{name}]\n{every}{STAGES[name]}"
    (folder / "life.toml").write_text(text, encoding="utf-8")
    return names


def command(folder):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "camelid", "train", str(folder / "life.toml"), "--out", str(folder)]
    return subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    names = write_recipe(whole)
    started = time.monotonic()
    process = command(whole)
    assert process.communicate(timeout=600)[1] is not None
    assert process.returncode == 0
    took = time.monotonic() - started
    write_recipe(cut)
    (cut / "life.toml").write_text((whole / "life.toml").read_text())  # of the same base
    draw, kills = random.Random(7), 0
    while kills < KILLS:
        process = command(cut)
        try:
            process.communicate(timeout=draw.uniform(0.15, 0.5) * took)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
        else:
            break
    process = command(cut)
    said = process.communicate(timeout=600)[1]
    assert process.returncode == 0, said
    assert kills
    for name in names:
        ours, others = (
            {
                tensor.name: tensor.array()
                for tensor in open_weights(newest_checkpoint(run / "life" / name)).tensors.values()
            }
            for run in (whole, cut)
        )
        assert ours.keys() == others.keys()
        assert all(np.array_equal(ours[tensor], others[tensor]) for tensor in ours), name
