"""`camelid arena fraud`, as a person and a program call it."""

from __future__ import annotations

import json

import pytest

from camelid.arena.ratings import rate
from camelid.cli import main

read_battles = pytest.importorskip("camelid.arena.logs").read_battles


def run(capsys, *arguments):
    """(status, standard output, standard error)."""
    with pytest.raises(SystemExit) as end:
        main(["arena", *arguments])
    said = capsys.readouterr()
    return end.value.code, said.out, said.err


@pytest.fixture
def log(capsys, tmp_path):
    """1,000 honest votes and 200 of fresh riggers for the last of five models."""
    path = tmp_path / "votes.jsonl"
    arguments = ["--models", "5", "--votes", "1000", "--voters", "20", "--attack", "fresh", "--attack-share", "0.2"]
    assert run(capsys, "simulate", *arguments, "--out", str(path))[0] == 0
    return path


def test_programs_get_all_that_was_found(capsys, log):
    status, out, _ = run(capsys, "fraud", str(log), "--json")
    said = json.loads(out)
    assert status == 0
    assert said["suspicious_votes"] >= 200
    assert "favour model 5" in said["together"][0]
    places = {
        name: [row["name"] for row in said[name]["models"]].index("model 5") for name in ("board", "board_without")
    }
    assert places["board"] < places["board_without"]


def test_the_votes_that_decide_are_places_in_the_log(capsys, log):
    first = json.loads(run(capsys, "fraud", str(log), "--json", "--places", "1")[1])["first_place"]
    battles = read_battles([log])
    kept = [k for k in range(len(battles)) if k not in set(first["votes"])]
    assert rate(battles).rows[0].name == first["upper"]
    assert rate(battles.take(kept)).rows[0].name == first["lower"]


def test_a_person_reads_sentences_and_both_boards(capsys, log):
    status, out, _ = run(capsys, "fraud", str(log))
    assert status == 0
    assert "stands first instead of" in out
    assert "voters of fewer than 10 votes favour model 5" in out
    assert "Without" in out


@pytest.mark.parametrize(
    ("arguments", "said"), [(["--alarm", "2"], "alarm"), (["--taste", "-1"], "taste"), (["--places", "0"], "places")]
)
def test_a_mistake_is_one_line(capsys, log, arguments, said):
    status, out, err = run(capsys, "fraud", str(log), *arguments)
    assert (status, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
