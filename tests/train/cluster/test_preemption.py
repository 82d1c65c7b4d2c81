"""Sessions end in time: signals, SLURM's end time, and what is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from camelid.errors import OptionError
from camelid.recipe import read_recipe
from camelid.train.cluster import preemption
from camelid.train.cluster.preemption import Stopper, end_of_job
from camelid.train.events import Step, Stopped
from camelid.train.parallel import Parallel
from camelid.train.report.metrics import read_metrics
from camelid.train.run import check_alike
from tests.data.made import make_data, write_plan
from tests.train.ranks import begin_together, pretrain, steps_of
from tests.train.test_run import RECIPE

ALONE = SimpleNamespace(any=bool)


@pytest.mark.parametrize("name", preemption.SIGNALS)
def test_a_signal_ends_the_session_after_the_step(name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with Stopper(ALONE) as stopper:
        assert not stopper.due(1.0)
        os.kill(os.getpid(), number)
        assert stopper.due(1.0)
        assert stopper.reason == name
    assert signal.getsignal(number) is before


def test_a_signal_before_or_after_the_steps_does_no_harm():
    before = signal.getsignal(signal.SIGUSR1)
    try:
        preemption.wait_for_stopper()
        os.kill(os.getpid(), signal.SIGUSR1)
        with Stopper(ALONE) as stopper:
            assert not stopper.due(1.0)
        os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_second_interrupt_does_not_wait():
    with Stopper(ALONE) as stopper:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert stopper.reason == "SIGINT"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_what_we_were_started_to_ignore_stays_ignored(name):
    """As Python does with SIGINT: a script's `&` wants it so."""
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with Stopper(ALONE) as stopper:
            os.kill(os.getpid(), number)
            assert not stopper.due(1.0)
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_what_another_rank_was_told_counts():
    with Stopper(SimpleNamespace(any=lambda flag: True)) as stopper:
        assert stopper.due(0.0)
        assert stopper.reason == "another process was asked to"


def test_the_end_leaves_time_for_two_saves_and_two_steps(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(preemption.time, "time", lambda: now)
    monkeypatch.setattr(preemption.time, "monotonic", lambda: now)
    with Stopper(ALONE, ends=1200.0) as stopper:
        now = 1020.0  # a step of 20 s
        assert not stopper.due(10.0)
        now = 1060.0  # a save of 40 s, which is no step
        stopper.saved()
        now = 1080.0
        assert not stopper.due(10.0)
        now = 1125.0  # 1200 - 2 · 10 - 2 · 45 < 1125
        assert stopper.due(10.0)
        assert stopper.reason == "the end of the job's time"


def test_when_a_job_ends(tmp_path, monkeypatch):
    assert end_of_job({}) is None
    assert end_of_job({"SLURM_JOB_END_TIME": "1795555555", "SLURM_JOB_ID": "1"}) == 1795555555
    fake = tmp_path / "scontrol"
    fake.write_text(
        '#!/bin/sh\necho "JobId=$3 StartTime=2026-11-24T20:00:00 EndTime=2026-11-24T20:02:00 Deadline=N/A"\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TZ", "UTC-1")
    time.tzset()
    try:
        assert end_of_job({"SLURM_JOB_ID": "7"}) == 1795546920
    finally:
        monkeypatch.undo()
        time.tzset()


def test_an_endless_job_and_a_silent_scontrol(tmp_path, monkeypatch, caplog):
    fake = tmp_path / "scontrol"
    fake.write_text('#!/bin/sh\necho "JobId=$3 EndTime=Unknown"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert end_of_job({"SLURM_JOB_ID": "7"}) is None
    fake.write_text("#!/bin/sh\nexit 1\n")
    assert end_of_job({"SLURM_JOB_ID": "7"}) is None
    assert "only a signal will stop it in time" in caplog.text


@pytest.mark.slow
def test_a_run_that_is_asked_to_stop_saves_and_goes_on(tmp_path, monkeypatch):
    (tmp_path / "small.toml").write_text(RECIPE, encoding="utf-8")
    run = make_data(tmp_path / "small").parent
    recipe = read_recipe(tmp_path / "small.toml")
    events = []
    for event in pretrain(recipe, run, Parallel()):
        events.append(event)
        if isinstance(event, Step) and event.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
    assert [event.step for event in events if isinstance(event, Step)] == [1, 2, 3]
    assert events[-1] == Stopped(3, done=False, reason="SIGTERM")
    last = read_metrics(run / "pretrain").events[-1]
    assert (last["event"], last["step"], last["reason"]) == ("stop", 3, "SIGTERM")
    assert (run / "pretrain" / "latest").resolve().name.startswith("step3-")
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 5))  # no time for more than a step
    assert [step.step for step in steps_of(recipe, run, Parallel())] == [4]
    monkeypatch.delenv("SLURM_JOB_END_TIME")
    assert [step.step for step in steps_of(recipe, run, Parallel())] == list(range(5, 13))
    assert read_metrics(run / "pretrain").columns["step"].tolist() == list(range(1, 13))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="gloo")
def test_all_processes_say_that_they_would_go_on(tmp_path):
    """Each ends with status 75, whichever was asked, so that whoever looks at one of them knows."""
    (tmp_path / "small.toml").write_text(RECIPE.replace("steps = 12", "steps = 100000"), encoding="utf-8")
    write_plan(make_data(tmp_path / "small"), tmp_path / "small.toml")
    command = [sys.executable, "-m", "camelid", "train", "small.toml", "--out", str(tmp_path)]
    started = begin_together(2, command, cwd=tmp_path, stdout=subprocess.PIPE)
    latest = tmp_path / "small" / "pretrain" / "latest"
    deadline = time.monotonic() + 300
    while not latest.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    started[1].send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [preemption.STATUS] * 2, said
    assert "another process was asked to" in (tmp_path / "small" / "pretrain" / "metrics.jsonl").read_text()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="gloo")
def test_all_processes_refuse_data_of_another_recipe(tmp_path):
    """Rank 0 compares, and all end with its line, none waiting."""
    (tmp_path / "small.toml").write_text(RECIPE, encoding="utf-8")
    write_plan(make_data(tmp_path / "small"), tmp_path / "small.toml")
    command = [sys.executable, "-m", "camelid", "train", "small.toml", "--out", str(tmp_path)]
    started = begin_together(2, [*command, "--set", "data.validation=0.5"], cwd=tmp_path, stdout=subprocess.PIPE)
    said = [process.communicate(timeout=200)[1] for process in started]
    assert [process.returncode for process in started] == [2, 2], said
    for words in said:
        assert "was made from something else: data.validation 0.01 → 0.5; give the recipe another name" in words
    assert not (tmp_path / "small" / "pretrain").exists()


def test_ranks_with_another_recipe_or_data_do_not_train_together():
    check_alike([[{"seed": 1}, "a"], [{"seed": 1}, "a"]])
    with pytest.raises(OptionError, match="process 1 has another recipe than process 0"):
        check_alike([[{"seed": 1}, "a"], [{"seed": 2}, "a"]])
    with pytest.raises(OptionError, match="process 2 has another data folder"):
        check_alike([[{"seed": 1}, "a"], [{"seed": 1}, "a"], [{"seed": 1}, "b"]])
