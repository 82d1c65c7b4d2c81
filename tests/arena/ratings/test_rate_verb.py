"""The verb: its JSON, its table, and mistakes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from camelid.cli import main
from tests.arena.ratings.votes import data, golden

HEADER = "id,prompt,model_x,model_y,worker,winner,left,right"


@pytest.fixture
def log(tmp_path) -> Path:
    """LLMFAO's form: A beats B 3 to 1, one tie."""
    path = tmp_path / "votes.csv"
    lines = [f"{k},8,1,2,{k % 3},{winner},Ann,Bob" for k, winner in enumerate(["left", "left", "right", "left", "tie"])]
    path.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    return path


def run(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(["arena", "rate", *words])
    said = capsys.readouterr()
    return int(end.value.code or 0), said.out, said.err


def test_json_has_the_fields_that_programs_read(log, capsys):
    status, out, _ = run(capsys, str(log), "--json")
    found = json.loads(out)
    assert status == 0
    assert (found["method"], found["n_votes"]) == ("bt", 5)
    assert [set(row) for row in found["models"]] == [{"name", "rating", "lower", "upper", "rank", "votes"}] * 2
    assert [row["name"] for row in found["models"]] == ["Ann", "Bob"]
    assert found["warnings"]


def test_anchors_and_methods_are_flags(log, capsys):
    _, out, _ = run(capsys, str(log), "--anchor", "Bob=800", "--method", "elo", "--json")
    assert json.loads(out)["models"][1]["rating"] == pytest.approx(800)
    _, out, _ = run(capsys, str(log), "--method", "win-rate", "--intervals", "both", "--json")
    assert json.loads(out)["models"][0]["rating"] == pytest.approx(0.7)
    assert json.loads(out)["models"][0]["bootstrap_lower"] <= 0.7


def test_a_table_for_people_and_warnings_beside(log, capsys):
    status, out, err = run(capsys, str(log), "--method", "bt-ties")
    assert status == 0
    assert out.index("Ann") < out.index("Bob")
    assert "ties:" in out
    assert "fewer than 30 votes" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--method", "elos"), "did you mean 'elo'"),
        (("--anchor", "Bob"), "give NAME=RATING"),
        (("--anchor", "Bob=high"), "give NAME=RATING"),
        (("--anchor", "Rob=1000"), "did you mean 'Bob'"),
        (("--category", "klingon"), "no such category"),
        (("--column", "mood"), "no column 'mood'"),
    ],
)
def test_mistakes_are_one_line(log, capsys, words, said):
    status, out, err = run(capsys, str(log), *words)
    assert (status, out) == (2, "")
    assert said in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("method", ["elo", "newman", "win-rate"])
def test_llmfao_by_the_verb_is_evalicas_golden_file(method, capsys):
    path = data("llmfao", "crowd-comparisons.csv")
    _, out, _ = run(capsys, str(path), "--method", method, "--resamples", "2", "--json")
    kind = {"win-rate": "average_win_rate"}.get(method, method)
    assert {row["name"]: row["rating"] for row in json.loads(out)["models"]} == pytest.approx(golden(kind), rel=1e-6)


def test_style_is_counted_in_the_texts_beside_the_votes(capsys):
    """LLMFAO's answers lie beside its votes."""
    path = data("llmfao", "crowd-comparisons.csv")
    data("llmfao", "results.jsonl")
    status, out, _ = run(capsys, str(path), "--style", "--json")
    assert status == 0
    found = json.loads(out)
    assert [each["name"] for each in found["coefficients"]] == ["tokens", "headers", "lists", "bold"]
    with path.open(encoding="utf-8", newline="") as file:
        assert found["n_votes"] == sum(1 for _ in csv.DictReader(file))
