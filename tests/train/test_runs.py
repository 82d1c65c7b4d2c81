"""Runs are found by their folders, with state and checkpoints."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from camelid.errors import MissingError, OptionError
from camelid.train.report.metrics import NAME, MetricsWriter, read_metrics
from camelid.train.report.samples import read_samples
from camelid.train.runs import Run, find_runs, life, open_run, state
from tests.train.lives import RECIPE, made_life
from tests.train.report.test_metrics import step


def made_run(folder: Path, steps: int = 6, last: int | None = None, save_every: int = 2, loss: float = 5.0) -> Run:
    """A run of `folder`, told as if it had been trained to step `last`, with checkpoints that hold nothing."""
    folder.mkdir(parents=True)
    with MetricsWriter(folder, steps) as record:
        for number in range(1, (steps if last is None else last) + 1):
            shown = loss * 0.9 ** (number - 1) + 0.05 * (number % 3)
            looked = {"validation_loss": shown + 0.1} if number % save_every == 0 else {}
            record.write(step(number, shown, mfu=0.4, memory_bytes=10**8, **looked))
            if number % save_every == 0:
                made_checkpoint(folder, number)
                record.event("save", step=number, folder=f"step{number}-tokens{64 * number}")
    return Run(folder)


def made_checkpoint(folder: Path, number: int) -> None:
    there = folder / f"step{number}-tokens{64 * number}"
    there.mkdir()
    (there / "checkpoint.json").write_text(json.dumps({"step": number, "tokens": 64 * number}))


def test_runs_are_found_the_newest_first(tmp_path):
    made_run(tmp_path / "old" / "pretrain")
    made_run(tmp_path / "new" / "pretrain")
    (tmp_path / "new" / "data").mkdir()
    os.utime(tmp_path / "old" / "pretrain" / NAME, (1, 1))
    assert [run.name for run in find_runs(tmp_path)] == ["new/pretrain", "old/pretrain"]
    assert find_runs(tmp_path / "none") == []


def test_a_run_is_opened_by_any_of_its_folders(tmp_path, monkeypatch):
    run = made_run(tmp_path / "tiny" / "pretrain")
    for path in ("", "pretrain", "pretrain/step2-tokens128"):
        assert open_run(tmp_path / "tiny" / path) == run
    monkeypatch.chdir(tmp_path / "tiny" / "pretrain")
    assert open_run(".") == open_run("step2-tokens128") == run
    with pytest.raises(MissingError, match="no run"):
        open_run(tmp_path)
    made_run(tmp_path / "tiny" / "sft")
    with pytest.raises(OptionError, match="several stages; say which"):
        open_run(tmp_path / "tiny")
    assert run.recipe() == ""
    (tmp_path / "tiny" / "recipe.toml").write_text("seed = 1")
    assert run.recipe() == "seed = 1"
    assert run.data == tmp_path / "tiny" / "data"


def test_checkpoints_are_those_that_are_complete(tmp_path):
    run = made_run(tmp_path / "tiny" / "pretrain", steps=12)
    (run.folder / "latest").symlink_to("step12-tokens768")
    (run.folder / "step13-tokens832").mkdir()
    made_checkpoint(run.folder, 14)
    (run.folder / "step14-tokens896" / "checkpoint.json").write_text("{")
    found = run.checkpoints()
    assert [checkpoint.step for checkpoint in found] == [2, 4, 6, 8, 10, 12]
    assert (found[-1].name, found[-1].tokens) == ("step12-tokens768", 768)


def test_the_state_of_a_run(tmp_path):
    done = made_run(tmp_path / "done" / "pretrain")
    assert state(read_metrics(done.folder)) == "done"
    half = made_run(tmp_path / "half" / "pretrain", steps=9, last=3)
    assert state(read_metrics(half.folder)) == "training"
    assert state(read_metrics(half.folder), now=time.time() + 100) == "stopped"
    with MetricsWriter(half.folder, 9, start=3) as record:
        record.write(step(4, seconds=100.0))
    assert state(read_metrics(half.folder), now=time.time() + 400) == "training"
    with MetricsWriter(half.folder, 9, start=4) as record:
        record.event("stop", step=4)
    assert state(read_metrics(half.folder)) == "stopped"


def test_a_life_has_its_stages_in_order(tmp_path):
    folder = made_life(tmp_path / "life")
    assert [(stage.name, stage.standing) for stage in life(folder)] == [
        ("pretrain", "done"),
        ("sft", "done"),
        ("rejection", "done"),
        ("ppo", "training"),
        ("ppo-2", "waiting"),
    ]
    (folder / "ppo-2").mkdir()
    (folder / "recipe.toml").write_text("stages = [")
    (folder / "sft" / NAME).write_text("nonsense\n")
    found = {stage.name: stage for stage in life(folder)}
    assert set(found) == {"pretrain", "sft", "rejection", "ppo"}  # what has a record, where the recipe cannot be read
    assert (found["sft"].standing, "line 1" in found["sft"].wrong) == ("stopped", True)
    (folder / "recipe.toml").write_text(RECIPE)
    assert life(folder)[-1].standing == "preparing"


def test_samples_are_those_of_the_last_line(tmp_path):
    folder = made_life(tmp_path / "life") / "ppo"
    with (folder / "samples.jsonl").open("a") as file:
        file.write('\n{"step": 4, "prompt": "What is a llama?", "answer": "An animal.", "finished": true}\n')
    found = read_samples(folder)
    assert [sample.step for sample in found] == [0, 0, 4, 4, 8, 8, 12, 12]
    assert {sample.text for sample in found if sample.step == 4} == {"An animal.", "Answer of step 4."}
    assert [sample.finished for sample in found if sample.step == 8] == [False, False]
    assert read_samples(tmp_path) == []
