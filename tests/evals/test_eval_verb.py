"""camelid eval as a person calls it, on a tiny model."""

from __future__ import annotations

import json

import pytest

from camelid.cli.flags import run_verb
from camelid.errors import MissingError, OptionError
from tests.evals.asking import write_mmlu


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAMELID_HOME", str(tmp_path / "home"))
    write_mmlu(tmp_path / "mmlu.tar.gz", n_items=2, n_shots=1)
    return tmp_path


def run(capsys, *arguments):
    assert run_verb("eval", list(arguments)) == 0
    return capsys.readouterr().out


def test_a_task_is_measured_and_shown(place, smollm2_path, capsys):
    measure = ("mmlu", "--model", str(smollm2_path), "--data", "mmlu.tar.gz", "--shots", "0", "--limit", "3")
    (result,) = json.loads(run(capsys, *measure, "--json"))["results"]
    assert (result["task"], result["n"], result["shots"]) == ("mmlu", 3, 0)
    assert set(result["metrics"]["acc"]) >= {"value", "stderr"}
    assert result["conditions"]["model"]["files"][0]["sha256"]
    folder = place / "results" / "mmlu--SmolLM2-135M-Instruct.Q4_1--0shots--first3"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    shown = run(capsys, *measure)
    assert "acc_macro" in shown
    assert "95 % interval" in shown
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert "anatomy" in run(capsys, "show", str(folder))
    wrong = json.loads(run(capsys, "show", str(folder), "--wrong", "--json"))["items"]
    assert len(wrong) == 3 - round(3 * result["metrics"]["acc"]["value"])
    assert "anatomy test, question" in run(capsys, "show", str(folder), "--wrong", "--limit", "1") or not wrong
    compared = json.loads(run(capsys, "show", str(folder), "--diff", str(folder), "--json"))
    assert compared["comparisons"]["acc"]["difference"] == 0
    assert compared["items"] == []
    assert "noise" in run(capsys, "show", str(folder), "--diff", str(folder))


def test_every_checkpoint_of_a_run_is_measured(place, smollm2_path, capsys):
    """What stands in a run's folder is opened as any model is: here the same one twice."""
    stage = place / "runs" / "small" / "pretrain"
    for name in ("step2-tokens64", "step10-tokens320"):
        assert run_verb("convert", [str(smollm2_path), str(stage / name), "--to", "hf"]) == 0
        (stage / name / "checkpoint.json").write_text("{}")
    (stage / "step12-tokens384").mkdir()  # a save that was cut short
    capsys.readouterr()
    measure = ("mmlu", "--data", "mmlu.tar.gz", "--shots", "0", "--limit", "2", "--json", "--every-checkpoint")
    results = json.loads(run(capsys, *measure, "runs/small"))["results"]
    assert [result["model"] for result in results] == [
        f"small/pretrain/{name}" for name in ("step2-tokens64", "step10-tokens320")
    ]
    assert results[0]["metrics"] == results[1]["metrics"]


def test_tasks_are_listed(place, capsys):
    assert "arc-challenge:letters" in run(capsys)
    assert {"name": "gpqa", "title": "GPQA", "shots": None} in json.loads(run(capsys, "--json"))["tasks"]


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (["mmul"], OptionError, "did you mean 'mmlu'"),
        (["mmlu"], MissingError, "camelid pull eval:core"),
        (["mmlu", "--wrong"], OptionError, "camelid eval show RESULT --wrong"),
        (["mmlu", "--every-checkpoint", "nowhere"], OptionError, "nowhere has no complete checkpoint"),
        (["mmlu", "--every-checkpoint", "x", "--model", "y"], OptionError, "leave one of them out"),
        (["mmlu", "lm-eval:arc_easy"], OptionError, "in a command of their own"),
        (["show"], OptionError, "name the folder of a result"),
        (["show", "nothing"], Exception, "holds no finished result"),
    ],
)
def test_mistakes_are_told_before_a_model_is_loaded(place, arguments, kind, message):
    with pytest.raises(kind, match=message):
        run_verb("eval", arguments)
