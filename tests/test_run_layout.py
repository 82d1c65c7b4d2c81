"""Names in the folder of a run: written and read back by one file, in order of steps."""

from __future__ import annotations

import os

import pytest

from camelid.run_layout import (
    CHECKPOINT,
    LATEST,
    checkpoint_name,
    checkpoint_step,
    complete_checkpoints,
    newest_checkpoint,
    step_folders,
)


@pytest.mark.parametrize(
    ("step", "tokens", "name"),
    [
        (0, 0, "step0-tokens0"),
        (7, 999, "step7-tokens999"),
        (1000, 4_999_999, "step1000-tokens4M"),
        (20, 12_500, "step20-tokens12K"),
        (10**6, 2 * 10**12, "step1000000-tokens2T"),
    ],
)
def test_a_name_tells_step_and_tokens(step, tokens, name):
    assert checkpoint_name(step, tokens) == name
    assert checkpoint_step(name) == step


def test_other_names_have_no_step():
    assert [checkpoint_step(name) for name in ("latest", "step", "steps-5", "step5x", "before", "step-5")] == [None] * 6


def saved(stage, *names):
    for name in names:
        (stage / name).mkdir(parents=True)
        (stage / name / CHECKPOINT).write_text("{}")
    (stage / LATEST).symlink_to(names[-1])


def test_checkpoints_stand_in_order_of_steps(tmp_path):
    saved(tmp_path, "step9-tokens1K", "step100-tokens12K", "step10-tokens1K")
    (tmp_path / "step11-tokens1K").mkdir()
    (tmp_path / "step12-tokens1K").symlink_to("step9-tokens1K")
    (tmp_path / "step13").touch()
    assert [path.name for path in complete_checkpoints(tmp_path)] == [
        "step9-tokens1K",
        "step10-tokens1K",
        "step100-tokens12K",
    ]
    assert [checkpoint_step(path.name) for path in step_folders(tmp_path)] == [9, 10, 11, 100]


def test_the_newest_of_a_run_is_that_of_the_stage_that_saved_last(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    for stage, name, when in (("pretrain", "step50-tokens1K", 100), ("sft", "step3-tokens64", 200)):
        saved(tmp_path / stage, name)
        os.utime(tmp_path / stage / name / CHECKPOINT, (when, when))
    assert newest_checkpoint(tmp_path) == (tmp_path / "sft" / "step3-tokens64").resolve()
    assert newest_checkpoint(tmp_path / "pretrain") == (tmp_path / "pretrain" / "step50-tokens1K").resolve()
    assert newest_checkpoint(tmp_path / "pretrain" / "step50-tokens1K") is None
