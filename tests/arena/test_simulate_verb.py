"""`camelid arena simulate`, as a person and a program call it."""

from __future__ import annotations

import json

import pytest

from camelid.cli import main


def run(capsys, *arguments):
    """(status, standard output, standard error)."""
    with pytest.raises(SystemExit) as end:
        main(["arena", "simulate", *arguments])
    said = capsys.readouterr()
    return end.value.code, said.out, said.err


def test_it_says_what_intervals_are_worth(capsys):
    status, out, _ = run(capsys, "--models", "4", "--votes", "400", "--boards", "20", "--json")
    said = json.loads(out)
    assert status == 0
    assert (said["boards"], said["votes"], len(said["models"])) == (20, 400, 4)
    assert 0.85 < said["held"] <= 1
    assert said["models"][0] == pytest.approx({**said["models"][0], "name": "model 1", "strength": 1150.0})


def test_a_person_reads_a_table(capsys):
    status, out, _ = run(capsys, "--strength", "GPT=1100", "--strength", "Llama=1000", "--boards", "5")
    assert status == 0
    assert "Llama" in out
    assert "of the 95 % intervals of 5 boards" in out


def test_votes_are_written_as_json_lines(capsys, tmp_path):
    path = tmp_path / "votes.jsonl"
    arguments = ["--models", "3", "--votes", "50", "--voters", "4", "--out", str(path)]
    assert run(capsys, *arguments)[:2] == (0, f"{path}\n")
    first = path.read_bytes()
    rows = [json.loads(line) for line in first.splitlines()]
    assert len(rows) == 50
    assert set(rows[0]) == {"model_a", "model_b", "winner", "tstamp", "judge"}
    assert run(capsys, *arguments)[0] == 0
    assert path.read_bytes() == first


def test_an_attack_comes_behind_the_honest_votes(capsys, tmp_path):
    path = tmp_path / "votes.jsonl"
    arguments = ["--models", "3", "--votes", "100", "--voters", "9", "--out", str(path)]
    run(capsys, *arguments)
    honest = path.read_text().splitlines()
    assert run(capsys, *arguments, "--attack", "fresh", "--attack-share", "0.2", "--json")[0] == 0
    rows = path.read_text().splitlines()
    assert (len(rows), rows[:100]) == (120, honest)
    assert all("model 3" in row and "rigger" in row for row in rows[100:])  # the last one is lifted


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--strength", "GPT"], "give NAME=RATING"),
        (["--models", "1"], "at least 2"),
        (["--attack", "fresh"], "needs --out"),
        (["--method", "elo"], "only bt"),
        (["--boards", "0"], "at least 1"),
        (["--out", "/nowhere/votes.jsonl"], "/nowhere"),
    ],
)
def test_a_mistake_is_one_line(capsys, arguments, said):
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
