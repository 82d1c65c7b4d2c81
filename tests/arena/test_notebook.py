"""The notebook runs offline, cell by cell, and its stored outputs are true."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pytest

from camelid.arena.logs import read_battles

DOCS = Path(__file__).parents[2] / "docs"


def test_the_notebook_says_what_its_cells_print(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    notebook = json.loads((DOCS / "leaderboard.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    (tmp_path / "leaderboard-votes.jsonl").write_bytes((DOCS / "leaderboard-votes.jsonl").read_bytes())
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for cell in cells:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec("".join(cell["source"]), names)
        stored = "".join(text for output in cell["outputs"] for text in output["text"])
        assert said.getvalue() == stored
    assert len(cells) >= 4


def test_its_log_is_small():
    assert len(read_battles([DOCS / "leaderboard-votes.jsonl"])) == 400
