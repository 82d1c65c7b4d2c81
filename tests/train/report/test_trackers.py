"""TensorBoard and W&B get the very numbers of metrics.jsonl."""

from __future__ import annotations

import sys
import types

import pytest

from camelid.errors import MissingError, OptionError, ResourceError
from camelid.train.report.metrics import MetricsWriter, read_metrics
from camelid.train.report.trackers import TRACKERS, open_trackers
from camelid.train.stages.pretrain import PretrainOptions
from tests.train.report.test_metrics import step


def read_back(folder) -> dict[str, dict[int, float]]:
    """Scalars of all event files: tag → step → value."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, dict[int, float]] = {}
    for file in sorted(folder.glob("events*")):
        raw, place = file.read_bytes(), 0  # length, its checksum, event, its checksum
        while place < len(raw):
            length = int.from_bytes(raw[place : place + 8], "little")
            event = Event.FromString(raw[place + 12 : place + 12 + length])
            place += 16 + length
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def test_tensorboard_gets_what_the_record_gets(tmp_path):
    pytest.importorskip("tensorboardX")
    for start in (0, 3):
        trackers = open_trackers(["tensorboard"], tmp_path, start, {"recipe": "seed = 1"})
        with MetricsWriter(tmp_path, steps=6, start=start, trackers=trackers) as record:
            for number in range(start + 1, start + 4):
                record.write(step(number, loss=5 - number / 10, validation_loss=4.5 if number == 2 else None))
    told = read_back(tmp_path / "tensorboard")
    metrics = read_metrics(tmp_path)
    for name in ("loss", "lr", "tokens", "validation_loss", "grad_norm", "tokens_per_second"):
        xs, ys = metrics.points(name)
        assert told[f"train/{name}"] == pytest.approx(dict(zip(xs, ys, strict=True)))
    assert set(told["train/loss"]) == {1, 2, 3, 4, 5, 6}


class FakeRun:
    """What wandb.init gives."""

    def __init__(self, **about) -> None:
        self.about, self.logged, self.finished, self.metrics = about, [], False, []

    def log(self, values) -> None:
        self.logged.append(values)

    def define_metric(self, name, step_metric) -> None:
        self.metrics.append((name, step_metric))

    def finish(self) -> None:
        self.finished = True


def test_wandb_gets_what_the_record_gets_and_a_resumed_run_goes_on(tmp_path, monkeypatch):
    runs: list[FakeRun] = []
    fake = types.SimpleNamespace(init=lambda **about: runs.append(FakeRun(**about)) or runs[-1])
    monkeypatch.setitem(sys.modules, "wandb", fake)
    folder = tmp_path / "tiny" / "pretrain"
    folder.mkdir(parents=True)
    for start in (0, 1):
        trackers = open_trackers(["wandb"], folder, start, {"name": "tiny"})
        with MetricsWriter(folder, steps=2, start=start, trackers=trackers) as record:
            record.write(step(start + 1, loss=2.5))
    assert [run.about["id"] for run in runs] == [runs[0].about["id"]] * 2
    assert runs[0].about["name"] == "tiny/pretrain"
    assert runs[0].about["config"] == {"name": "tiny"}
    assert all(run.finished and run.metrics == [("*", "step")] for run in runs)
    assert [run.logged[0]["step"] for run in runs] == [1, 2]
    assert runs[0].logged[0]["loss"] == 2.5

    def refuse(**about):
        raise RuntimeError("no API key")

    fake.init = refuse
    with pytest.raises(ResourceError, match=r"no API key.*WANDB_MODE=offline"):
        open_trackers(["wandb"], folder, 0, {})


def test_trackers_are_named_by_the_recipe(tmp_path, monkeypatch):
    assert PretrainOptions(log_to=["tensorboard"]).log_to == ("tensorboard",)
    assert PretrainOptions().log_to == ()
    with pytest.raises(OptionError, match="did you mean 'tensorboard'"):
        open_trackers(["tensorbaord"], tmp_path, 0, {})
    for name, package in (("tensorboard", "tensorboardX"), ("wandb", "wandb")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingError, match=rf"pip install 'camelid\[{name}\]'"):
            open_trackers([name], tmp_path, 0, {})
    assert set(TRACKERS) == {"tensorboard", "wandb"}
