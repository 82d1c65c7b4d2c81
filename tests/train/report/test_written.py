"""What a model wrote and learned from is shown as it is kept, and a life as its stages."""

from __future__ import annotations

import gzip
import json

import pytest

from camelid.cli import main
from camelid.errors import FormatError, MissingError
from camelid.train.report.written import answers_of, has_written
from camelid.train.runs import Run
from tests.train.lives import made_life


@pytest.fixture
def ppo(tmp_path):
    folder = made_life(tmp_path / "life") / "ppo" / "rollouts"
    folder.mkdir()
    for first in (1, 9):
        for rank in (0, 1):
            line = {"step": first, "messages": [{"role": "user", "content": f"[b]q{rank}[/b]"}]}
            lines = "".join(
                json.dumps(line | {"answer": f"{first} {rank} {n}", "reward": 0.5 * n}) + "\n" for n in (0, 1)
            )
            if rank:
                with gzip.open(folder / f"step{first}.1.jsonl.gz", "wt") as file:
                    file.write(lines)
            else:
                (folder / f"step{first}.0.jsonl").write_text(lines)
    return Run(folder.parent)


def said(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(["inspect", *arguments])
    text = capsys.readouterr()
    assert end.value.code == 0, text.err
    return text.out


def test_a_step_learns_from_the_answers_last_written(ppo):
    assert has_written(ppo)
    assert answers_of(ppo, 1)[0] == answers_of(ppo, 8)[0] == 1
    first, answers = answers_of(ppo, 12)
    assert first == 9
    assert [answer["answer"] for answer in answers] == ["9 0 0", "9 0 1", "9 1 0", "9 1 1"]
    (ppo.folder / "rollouts" / "step9.0.jsonl").write_text('{"step": 9')
    with pytest.raises(FormatError, match=r"step9\.0\.jsonl: cannot be read"):
        answers_of(ppo, 9)
    (ppo.folder / "rollouts" / "step1.0.jsonl").unlink()
    (ppo.folder / "rollouts" / "step1.1.jsonl.gz").unlink()
    with pytest.raises(MissingError, match="keeps no answers of step 3"):
        answers_of(ppo, 3)


def test_the_verb_prints_answers_and_lives(ppo, capsys):
    run = str(ppo.folder.parent)
    told = said(capsys, run, "--stage", "ppo", "--step", "10", "--row", "1")
    assert "written before step 9" in told
    assert "[b]q0[/b]" in told  # as it was written, no markup
    assert "▸ 9 0 1" in told
    assert "reward 0.5" in told
    assert "answer 0" not in told
    found = json.loads(said(capsys, run, "--stage", "ppo", "--step", "10", "--json"))
    assert (found["written_before"], len(found["answers"])) == (9, 4)
    told = said(capsys, run)
    for words in ("pretrain", "rejection", "12 of 20", "waiting"):
        assert words in told
    stages = json.loads(said(capsys, run, "--json"))["stages"]
    assert [stage["state"] for stage in stages] == ["done", "done", "done", "training", "waiting"]
    assert stages[3]["metrics"]["reward"] == pytest.approx(1.2)
    with pytest.raises(SystemExit) as end:
        main(["inspect", run, "--stage", "ppo", "--step", "10", "--row", "7"])
    assert end.value.code == 2
    assert "has answers 0 to 3" in capsys.readouterr().err
