"""The batch script: what it says for each site, that a shell can read it, and, where SLURM is, that it runs."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camelid.cli.flags import run_verb
from camelid.errors import MissingError, OptionError, ResourceError
from camelid.train.cluster.clusters import CLUSTERS
from camelid.train.cluster.slurm import Job, as_time, lead_seconds, minutes, script
from tests.train.test_run import RECIPE


def job(site="local", **changes) -> Job:
    sizes = {"nodes": 2, "processes": 4, "gpus": 4, "minutes": 90, "directory": Path("here"), "python": "python"}
    return Job(CLUSTERS[site], "tiny", "tiny", Path("runs"), **{**sizes, **changes})


def said(text: str) -> dict[str, str]:
    """#SBATCH words → values."""
    words = (line.removeprefix("#SBATCH --").split(" ")[0] for line in text.splitlines() if line.startswith("#SBATCH"))
    return {word.partition("=")[0]: word.partition("=")[2] for word in words}


def test_folders_with_spaces_are_one_word_everywhere():
    """sbatch reads its lines as a shell does, so the log's path must be one word too."""
    text = script(job(directory=Path("/my home/a 'b'"), python="/my home/bin/python"))
    (line,) = (line for line in text.splitlines() if "--output=" in line)
    assert shlex.split(line.removeprefix("#SBATCH ")) == ["--output=/my home/a 'b'/runs/tiny/slurm-%j.log"]
    folder = shlex.quote("/my home/a 'b'")
    assert f"cd {folder} || exit 1" in text.splitlines()
    assert "camelid=('/my home/bin/python' -m camelid)" in text


@pytest.mark.parametrize("site", CLUSTERS)
@pytest.mark.parametrize("chain", [False, True])
def test_every_site_has_a_script_that_bash_reads(site, chain):
    row = CLUSTERS[site]
    text = script(job(site, gpus=row.gpus, processes=max(1, row.gpus), account="money", chain=chain))
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    lines = said(text)
    assert (lines["nodes"], lines["time"], lines["account"], lines["signal"]) == ("2", "01:30:00", "money", "USR1@270")
    assert lines.get("partition") == row.partition
    assert {"requeue", "output"} <= set(lines)
    assert int(lines["cpus-per-task"]) * int(lines["ntasks-per-node"]) <= (row.cores or os.cpu_count())
    assert ("HF_HUB_OFFLINE" in text) == row.offline
    assert ("device_count" in text) == (row.gpus > 0)
    assert ("sbatch here/runs/tiny/tiny.sbatch && exit 0" in text) == chain
    assert ("scontrol requeue" in text) != chain


def test_leonardo():
    text = script(job("leonardo-booster", account="IscrB_LLAMA", nodes=16, minutes=1440))
    lines = said(text)
    assert (lines["partition"], lines["gres"], lines["cpus-per-task"]) == ("boost_usr_prod", "gpu:4", "8")
    assert lines["time"] == "1-00:00:00"
    assert "module load python/3.11" in text


def test_words_with_spaces_stay_words(tmp_path):
    strange = {
        "directory": tmp_path,
        "python": "python",
        "recipe": "my recipe's.toml",
        "changes": ('data.sources.0.path="a b.txt"',),
        "folder": Path("my runs"),
    }
    made = Job(CLUSTERS["local"], "tiny", nodes=1, processes=1, gpus=0, minutes=5, **strange)
    arrays = "\n".join(line for line in script(made).splitlines() if line.startswith("recipe=("))
    shown = subprocess.run(
        ["bash", "-c", f'{arrays}\nprintf "%s\\n" "${{recipe[@]}}"'], capture_output=True, text=True, check=True
    )
    assert shown.stdout.splitlines() == [
        "my recipe's.toml", "--out", "my runs", "--set", 'data.sources.0.path="a b.txt"'
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("time", "wanted"),
    [("30", 30), ("2:00", 2), ("0:30", 1), ("01:30:00", 90), ("1-00", 1440), ("1-02:30", 1590), ("2-00:00:01", 2881)],
)
def test_times_as_slurm_reads_them(time, wanted):
    assert minutes(time) == wanted


@given(st.integers(1, 20_000))
def test_times_come_back(total):
    assert minutes(as_time(total)) == total
    assert 30 <= lead_seconds(total) <= 300


@pytest.mark.parametrize("time", ["", "soon", "1:2:3:4", "00:00:00", "-5"])
def test_other_times_are_refused(time):
    with pytest.raises(OptionError, match="time:"):
        minutes(time)


def test_the_verb(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text(RECIPE, encoding="utf-8")
    run_verb("launch", ["slurm", "small.toml", "--nodes", "2", "--time", "00:30:00", "--set", "pretrain.steps=20"])
    text = Path("runs/small/small.sbatch").read_text()
    assert f"{tmp_path}/small.toml --out runs --set pretrain.steps=20" in text
    assert "sbatch runs/small/small.sbatch" in capsys.readouterr().out
    run_verb("launch", ["slurm", "small.toml", "--json"])
    assert json.loads(capsys.readouterr().out) == {"script": "runs/small/small.sbatch", "job": None}


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["pbs", "small.toml"], "pbs: no such scheduler"),
        (["slurm", "small.toml", "--site", "leonardo"], "did you mean 'leonardo-"),
        (["slurm", "small.toml", "--site", "lumi-g"], "--account: lumi-g wants to know"),
        (["slurm", "small.toml", "--site", "karolina", "--account", "x", "--time", "3-00"], "may take 2-00:00:00"),
        (["slurm", "small.toml", "--nodes", "3"], "8 rows .* cannot be divided among 3 readers"),
        (["slurm", "small.toml", "--set", "pretrain.tensor_parallel=2"], "1 processes cannot be shared"),
    ],
)
def test_what_would_fail_in_the_queue_fails_at_once(tmp_path, monkeypatch, arguments, wrong):
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text(RECIPE, encoding="utf-8")
    with pytest.raises(OptionError, match=wrong):
        run_verb("launch", arguments)
    assert not Path("runs").exists()


def test_submitting_needs_slurm_and_passes_its_refusal_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text(RECIPE, encoding="utf-8")
    tools = tmp_path / "bin"
    tools.mkdir()
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(MissingError, match="no sbatch on this machine"):
        run_verb("launch", ["slurm", "small.toml", "--submit"])
    sbatch = tools / "sbatch"
    sbatch.write_text("#!/bin/sh\necho '42;cluster'\n")
    sbatch.chmod(0o755)
    capsys.readouterr()
    run_verb("launch", ["slurm", "small.toml", "--submit", "--json"])
    assert json.loads(capsys.readouterr().out)["job"] == "42"
    sbatch.write_text("#!/bin/sh\necho 'invalid account' >&2\nexit 1\n")
    with pytest.raises(ResourceError, match=r"sbatch refuses .*: invalid account"):
        run_verb("launch", ["slurm", "small.toml", "--submit"])


SRUN = """#!{python}
import os, subprocess, sys
words = [word for word in sys.argv[1:]]
while words[0].startswith("--"):
    words.pop(0)
sys.exit(subprocess.call(words))
"""


@pytest.mark.slow
def test_the_script_goes_on_after_a_session_that_saved(tmp_path):
    """The whole script with a pretended cluster: health, data, two sessions, the second of which finishes."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "srun").write_text(SRUN.format(python=sys.executable))
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    text = RECIPE.replace("[model]", '[[data.sources]]\nname = "own"\nkind = "text"\npath = "*.txt"\n\n[model]')
    text = text.replace("seed = 7", "seed = 7\n\n[tokenizer]\nvocab_size = 512\n\n[data]\nvalidation = 0.0")
    (tmp_path / "small.toml").write_text(text.replace("steps = 12", "steps = 3"), encoding="utf-8")
    lines = (f"The llama sees the hill in line {place}, and the wind is cold over the river.\n" for place in range(400))
    (tmp_path / "one.txt").write_text("".join(lines))
    sizes = {"nodes": 1, "processes": 1, "gpus": 0, "minutes": 2, "directory": tmp_path, "python": sys.executable}
    made = Job(CLUSTERS["local"], "small", str(tmp_path / "small.toml"), Path("runs"), **sizes)
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "SLURM_JOB_ID": "9"}
    environment |= {"SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "here", "SLURM_CPUS_PER_TASK": "1"}
    (tmp_path / "runs" / "small").mkdir(parents=True)
    ended = []
    for ends in (time.time() + 5, time.time() + 5000):
        changed = {**environment, "SLURM_JOB_END_TIME": str(int(ends))}
        done = subprocess.run(
            ["bash", "-c", script(made)], env=changed, capture_output=True, text=True, timeout=600, check=False
        )
        ended.append((done.returncode, done.stdout, done.stderr[-1500:]))
    assert [status for status, *_ in ended] == [75, 0], ended
    assert "goes on from the beginning" in ended[0][1]
    assert "Stopped at step 1 of 3" in ended[0][1]
    assert "The same command goes on" in ended[0][1]
    assert "goes on from step1-tokens256" in ended[1][1]
    assert (tmp_path / "asked").read_text() == "requeue 9\n"
