"""run.json: what a made thing was made from, complete or not there, and readable later."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import camelid
from camelid import pedigree
from camelid.errors import FormatError, MissingError
from camelid.pedigree import describe_file, pedigree_path, read_pedigree, write_pedigree


def test_a_folder_and_a_file_are_recorded(tmp_path: Path) -> None:
    source = tmp_path / "source.gguf"
    source.write_bytes(b"weights")
    folder, file = tmp_path / "model", tmp_path / "model.gguf"
    folder.mkdir()
    file.touch()
    assert write_pedigree(folder, "convert", [source], {"to": "hf"}) == folder / "run.json"
    assert write_pedigree(file, "convert", [source], {"to": "gguf"}, {"tensors": 3}) == tmp_path / "model.gguf.run.json"
    record = read_pedigree(file)
    assert record["inputs"] == [
        {"name": "source.gguf", "bytes": 7, "sha256": hashlib.sha256(b"weights").hexdigest()},
    ]
    assert (record["command"], record["options"], record["counts"]) == ("convert", {"to": "gguf"}, {"tensors": 3})
    assert record["camelid"] == camelid.__version__
    assert record["python"] == ".".join(map(str, sys.version_info[:3]))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", record["date"])
    assert "numpy" in record["libraries"]
    assert read_pedigree(folder)["counts"] == {}


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_pedigree(tmp_path, "convert", [], {"to": object()})
    with pytest.raises(FileNotFoundError):
        write_pedigree(tmp_path, "convert", [tmp_path / "gone"], {})
    assert list(tmp_path.iterdir()) == []


def test_large_files_are_hashed_as_a_stream(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(range(256)) * 20_000)
    assert describe_file(path)["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_no_record(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"no run\.json says how it was made"):
        read_pedigree(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"command": "convert"}', "\xff"])
def test_a_damaged_record(tmp_path: Path, text: str) -> None:
    pedigree_path(tmp_path).write_bytes(text.encode("latin-1"))
    with pytest.raises(FormatError, match=r"run\.json: not a"):
        read_pedigree(tmp_path)


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", "-C", folder, *who, *arguments], capture_output=True, text=True, check=True).stdout


def commit_seen(copy: Path, monkeypatch: pytest.MonkeyPatch) -> str | None:
    monkeypatch.setattr(pedigree, "__file__", str(copy / "camelid" / "pedigree.py"))
    return pedigree.code_commit()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_is_camelids_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    package = tmp_path / "camelid"
    package.mkdir()
    (package / "pedigree.py").write_text("one")
    assert commit_seen(tmp_path, monkeypatch) is None
    git(tmp_path, "init", "-q")
    assert commit_seen(tmp_path, monkeypatch) is None
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    commit = git(tmp_path, "rev-parse", "HEAD").strip()
    assert commit_seen(tmp_path, monkeypatch) == commit
    (package / "new.py").write_text("two")
    assert commit_seen(tmp_path, monkeypatch) == f"{commit}+"
    inside = tmp_path / "site-packages"
    (inside / "camelid").mkdir(parents=True)
    assert commit_seen(inside, monkeypatch) is None


def test_the_record_is_for_people_too(tmp_path: Path) -> None:
    text = write_pedigree(tmp_path, "convert", [], {"to": "hf — é"}).read_text(encoding="utf-8")
    assert json.loads(text)["options"] == {"to": "hf — é"}
    assert "hf — é" in text
    assert text.endswith("}\n")
