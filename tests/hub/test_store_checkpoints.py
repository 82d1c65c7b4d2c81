"""What paths into a run mean: a checkpoint by the beginning of its name, a stage or a run by its newest one."""

from __future__ import annotations

import pytest

from camelid.errors import OptionError
from camelid.hub.store import resolve


@pytest.fixture
def stage(tmp_path):
    folder = tmp_path / "runs" / "tiny" / "pretrain"
    for name in ("step9-tokens1K", "step10-tokens1K", "step100-tokens12K"):
        (folder / name).mkdir(parents=True)
        (folder / name / "checkpoint.json").write_text("{}")
    (folder / "latest").symlink_to("step100-tokens12K")
    return folder


def test_a_checkpoint_is_called_by_its_step(stage):
    assert resolve(stage / "step10") == stage / "step10-tokens1K"
    assert resolve(str(stage / "step100")) == stage / "step100-tokens12K"
    assert resolve(stage / "step9-tokens1K") == stage / "step9-tokens1K"


def test_a_stage_and_a_run_mean_the_newest(stage):
    for path in (stage, stage.parent, stage / "latest"):
        assert resolve(path).resolve() == (stage / "step100-tokens12K").resolve()


def test_what_is_not_there_is_told_with_the_choices_in_order(stage):
    with pytest.raises(OptionError, match=r"no such checkpoint; choose one of step9-.*, step10-.*, step100-"):
        resolve(stage / "step1")
    (stage / "step10-tokens2K").mkdir()
    (stage / "step10-tokens2K" / "checkpoint.json").write_text("{}")
    with pytest.raises(OptionError, match="several checkpoints begin so; choose one of step10-tokens1K, step10-t"):
        resolve(stage / "step10")


def test_other_names_are_models_still(stage):
    with pytest.raises(OptionError, match="no such model in the catalog"):
        resolve(stage / "llama")
