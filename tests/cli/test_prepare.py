"""`camelid prepare` as a person meets it: a plan, a table, one line for a mistake."""

from __future__ import annotations

import json

import pytest

from camelid.cli.flags import run_verb
from camelid.errors import MissingError, OptionError

RECIPE = """
name = "small"
[data]
validation = 0
dedup = {url = false, exact = true, minhash = false}
rules = {gopher_quality = {min_words = 4, min_stop_words = 1}}
[[data.sources]]
name = "notes"
kind = "text"
path = "notes.txt"
split = "line"
[tokenizer]
vocab_size = 520
least = 1
"""
NOTES = ["the llama eats grass on the hill"] * 2 + ["too short", "the river of the hills [bold]is[/] cold"]


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("\n".join(NOTES))
    (tmp_path / "small.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return "small.toml"


def test_a_table_says_what_each_stage_did(recipe, capsys, tmp_path):
    assert run_verb("prepare", [recipe, "--workers", "1"]) == 0
    out, err = capsys.readouterr()
    assert "1 files, 115 bytes of text; at most" in err
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert rows["read"][:2] == ["4", "4"]
    assert rows["gopher_quality"][:2] == ["4", "3"]
    assert rows["dedup.exact"][:2] == ["3", "2"]
    assert "1 few words" in out
    assert out.splitlines()[-1].endswith("tokens in runs/small/data")
    assert (tmp_path / "runs" / "small" / "data" / "manifest.json").exists()
    assert run_verb("prepare", [recipe]) == 0
    assert "Was there already" in capsys.readouterr().out


def test_json_has_the_same(recipe, capsys):
    assert run_verb("prepare", [recipe, "--out", "elsewhere", "--workers", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["folder"] == "elsewhere/small/data"
    assert [stage["name"] for stage in told["stages"]] == ["read", "gopher_quality", "dedup.exact", "tokenise"]
    assert told["stages"][1]["examples"]["few words"] == [{"id": "notes.txt#66", "excerpt": "too short"}]
    assert told["documents"] == 2
    assert told["warnings"] == []


def test_a_dry_run_keeps_nothing(recipe, capsys, tmp_path):
    assert run_verb("prepare", [recipe, "--dry-run", "3", "--set", "tokenizer.vocab_size=30000"]) == 0
    out, err = capsys.readouterr()
    assert "A trial: nothing was kept." in out
    assert "vocab_size: these documents give" in err
    assert not (tmp_path / "runs").exists()


def test_mistakes_are_plain(recipe):
    with pytest.raises(OptionError, match=r"small.toml: data\.\S*ruels.*did you mean 'rules'"):
        run_verb("prepare", [recipe, "--set", "data.ruels.c4={}"])
    with pytest.raises(OptionError, match=r"data.rules.finweb: no such rule; did you mean 'fineweb'"):
        run_verb("prepare", [recipe, "--set", "data.rules.finweb={}"])
    with pytest.raises(OptionError, match="did you mean 'text'"):
        run_verb("prepare", [recipe, "--set", "data.sources.0.kind=txt"])
    with pytest.raises(MissingError, match=r"notes: .*other.txt: no file; check the path"):
        run_verb("prepare", [recipe, "--set", "data.sources.0.path=other.txt"])
    with pytest.raises(OptionError, match="--dry-run: must be at least 1"):
        run_verb("prepare", [recipe, "--dry-run", "0"])
    with pytest.raises(OptionError, match="workers: must be at least 1"):
        run_verb("prepare", [recipe, "--workers", "0"])
